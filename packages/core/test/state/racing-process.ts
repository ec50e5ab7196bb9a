import { isProviderError } from "../../src/provider/error.ts";
import { openDirectoryState } from "../../src/state/directory-state-store.ts";

/**
 * A process that races others: `<directory> count <rounds>` adds to a counter that many times and prints `+` for each
 * that was acknowledged; `<directory> acquire <rounds>` prints the epoch of each lease it was granted.
 */
const [directory, task, rounds] = process.argv.slice(2);
const store = await openDirectoryState(directory!);
process.stdout.write("ready\n");
for (let done = 0; done < Number(rounds);) {
  if (task === "acquire") {
    process.stdout.write(`${(await store.acquire("job")).epoch}\n`);
    done++;
    continue;
  }
  const found = await store.get("counter");
  try {
    await store.set("counter", Number(found?.value ?? 0) + 1, { revision: found?.revision ?? null });
    process.stdout.write("+\n");
    done++;
  } catch (error) {
    if (!isProviderError(error) || error.code !== "IN_USE") throw error;
  }
}
