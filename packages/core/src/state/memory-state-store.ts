import { ProviderError } from "../provider/error.ts";
import type { Wait } from "../provider/wait.ts";
import { checkKey } from "./state-key.ts";
import type { Lease, PreviousLease, SetOptions, StateRecord, StateStore } from "./state-store.ts";

interface Held {
  epoch: number;
  released: boolean;
  seenAt: string;
}

/** A state store that lives as long as its process: for tests, trials and runs that need no resume. */
export class MemoryStateStore implements StateStore {
  readonly #records = new Map<string, { text: string; revision: string }>();
  readonly #blobs = new Map<string, Uint8Array>();
  readonly #logs = new Map<string, Uint8Array[]>();
  readonly #leases = new Map<string, Held>();
  #revision = 0;

  async get(key: string, wait?: Wait): Promise<StateRecord | undefined> {
    wait?.signal?.throwIfAborted();
    const found = this.#records.get(checkKey(key));
    return found && { value: JSON.parse(found.text), revision: found.revision };
  }

  async set(key: string, value: StateRecord["value"], options: SetOptions): Promise<string> {
    options.signal?.throwIfAborted();
    const text = JSON.stringify(value);
    if ((this.#records.get(checkKey(key))?.revision ?? null) !== options.revision) throw changedMeanwhile(key);
    const revision = String(++this.#revision);
    this.#records.set(key, { text, revision });
    return revision;
  }

  async delete(key: string, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    checkKey(key);
    this.#records.delete(key);
    this.#blobs.delete(key);
    this.#logs.delete(key);
  }

  async *list(prefix: string, wait?: Wait): AsyncIterable<string> {
    for (const key of new Set([...this.#records.keys(), ...this.#blobs.keys(), ...this.#logs.keys()])) {
      wait?.signal?.throwIfAborted();
      if (key.startsWith(prefix)) yield key;
    }
  }

  async put(key: string, bytes: Uint8Array, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    this.#blobs.set(checkKey(key), Uint8Array.from(bytes));
  }

  async bytes(key: string, wait?: Wait): Promise<Uint8Array | undefined> {
    wait?.signal?.throwIfAborted();
    const found = this.#blobs.get(checkKey(key));
    return found && Uint8Array.from(found);
  }

  async append(key: string, bytes: Uint8Array, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    const pieces = this.#logs.get(checkKey(key)) ?? [];
    pieces.push(Uint8Array.from(bytes));
    this.#logs.set(key, pieces);
  }

  async *log(key: string, wait?: Wait): AsyncIterable<Uint8Array> {
    for (const piece of this.#logs.get(checkKey(key)) ?? []) {
      wait?.signal?.throwIfAborted();
      yield Uint8Array.from(piece);
    }
  }

  async acquire(job: string, wait?: Wait): Promise<Lease> {
    wait?.signal?.throwIfAborted();
    const before = this.#leases.get(job);
    const held: Held = { epoch: (before?.epoch ?? 0) + 1, released: false, seenAt: new Date().toISOString() };
    this.#leases.set(job, held);
    const release = async (): Promise<void> => void (held.released = true);
    const previous: PreviousLease | undefined = before && {
      epoch: before.epoch,
      released: before.released,
      alive: true,
      seenAt: before.seenAt,
    };
    return {
      job,
      epoch: held.epoch,
      ...(previous && { previous }),
      check: async (options) => {
        options?.signal?.throwIfAborted();
        const newest = this.#leases.get(job)?.epoch ?? held.epoch;
        if (newest !== held.epoch) throw superseded(job, held.epoch, newest);
        if (held.released) throw givenBack(job, held.epoch);
        held.seenAt = new Date().toISOString();
      },
      release,
      [Symbol.asyncDispose]: release,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The failure of a compare-and-set. */
export function changedMeanwhile(key: string): ProviderError {
  return new ProviderError("IN_USE", `the record ${key} was changed by somebody else meanwhile; read it again`, {
    operation: "set state",
  });
}

/** The failure of a lease that a newer one replaced. */
export function superseded(job: string, epoch: number, newest: number | undefined): ProviderError {
  return new ProviderError(
    "FENCED",
    `another worker took over the job ${job} (epoch ${newest ?? "unknown"}; this one has ${epoch}); this worker stops`,
    { operation: "check lease" },
  );
}

/** The failure of a lease that its own holder gave back. */
export function givenBack(job: string, epoch: number): ProviderError {
  return new ProviderError("FENCED", `this worker gave the job ${job} back (epoch ${epoch}); acquire it again`, {
    operation: "check lease",
  });
}
