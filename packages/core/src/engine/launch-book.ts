import type { Json } from "../provider/extents.ts";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { LaunchedMachine } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { stateKey } from "../state/state-key.ts";
import type { Lease, StateStore } from "../state/state-store.ts";

interface BookJson {
  version: 1;
  job: string;
  machines: LaunchedMachine[];
}

/**
 * The machines that launches of a job made. It is a document of its own under a lease of its own, so that a test launch
 * and a run of the same job go on beside each other.
 */
export class LaunchBook implements AsyncDisposable {
  readonly #store: StateStore;
  readonly #lease: Lease;
  readonly #key: string;
  #book: BookJson;
  #revision: string | null;

  private constructor(store: StateStore, lease: Lease, key: string, found: Found) {
    this.#store = store;
    this.#lease = lease;
    this.#key = key;
    this.#book = found.book;
    this.#revision = found.revision;
  }

  /** The machines, read without taking anything over. @throws ProviderError CORRUPT when the document is not ours. */
  static async read(store: StateStore, job: string, wait?: Wait): Promise<readonly LaunchedMachine[]> {
    return (await find(store, job, wait)).book.machines;
  }

  /** Takes the launches of a job over. A launch is idempotent by its key, so one that is still under way does no harm. */
  static async open(store: StateStore, job: string, wait?: Wait): Promise<LaunchBook> {
    const lease = await store.acquire(`${job}~launches`, wait);
    try {
      return new LaunchBook(store, lease, keyOfBook(job), await find(store, job, wait));
    } catch (error) {
      await lease.release();
      throw error;
    }
  }

  get machines(): readonly LaunchedMachine[] {
    return this.#book.machines;
  }

  /** Writes a machine down, durably; one with the same id is replaced. */
  async add(machine: LaunchedMachine, wait?: Wait): Promise<void> {
    await this.#set([...this.#book.machines.filter(({ id }) => id !== machine.id), machine], wait);
  }

  /** Strikes a machine out; idempotent. */
  async remove(machine: string, wait?: Wait): Promise<void> {
    await this.#set(
      this.#book.machines.filter(({ id }) => id !== machine),
      wait,
    );
  }

  async #set(machines: LaunchedMachine[], wait?: Wait): Promise<void> {
    await this.#lease.check(wait);
    const book = { ...this.#book, machines };
    try {
      const options = { revision: this.#revision, signal: wait?.signal };
      this.#revision = await this.#store.set(this.#key, book as unknown as Json, options);
    } catch (error) {
      if (!isProviderError(error) || error.code !== "IN_USE") throw error;
      throw new ProviderError("FENCED", `The launches of job ${book.job} were taken over by another worker.`, {
        operation: "update launches",
        cause: error,
      });
    }
    this.#book = book;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lease.release();
  }
}

interface Found {
  book: BookJson;
  revision: string | null;
}

function keyOfBook(job: string): string {
  return stateKey("jobs", job, "launches");
}

async function find(store: StateStore, job: string, wait?: Wait): Promise<Found> {
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
