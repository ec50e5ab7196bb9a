import type { Json } from "../provider/extents.ts";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { LaunchedMachine } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { stateKey } from "../state/state-key.ts";
import type { StateStore } from "../state/state-store.ts";

interface BookJson {
  version: 1;
  job: string;
  machines: LaunchedMachine[];
}

/** So many others may change the list first, each time it is to be changed. */
const MOST_TRIES = 100;

/**
 * The machines that launches of a job made, in a document of their own, so that a test launch and a run of the same job
 * go on beside each other. Machines are added and struck out one by one by whoever launched or ended them, in any order,
 * so this needs no lease: a machine that was launched is written down even by a worker that was superseded.
 */
export async function launchedMachines(
  store: StateStore,
  job: string,
  wait?: Wait,
): Promise<readonly LaunchedMachine[]> {
  return (await find(store, job, wait)).book.machines;
}

/** Writes a machine down, durably; one with the same id is replaced. */
export async function noteLaunched(
  store: StateStore,
  job: string,
  machine: LaunchedMachine,
  wait?: Wait,
): Promise<void> {
  await change(store, job, (machines) => [...machines.filter(({ id }) => id !== machine.id), machine], wait);
}

/** Strikes a machine out; idempotent. */
export async function noteEnded(store: StateStore, job: string, machine: string, wait?: Wait): Promise<void> {
  await change(store, job, (machines) => machines.filter(({ id }) => id !== machine), wait);
}

async function change(
  store: StateStore,
  job: string,
  to: (machines: readonly LaunchedMachine[]) => LaunchedMachine[],
  wait?: Wait,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const { book, revision } = await find(store, job, wait);
    const changed = { ...book, machines: to(book.machines) };
    try {
      await store.set(keyOfBook(job), changed as unknown as Json, { revision, signal: wait?.signal });
      return;
    } catch (error) {
      if (!isProviderError(error) || error.code !== "IN_USE") throw error;
      if (attempt < MOST_TRIES) continue;
      throw new ProviderError(
        "UNAVAILABLE",
        `The list of machines that job ${job} launched was changed by others ${attempt} times in a row.`,
        { operation: "update launches", cause: error },
      );
    }
  }
}

function keyOfBook(job: string): string {
  return stateKey("jobs", job, "launches");
}

async function find(store: StateStore, job: string, wait?: Wait): Promise<{ book: BookJson; revision: string | null }> {
  const found = await store.get(keyOfBook(job), wait);
  if (found === undefined) return { book: { version: 1, job, machines: [] }, revision: null };
  const book = found.value as unknown as BookJson;
  if (typeof book !== "object" || book === null || book.version !== 1 || book.job !== job) {
    throw new ProviderError(
      "CORRUPT",
      `The list of machines that job ${job} launched is not a document this version understands. Restore the state ` +
        `directory from a backup; no machine was touched.`,
      { operation: "read launches" },
    );
  }
  return { book, revision: found.revision };
}
