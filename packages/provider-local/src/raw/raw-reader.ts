import { close, closeSync, read, readSync } from "node:fs";
import { promisify } from "node:util";
import type { BlockReader, Lane, ReadOptions } from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import { type RawFile, contentStamp, openRaw } from "./raw-file.ts";

/** How a raw reader behaves beside reading. */
export interface RawReaderOptions {
  /** The content that is read, as `contentStamp` told it; reading rejects once the file tells another. */
  stamp?: string | undefined;
  /** Refuse unless the path still leads to this file or device. */
  place?: string | undefined;
  /** The disk ends here although the file may go on; bytes. */
  size?: number | undefined;
}

/** What a reader's lane is opened with. */
export interface RawReaderLaneData extends RawReaderOptions {
  path: string;
}

const laneModule = new URL(
  import.meta.url.endsWith(".ts") ? "./raw-reader-lane.ts" : "./raw-reader-lane.js",
  import.meta.url,
).href;

/** Four are what Node's thread pool runs at once; a file is read ahead by the kernel anyway. */
const readsAtOnce = 4;
const preferredLength = 1024 * 1024;

/**
 * Reads a raw file or block device, straight into the caller's buffer, on Node's thread pool; its lane reads in place
 * inside a worker, which is the cheapest.
 */
export async function openRawReader(path: string, options: RawReaderOptions = {}): Promise<BlockReader> {
  const file = openRaw(path, { place: options.place });
  return rawReader(file, options, (fd, into, position) => pread(fd, into, position));
}

/** The same reader with synchronous reads: for worker threads alone, since it blocks its thread. */
export function openRawReaderLane(data: RawReaderLaneData): BlockReader {
  const file = openRaw(data.path, { place: data.place });
  return rawReader(file, data, (fd, into, position) => readSync(fd, into, 0, into.byteLength, position));
}

type Pread = (fd: number, into: Uint8Array, position: number) => Promise<number> | number;

function rawReader(file: RawFile, options: RawReaderOptions, preadOnce: Pread): BlockReader {
  const size = options.size ?? file.size;
  if (size > file.size) {
    closeSync(file.fd);
    throw localError("NOT_FOUND", `${file.path} has shrunk from ${size} to ${file.size} bytes since it was looked at`);
  }
  const lane: Lane = { module: laneModule, data: { path: file.path, place: file.place, stamp: options.stamp, size } };
  let closed = false;
  let underWay = 0;

  function checkStamp(): void {
    if (options.stamp === undefined) return;
    const now = contentStamp(file.fd);
    if (now === options.stamp) return;
    throw localError(
      "CORRUPT",
      `${file.path} was written to while it was copied, so the copy is no single point in time; ` +
        "stop what writes to it and copy again, or do not state that it is frozen",
      { operation: "read" },
    );
  }

  async function readFully(offset: number, into: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    let done = 0;
    while (done < into.byteLength) {
      signal?.throwIfAborted();
      const got = await preadOnce(file.fd, done === 0 ? into : into.subarray(done), offset + done);
      if (got === 0) {
        throw localError("CORRUPT", `${file.path} ended at ${offset + done} bytes while ${size} were expected`, {
          operation: "read",
        });
      }
      done += got;
    }
    checkStamp();
  }

  return {
    size,
    blockSize: file.blockSize,
    concurrency: readsAtOnce,
    preferredLength,
    lane,
    async read(offset: number, into: Uint8Array, readOptions?: ReadOptions): Promise<void> {
      if (closed) throw localError("UNEXPECTED", `${file.path} was read after it had been closed`);
      if (offset < 0 || offset + into.byteLength > size) {
        throw new RangeError(`a read of ${into.byteLength} at ${offset} is outside of ${file.path} (${size} bytes)`);
      }
      underWay++;
      try {
        await readFully(offset, into, readOptions?.signal);
      } catch (error) {
        throw translate(error, "reading", file.path);
      } finally {
        underWay--;
        if (closed && underWay === 0) closeSync(file.fd);
      }
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (closed) return;
      closed = true;
      // A read that was given up may still be with the kernel: its descriptor must not become another file's.
      if (underWay === 0) await closeFd(file.fd);
    },
  };
}

const closeFd: (fd: number) => Promise<void> = promisify(close);

function pread(fd: number, into: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, into, 0, into.byteLength, position, (error, got) => (error === null ? resolve(got) : reject(error)));
  });
}
