import { close, constants, fdatasync, fstat, open, read, type Stats } from "node:fs";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { ProviderError } from "@diskferry/core/provider";
import { SlowZeroError, type AllocationExtent, type NbdBackend } from "./backend.ts";
import { cacheByReading } from "./cache-by-reading.ts";
import { ChangeTracking } from "./change-tracking.ts";
import { WriteQueue } from "./write-queue.ts";

/** Writes of zeroes go out in pieces of this many bytes. */
const zeroes: Buffer = Buffer.alloc(1024 * 1024);

/** Options of {@link fileBackend}. */
export interface FileBackendOptions {
  /** Default false. */
  readonly readOnly?: boolean;
}

/** A disk in a file or block device. Dispose it after the server was closed. */
export interface FileBackend extends NbdBackend, AsyncDisposable {}

/**
 * Serves a raw file or a block device. In a file that had nothing allocated when it was opened, the parts never
 * written since are known to be holes: clients are told so, and zeroing them costs nothing. Trimming is not offered:
 * Node has no call that punches a hole.
 * @throws ProviderError NOT_FOUND, DENIED or CONFIG_INVALID naming the path.
 */
export async function fileBackend(path: string, options: FileBackendOptions = {}): Promise<FileBackend> {
  const readOnly = options.readOnly ?? false;
  const descriptor = await openFile(path, readOnly);
  try {
    const stats = await promisify(fstat)(descriptor);
    const size = await sizeOf(path, stats);
    const blank = stats.isFile() && stats.blocks === 0;
    return makeBackend(path, descriptor, readOnly, size, blank);
  } catch (error) {
    await promisify(close)(descriptor);
    throw error;
  }
}

function makeBackend(path: string, descriptor: number, readOnly: boolean, size: number, blank: boolean): FileBackend {
  const queue = new WriteQueue(descriptor);
  const written = blank ? new ChangeTracking({ name: "written", size }) : undefined;
  const makeDurable = promisify(fdatasync);
  const get = (offset: number, into: Uint8Array): Promise<void> => readAll(descriptor, into, offset);
  const put = (offset: number, data: Uint8Array): Promise<void> => {
    if (written !== undefined) written.end(written.begin(offset, data.byteLength));
    return queue.write(offset, data);
  };
  return {
    size,
    readOnly,
    multiConnection: true,
    description: path,
    read: get,
    write(offset, data, { fua }) {
      const done = put(offset, data);
      return fua ? done.then(() => makeDurable(descriptor)) : done;
    },
    async zero(offset, length, { noHole, fast, fua, signal }) {
      const everything = noHole || written === undefined;
      const parts = everything ? [{ offset, length }] : [...written.changes({ from: offset, to: offset + length })];
      if (fast && parts.length > 0) throw new SlowZeroError();
      for (const part of parts) {
        for (let at = 0; at < part.length; at += zeroes.length) {
          signal.throwIfAborted();
          await put(part.offset + at, zeroes.subarray(0, Math.min(zeroes.length, part.length - at)));
        }
      }
      if (fua) await makeDurable(descriptor);
    },
    async flush() {
      await makeDurable(descriptor);
    },
    // Node has no posix_fadvise; what was read is in the page cache too.
    cache: cacheByReading(get),
    ...(written === undefined ? {} : { extents: (offset, length) => listHoles(written, offset, offset + length) }),
    async [Symbol.asyncDispose]() {
      await promisify(close)(descriptor);
    },
  };
}

async function* listHoles(written: ChangeTracking, from: number, to: number): AsyncGenerator<AllocationExtent> {
  for (let at = from; at < to;) {
    const { length, changed } = written.runAt(at, to);
    yield { offset: at, length, hole: !changed, zero: !changed };
    at += length;
  }
}

/** Fills `into`. Callbacks and a bare descriptor: a FileHandle's promises cost more than a small read itself. */
function readAll(descriptor: number, into: Uint8Array, offset: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const step = (at: number): void => {
      read(descriptor, into, at, into.byteLength - at, offset + at, (error, count) => {
        if (error !== null) reject(error);
        else if (count === 0) reject(new Error("the file ended before its size: it was cut while it was served"));
        else if (at + count === into.byteLength) resolve();
        else step(at + count);
      });
    };
    step(0);
  });
}

async function openFile(path: string, readOnly: boolean): Promise<number> {
  try {
    // Without O_NONBLOCK a FIFO would wait for a writer for ever; files and block devices take no notice of it.
    return await promisify(open)(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const options = { operation: "nbd file backend", cause: error };
    if (code === "ENOENT") throw new ProviderError("NOT_FOUND", `${path} does not exist`, options);
    if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
      throw new ProviderError(
        "DENIED",
        `not allowed to open ${path}${readOnly ? "" : " for writing"}: ${code}`,
        options,
      );
    }
    throw new ProviderError("CONFIG_INVALID", `${path} cannot be opened: ${message}`, options);
  }
}

async function sizeOf(path: string, stats: Stats): Promise<number> {
  if (stats.isFile()) return stats.size;
  if (!stats.isBlockDevice()) {
    throw new ProviderError("CONFIG_INVALID", `${path} is neither a file nor a block device`, {
      operation: "nbd file backend",
    });
  }
  // Linux, Documentation/ABI/stable/sysfs-block: the size is given in 512-byte units, whatever the device's blocks.
  const sectors = await readFile(`/sys/dev/block/${majorOf(stats.rdev)}:${minorOf(stats.rdev)}/size`, "utf8");
  return Number(sectors) * 512;
}

/** The encoding of makedev(3) in glibc: 12 and 20 bits, each with its upper part set apart. */
function majorOf(device: number): number {
  return (Math.floor(device / 256) % 4096) + Math.floor(device / 2 ** 44) * 4096;
}

function minorOf(device: number): number {
  return (device % 256) + (Math.floor(device / 2 ** 20) % 2 ** 12) * 256;
}
