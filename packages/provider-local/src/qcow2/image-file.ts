import * as fs from "node:fs";
import * as path from "node:path";
import { promisify } from "node:util";
import { localError, translate } from "../errors.ts";
import { blockDeviceFacts } from "../raw/block-device.ts";

/**
 * An open disk image file, by position. The production class stands on `node:fs` descriptors; tests put a file that
 * loses unsynced writes in its place, so that the code that runs is the code that is tested.
 */
export interface ImageFile {
  readonly path: string;
  /** Bytes; of a block device its capacity. */
  size(): Promise<number>;
  /** Names the file itself, whatever its path: device and inode. */
  identity(): Promise<string>;
  /** Reads into all of `into`; resolves with the bytes read, fewer only where the file ends. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Writes all of `data`. */
  write(data: Uint8Array, position: number): Promise<void>;
  /** A durable barrier over every write of this file so far, by whichever descriptor (fdatasync). */
  sync(): Promise<void>;
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

/** Where image files live. */
export interface ImageFiles {
  /** `create` makes a new file and rejects with EXISTS where there is one. */
  open(path: string, mode: "read" | "write" | "create"): Promise<ImageFile>;
  rename(from: string, to: string): Promise<void>;
  /** Idempotent. */
  remove(path: string): Promise<void>;
  /** The names in a folder. */
  list(folder: string): Promise<string[]>;
  /** Makes creations, renames and removals in a folder durable. */
  syncFolder(folder: string): Promise<void>;
}

const readAsync = promisify(fs.read);
const writeAsync = promisify(fs.write);
const fdatasyncAsync = promisify(fs.fdatasync);

/** `immediate`: calls block the thread, which is cheapest, and right only inside a worker. */
class DescriptorFile implements ImageFile {
  readonly path: string;
  readonly #descriptor: number;
  readonly #immediate: boolean;

  constructor(file: string, descriptor: number, immediate: boolean) {
    this.path = file;
    this.#descriptor = descriptor;
    this.#immediate = immediate;
  }

  async #try<T>(operation: string, body: () => T | Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      throw translate(error, operation, this.path);
    }
  }

  async size(): Promise<number> {
    return this.#try("size", () => {
      const stat = fs.fstatSync(this.#descriptor);
      return stat.isBlockDevice() ? blockDeviceFacts(this.#descriptor, this.path).size : stat.size;
    });
  }

  async identity(): Promise<string> {
    return this.#try("stat", () => {
      const stat = fs.fstatSync(this.#descriptor, { bigint: true });
      return stat.isBlockDevice() ? `device:${stat.rdev}` : `${stat.dev}:${stat.ino}`;
    });
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    return this.#try("read", async () => {
      let done = 0;
      while (done < into.byteLength) {
        const count = this.#immediate
          ? fs.readSync(this.#descriptor, into, done, into.byteLength - done, position + done)
          : (await readAsync(this.#descriptor, into, done, into.byteLength - done, position + done)).bytesRead;
        if (count === 0) break;
        done += count;
      }
      return done;
    });
  }

  async write(data: Uint8Array, position: number): Promise<void> {
    return this.#try("write", async () => {
      let done = 0;
      while (done < data.byteLength) {
        done += this.#immediate
          ? fs.writeSync(this.#descriptor, data, done, data.byteLength - done, position + done)
          : (await writeAsync(this.#descriptor, data, done, data.byteLength - done, position + done)).bytesWritten;
      }
    });
  }

  async sync(): Promise<void> {
    return this.#try("fdatasync", async () => {
      if (this.#immediate) fs.fdatasyncSync(this.#descriptor);
      else await fdatasyncAsync(this.#descriptor);
    });
  }

  async truncate(length: number): Promise<void> {
    return this.#try("truncate", () => {
      if (!fs.fstatSync(this.#descriptor).isBlockDevice()) fs.ftruncateSync(this.#descriptor, length);
    });
  }

  async close(): Promise<void> {
    return this.#try("close", () => fs.closeSync(this.#descriptor));
  }
}

const flagsOf = { read: "r", write: "r+", create: "wx+" } as const;

/**
 * Files of this machine. `immediate` makes reads and writes block the calling thread: cheapest, and right only inside
 * a worker. @throws ProviderError NOT_FOUND, DENIED, EXISTS, UNSUPPORTED (a folder, a FIFO: opening one would wait
 * for ever), UNAVAILABLE (no space).
 */
export function localFiles(options: { immediate?: boolean } = {}): ImageFiles {
  return {
    async open(file, mode) {
      try {
        if (mode !== "create") {
          const stat = fs.statSync(file);
          if (!stat.isFile() && !stat.isBlockDevice()) {
            throw localError("UNSUPPORTED", `${file} is neither a file nor a block device: name the image itself`, {
              operation: "open",
            });
          }
        }
        return new DescriptorFile(file, fs.openSync(file, flagsOf[mode]), options.immediate === true);
      } catch (error) {
        throw translate(error, "open", file);
      }
    },
    async rename(from, to) {
      try {
        fs.renameSync(from, to);
      } catch (error) {
        throw translate(error, "rename", from);
      }
    },
    async remove(file) {
      try {
        fs.rmSync(file, { force: true });
      } catch (error) {
        throw translate(error, "remove", file);
      }
    },
    async list(folder) {
      try {
        return fs.readdirSync(path.resolve(folder));
      } catch (error) {
        throw translate(error, "list", folder);
      }
    },
    async syncFolder(folder) {
      try {
        const descriptor = fs.openSync(path.resolve(folder), "r");
        try {
          fs.fsyncSync(descriptor);
        } finally {
          fs.closeSync(descriptor);
        }
      } catch (error) {
        throw translate(error, "fsync", folder);
      }
    },
  };
}

/** Fills all of `into`. @throws ProviderError CORRUPT where the file ends before. */
export async function readFully(file: ImageFile, into: Uint8Array, position: number, what: string): Promise<void> {
  const count = await file.read(into, position);
  if (count < into.byteLength) {
    throw localError(
      "CORRUPT",
      `${file.path} ends inside its ${what} (${into.byteLength} bytes at ${position}): it was cut short, copy it again`,
      { operation: "read" },
    );
  }
}
