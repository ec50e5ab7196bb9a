import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Bytes that one call of `work` leaves in V8's old generation when `width` of them are under way at all times. What
 * a copy does for every MiB should leave none: it stays, with all it can reach, until the next full collection, and the
 * young generation grows meanwhile.
 */
export async function oldBytesPerCall(work: () => Promise<void>, width = 16): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as (options: { type: "minor" | "major" }) => void;
  const calls = 4000;
  const run = async (count: number): Promise<void> => {
    const each = async (): Promise<void> => {
      for (let call = 0; call < count / width; call++) await work();
    };
    await Promise.all(Array.from({ length: width }, each));
  };
  // Compiled code is old, too.
  await run(calls);
  let most = 0;
  // A full collection in the middle, which V8 may begin at any time, hides what there was.
  for (let attempt = 0; attempt < 3; attempt++) {
    collect({ type: "major" });
    const before = used();
    for (let round = 0; round < 8; round++) {
      await run(calls / 8);
      collect({ type: "minor" });
    }
    most = Math.max(most, (used() - before) / calls);
  }
  return most;
}

function used(): number {
  const old = getHeapSpaceStatistics().find(({ space_name }) => space_name === "old_space");
  if (old === undefined) throw new Error("this V8 has no space of the name old_space");
  return old.space_used_size;
}
