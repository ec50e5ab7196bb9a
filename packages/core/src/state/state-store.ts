import type { Json } from "../provider/extents.ts";
import type { Wait } from "../provider/wait.ts";

/** A record as it was read: its value and the revision to give back to `set`. */
export interface StateRecord {
  value: Json;
  revision: string;
}

export interface SetOptions extends Wait {
  /** The revision the caller read; null: the key must not exist yet. */
  revision: string | null;
}

/** Who held a job before. */
export interface PreviousLease {
  epoch: number;
  /** Whether it was given back in order. */
  released: boolean;
  /**
   * False only when its holder is proven dead: it ran on this host, and the host was restarted since or the process is
   * gone. True when it is proven alive. Undefined: nobody here can tell (another host, another container).
   */
  alive: boolean | undefined;
  /** When its holder was last heard of, ISO 8601, by the clock of the state's own file system. */
  seenAt: string;
}

/**
 * The right to work on a job, until somebody else acquires it. Acquiring never waits for the holder before: it gets a
 * newer epoch, and the older holder finds out at its next `check`.
 */
export interface Lease {
  readonly job: string;
  /** Larger than every epoch this job had before. */
  readonly epoch: number;
  /** Absent: the job was never acquired before. */
  readonly previous?: PreviousLease;
  /** Resolves while no newer epoch exists, and lets others see that this holder lives. @throws ProviderError FENCED */
  check(wait?: Wait): Promise<void>;
  /** Gives the job back; idempotent, and without effect once a newer epoch exists. */
  release(): Promise<void>;
  /** The same as `release`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Where a job's state lives: records with compare-and-set, blobs, and logs that are appended to, all by key.
 *
 * A key is parts joined by `/`; build it with `stateKey`, which encodes parts such as URIs. A key is used for one kind
 * alone: a record, a blob or a log. What a call acknowledged survives a power loss, and nothing torn is ever returned,
 * but for the end of a log.
 */
export interface StateStore {
  /** The record of a key. @throws ProviderError CORRUPT when it cannot be read. */
  get(key: string, wait?: Wait): Promise<StateRecord | undefined>;
  /**
   * Writes a record if its revision is still the one given, atomically among all processes, and resolves with the new
   * revision once it is durable. @throws ProviderError IN_USE when it changed meanwhile; nothing was written then.
   */
  set(key: string, value: Json, options: SetOptions): Promise<string>;
  /** Removes what a key names; idempotent. A power loss may bring a blob back, never a record or a log. */
  delete(key: string, wait?: Wait): Promise<void>;
  /** Every key that begins with `prefix`, in no order. Keys that come or go meanwhile may be missed. */
  list(prefix: string, wait?: Wait): AsyncIterable<string>;
  /** Writes a blob: afterwards all of it is durable; after a failure all of it or what was there before. */
  put(key: string, bytes: Uint8Array, wait?: Wait): Promise<void>;
  /** A blob, the caller's to keep. */
  bytes(key: string, wait?: Wait): Promise<Uint8Array | undefined>;
  /**
   * Appends to a log, durable when resolved. One writer per log. A power loss before that may leave any part of `bytes`
   * at the log's end; after a rejection nothing of them is left, or later appends to this log are refused.
   */
  append(key: string, bytes: Uint8Array, wait?: Wait): Promise<void>;
  /** A log from its beginning, in pieces of no meaning of their own; nothing where there is none. */
  log(key: string, wait?: Wait): AsyncIterable<Uint8Array>;
  /** Takes a job over, with an epoch larger than all before. */
  acquire(job: string, wait?: Wait): Promise<Lease>;
  /** Closes files. Releases no lease. */
  [Symbol.asyncDispose](): Promise<void>;
}
