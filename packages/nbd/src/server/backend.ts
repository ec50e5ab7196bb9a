import type { ChangeTracking } from "./change-tracking.ts";

/** What a backend is given with a call that waits. */
export interface BackendWait {
  /**
   * For reads: aborted when the client is gone. For everything that changes the disk: aborted only when the server is
   * closed by force, so that a fence can wait for what is under way.
   */
  signal: AbortSignal;
}

/** One range of a disk and what is known of its allocation. */
export interface AllocationExtent {
  /** Bytes. */
  offset: number;
  /** Bytes. */
  length: number;
  /** Nothing is allocated there. Says nothing of what it reads as. */
  hole: boolean;
  /** It reads as zeroes. */
  zero: boolean;
}

/**
 * What an export reads from and writes to. Only `size` and `read` are needed; an absent member means that the server
 * does not offer the command. Calls overlap: a backend that cannot bear that queues them itself. A call may finish
 * at once (return nothing) or return a promise.
 *
 * A call fails by throwing or rejecting; a `code` of Node (`ENOSPC`, `EACCES`) or of a ProviderError decides which
 * error the client sees, and everything else is EIO.
 */
export interface NbdBackend {
  /** Bytes. */
  readonly size: number;
  /** The unit that offsets and lengths are multiples of, in bytes; a power of two up to 64 KiB. Default 1. */
  readonly blockSize?: number;
  /** The request length served best, in bytes; a power of two of at least 512. Default: 4096. */
  readonly preferredLength?: number;
  /** True: nothing may be written although `write` exists. Without `write` an export is always read-only. */
  readonly readOnly?: boolean;
  /**
   * True where a flush covers the writes of all connections and every connection sees at once what another wrote.
   * Default: only where the export is read-only.
   */
  readonly multiConnection?: boolean;
  /** For people, shown in listings. */
  readonly description?: string;
  /** Fills all of `into`. The server owns `into` before and after the call. */
  read(offset: number, into: Uint8Array, options: BackendWait): Promise<void> | void;
  /**
   * Writes all of `data` and keeps no reference to it. `fua`: settles only when the data is durable; never true where
   * the backend has no `flush`.
   */
  write?(offset: number, data: Uint8Array, options: { fua: boolean } & BackendWait): Promise<void> | void;
  /**
   * Makes a range read as zeroes. `noHole`: the space stays allocated. `fast`: rejects with a {@link SlowZeroError}
   * and changes nothing unless this is faster than writing. Absent: the server writes zeroes.
   */
  zero?(
    offset: number,
    length: number,
    options: { noHole: boolean; fast: boolean; fua: boolean } & BackendWait,
  ): Promise<void> | void;
  /** The content of a range is not needed any more. */
  trim?(offset: number, length: number, options: { fua: boolean } & BackendWait): Promise<void> | void;
  /** Makes every write durable that settled before the call, whichever connection it came by. */
  flush?(options: BackendWait): Promise<void> | void;
  /** A range will be read soon. */
  cache?(offset: number, length: number, options: BackendWait): Promise<void> | void;
  /** Allocation of a range, ascending; what is not listed counts as data. Absent: everything is data. */
  extents?(offset: number, length: number, options: BackendWait): AsyncIterable<AllocationExtent>;
}

/** A name that clients can open, and what stands behind it. */
export interface NbdExport {
  readonly backend: NbdBackend;
  /** True: this export takes no writes, whatever the backend can. */
  readonly readOnly?: boolean;
  /** For people, shown in listings. Default: the backend's. */
  readonly description?: string;
  /** What records the ranges that clients write; each is also offered as a meta context of its own name. */
  readonly tracking?: readonly ChangeTracking[];
}

/** Thrown by `zero` with `fast`: zeroing this range is no faster than writing it. Nothing was changed. */
export class SlowZeroError extends Error {
  readonly code: string = "ENOTSUP";

  constructor() {
    super("zeroing this range is no faster than writing zeroes");
    this.name = "SlowZeroError";
  }
}

/** Whether an export takes writes. */
export function isWritable(entry: NbdExport): boolean {
  return entry.readOnly !== true && entry.backend.readOnly !== true && entry.backend.write !== undefined;
}

/** @throws RangeError naming the export when its backend's numbers cannot be served. */
export function checkExport(name: string, entry: NbdExport): void {
  const { size, blockSize = 1, preferredLength = 4096 } = entry.backend;
  const fail = (what: string): never => {
    throw new RangeError(`NBD export ${JSON.stringify(name)}: ${what}`);
  };
  if (!Number.isSafeInteger(size) || size < 0) fail(`size must be a whole number of bytes, not ${size}`);
  if (!isPowerOfTwo(blockSize) || blockSize > 65_536) {
    fail(`blockSize must be a power of two from 1 to 65536, not ${blockSize}`);
  }
  if (size % blockSize !== 0) fail(`size ${size} is no multiple of blockSize ${blockSize}`);
  if (!isPowerOfTwo(preferredLength) || preferredLength < 512) {
    fail(`preferredLength must be a power of two of at least 512, not ${preferredLength}`);
  }
  for (const tracking of entry.tracking ?? []) {
    if (tracking.size !== size) fail(`tracking "${tracking.name}" is for ${tracking.size} bytes, the disk has ${size}`);
  }
  const names = (entry.tracking ?? []).map((tracking) => tracking.name);
  const twice = names.find((each, index) => names.indexOf(each) !== index);
  if (twice !== undefined) fail(`two trackings go by the name "${twice}"`);
}

function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}
