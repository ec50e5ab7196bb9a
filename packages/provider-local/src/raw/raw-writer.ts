import { close, fdatasync, fsync, openSync, closeSync, read, readSync, write, writeSync } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import type { BlockWriter, Volume } from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import { DirectFile, isAllZero, mostLength, zeroes } from "./direct-file.ts";
import { openRaw } from "./raw-file.ts";
import { type WriteGate, checkGate, createGate, enterGate, leaveGate, shutGate } from "../fence/write-gate.ts";

/** What a raw writer must be told: who it is, and what to do at the steps that its caller knows more of. */
export interface RawWriterOptions {
  /** The writer's `generation`. */
  generation: string;
  /** Proven to read as zeroes wherever this run has not written. */
  blank?: boolean;
  /** Refuse unless the path still leads to this file or device. */
  place?: string | undefined;
  /** The gate shared with whoever may have to cut this writer off. */
  gate?: WriteGate;
  /** Asked before each flush resolves: rejects with FENCED when a newer epoch has taken over. */
  checkFence?(): Promise<void>;
  /** Records the commit, after the data is durable; its result is the volume. */
  committed?(): Promise<Volume>;
  /** Discards what this run wrote; called with no write under way. */
  discard?(fd: number): Promise<void>;
  /** Called once when the writer is closed. */
  closed?(): Promise<void>;
}

/** What a writer's lane is opened with. */
export interface RawWriterLaneData {
  path: string;
  place: string;
  size: number;
  blockSize: number;
  gate: WriteGate;
}

const laneModule = new URL(
  import.meta.url.endsWith(".ts") ? "./raw-writer-lane.ts" : "./raw-writer-lane.js",
  import.meta.url,
).href;

/** The next write lies ready when one is done; a disk is kept busy by more. */
const writesAtOnce = 2;
const directWritesAtOnce = 4;
const preferredLength = 1024 * 1024;

/** Writes in place into a raw file or block device that exists already and has its full size. */
export async function openRawWriter(path: string, options: RawWriterOptions): Promise<BlockWriter> {
  const file = openRaw(path, { write: true, place: options.place });
  const { fd, size, blockSize } = file;
  const direct = DirectFile.open(file);
  const gate = options.gate ?? createGate();
  const lane: RawWriterLaneData = { path: file.path, place: file.place, size, blockSize, gate };
  let isClosed = false;
  let nameIsDurable = file.kind === "device";

  async function guarded(operation: string, work: () => Promise<void>): Promise<void> {
    enterGate(gate, file.path);
    try {
      await work();
    } catch (error) {
      throw translate(error, operation, file.path);
    } finally {
      leaveGate(gate);
    }
  }

  async function put(offset: number, data: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    const done = direct?.takes(offset, data) === true ? await direct.write(offset, data) : 0;
    if (done === data.byteLength) return;
    await inTurn(async () => {
      signal?.throwIfAborted();
      checkGate(gate, file.path);
      await writeFully(fd, file.path, offset + done, data.subarray(done));
    });
  }

  async function isZero(offset: number, length: number, signal: AbortSignal | undefined): Promise<boolean> {
    const seen = await direct?.isZero(offset, length);
    if (seen !== undefined) return seen;
    const bytes = new Uint8Array(length);
    await readFully(fd, file.path, offset, bytes, signal);
    return isAllZero(bytes);
  }

  let before: Promise<unknown> = Promise.resolve();

  /** A file system lets one write at a time into a file, and others spin until it is done: they wait here. Devices take several. */
  function inTurn(work: () => Promise<void>): Promise<void> {
    if (file.kind === "device") return work();
    const mine = before.then(work);
    before = mine.catch(() => {});
    return mine;
  }

  async function flush(): Promise<void> {
    checkGate(gate, file.path);
    try {
      await fdatasyncOf(fd);
      if (!nameIsDurable) await syncFolder(dirname(file.path));
      nameIsDurable = true;
    } catch (error) {
      // Linux reports a failed write-back once and then forgets the pages: nothing after this may be believed.
      await shutGate(gate, "failed");
      throw translate(error, "flushing", file.path);
    }
    await options.checkFence?.();
    checkGate(gate, file.path);
  }

  return {
    size,
    blockSize,
    concurrency: direct === undefined ? writesAtOnce : directWritesAtOnce,
    preferredLength,
    generation: options.generation,
    ...(options.blank === true ? { blank: true } : {}),
    lane: { module: laneModule, data: lane },
    async write(offset, data, wait): Promise<void> {
      wait?.signal?.throwIfAborted();
      checkRange(file.path, size, offset, data.byteLength);
      await guarded("writing", () => put(offset, data, wait?.signal));
    },
    async zero(offset, length, wait): Promise<void> {
      wait?.signal?.throwIfAborted();
      checkRange(file.path, size, offset, length);
      const signal = wait?.signal;
      const clearing: Clearing = {
        isZero: (at, part) => isZero(at, part, signal),
        write: (at, bytes) => put(at, bytes, signal),
      };
      await guarded("clearing", () => clearRange(clearing, offset, length, signal));
    },
    async read(offset, into, wait): Promise<void> {
      checkRange(file.path, size, offset, into.byteLength);
      await guarded("reading back", () => readFully(fd, file.path, offset, into, wait?.signal));
    },
    async flush(wait): Promise<void> {
      wait?.signal?.throwIfAborted();
      await flush();
    },
    async commit({ signal }): Promise<Volume> {
      signal?.throwIfAborted();
      await flush();
      return (await options.committed?.()) ?? { id: file.identity, size, data: { path: file.path } };
    },
    async abandon(): Promise<void> {
      checkGate(gate, file.path);
      await options.discard?.(fd);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (isClosed) return;
      isClosed = true;
      await shutGate(gate, "closed");
      direct?.close();
      await closeFd(fd);
      await options.closed?.();
    },
  };
}

/** @throws RangeError for what is not inside the disk. */
export function checkRange(path: string, size: number, offset: number, length: number): void {
  if (offset < 0 || length < 0 || offset + length > size) {
    throw new RangeError(`${length} bytes at ${offset} are outside of ${path} (${size} bytes)`);
  }
}

/** Writes all of `bytes` in place, blocking the thread: for worker threads. */
export function writeFullySync(fd: number, offset: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength;)
    done += writeSync(fd, bytes, done, bytes.byteLength - done, offset + done);
}

/** Reads all of `into`, blocking the thread: for worker threads. */
export function readFullySync(fd: number, path: string, offset: number, into: Uint8Array): void {
  for (let done = 0; done < into.byteLength;) {
    const got = readSync(fd, into, done, into.byteLength - done, offset + done);
    if (got === 0) throw localError("CORRUPT", `${path} ended at ${offset + done} bytes while it was cleared`);
    done += got;
  }
}

/** How a range is looked at and written to, by the writer itself or by a lane. */
export interface Clearing {
  isZero(offset: number, length: number): Promise<boolean>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
}

/**
 * Makes a range read as zeroes. Node cannot punch holes, so what reads as zeroes already is left as it is (a hole stays a hole)
 * and only the rest is written.
 */
export async function clearRange(
  clearing: Clearing,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const end = offset + length;
  for (let at = offset; at < end;) {
    signal?.throwIfAborted();
    // All but the first and the last piece are whole pages.
    const part = Math.min(mostLength - (at % mostLength), end - at);
    if (!(await clearing.isZero(at, part))) await clearing.write(at, zeroes.subarray(0, part));
    at += part;
  }
}

async function writeFully(fd: number, path: string, offset: number, data: Uint8Array): Promise<void> {
  let done = 0;
  while (done < data.byteLength) {
    const wrote = await pwrite(fd, data, done, offset + done);
    if (wrote === 0) throw localError("UNAVAILABLE", `${path} took no more bytes at ${offset + done}`);
    done += wrote;
  }
}

async function readFully(
  fd: number,
  path: string,
  offset: number,
  into: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  let done = 0;
  while (done < into.byteLength) {
    signal?.throwIfAborted();
    const got = await pread(fd, into, done, offset + done);
    if (got === 0) throw localError("CORRUPT", `${path} ended at ${offset + done} bytes while it was read back`);
    done += got;
  }
}

/** Makes the name of a new file durable: without it a power cut may leave a file that no folder knows. */
export async function syncFolder(path: string): Promise<void> {
  const fd = openSync(path, "r");
  try {
    await fsyncOf(fd);
  } finally {
    closeSync(fd);
  }
}

const closeFd: (fd: number) => Promise<void> = promisify(close);
const fsyncOf: (fd: number) => Promise<void> = promisify(fsync);
const fdatasyncOf: (fd: number) => Promise<void> = promisify(fdatasync);

function pwrite(fd: number, data: Uint8Array, from: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, data, from, data.byteLength - from, position, (error, wrote) =>
      error === null ? resolve(wrote) : reject(error),
    );
  });
}

function pread(fd: number, into: Uint8Array, from: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, into, from, into.byteLength - from, position, (error, got) =>
      error === null ? resolve(got) : reject(error),
    );
  });
}
