import { type FileHandle, constants, copyFile, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Wait } from "@diskferry/core/provider";
import { cloudstackError } from "../errors.ts";
import { readOwnName } from "../names.ts";
import { qcow2Stream } from "../upload/qcow2-stream.ts";

/** The ending of the images that are put on a pool. */
export const ENDING = ".qcow2";
/** Of a file that is not whole yet; CloudStack is never told of one. */
const PART = ".part";
const PIECE = 4 * 2 ** 20;

/**
 * A primary storage pool's folder as it is mounted here. Files come into being whole: written aside, made durable, renamed. Only
 * files with a name of ours are ever seen or removed.
 */
export class PoolFolder {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Names of our images, whole or not. */
  async list(): Promise<string[]> {
    try {
      return (await readdir(this.#folder)).filter((name) => ownNameOf(name) !== undefined);
    } catch (error) {
      throw this.#failure("read", error);
    }
  }

  /** Bytes of an image's file; undefined: there is none. */
  async sizeOf(name: string): Promise<number | undefined> {
    try {
      return (await stat(join(this.#folder, name))).size;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw this.#failure("read", error);
    }
  }

  /** Writes a raw file as a qcow2 image without backing file, over what an earlier try left. */
  async write(name: string, source: { file: FileHandle; size: number }, wait: Wait): Promise<void> {
    await this.#whole(name, async (path) => {
      const image = await qcow2Stream(source.file, source.size, wait);
      await using file = await open(path, "w", 0o644);
      let at = 0;
      for await (const part of image.content(wait)) {
        wait.signal?.throwIfAborted();
        await writeAll(file, part, at);
        at += part.byteLength;
      }
      await file.sync();
    });
  }

  /** Copies an image, by reference where the file system can. One that is there already is whole. */
  async copy(from: string, name: string, wait: Wait): Promise<void> {
    if ((await this.sizeOf(name)) !== undefined) return;
    await this.#whole(name, async (path) => {
      const source = join(this.#folder, from);
      if (await cloneFile(source, path)) return;
      await using input = await open(source, "r");
      await using file = await open(path, "w", 0o644);
      const bytes = Buffer.alloc(PIECE);
      for (let at = 0; ;) {
        wait.signal?.throwIfAborted();
        const { bytesRead } = await input.read(bytes, 0, PIECE, at);
        if (bytesRead === 0) break;
        await writeAll(file, bytes.subarray(0, bytesRead), at);
        at += bytesRead;
      }
      await file.sync();
    });
  }

  /** Removes an image that CloudStack does not know, and what there is of it aside. Idempotent. */
  async remove(name: string): Promise<void> {
    if (ownNameOf(name) === undefined) throw new RangeError(`${name} is no image of ours`);
    try {
      for (const each of [name, `${name}${PART}`]) await rm(join(this.#folder, each), { force: true });
    } catch (error) {
      throw this.#failure("written", error);
    }
  }

  async #whole(name: string, make: (path: string) => Promise<void>): Promise<void> {
    const path = join(this.#folder, `${name}${PART}`);
    try {
      await make(path);
      await rename(path, join(this.#folder, name));
      await using folder = await open(this.#folder, "r");
      await folder.sync();
    } catch (error) {
      await rm(path, { force: true }).catch(() => undefined);
      throw this.#failure("written", error);
    }
  }

  #failure(what: string, error: unknown): unknown {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (code === undefined || syscall === undefined) return error;
    const isFull = code === "ENOSPC" || code === "EDQUOT";
    return cloudstackError(
      isFull ? "UNAVAILABLE" : "CONFIG_INVALID",
      `The pool's folder ${this.#folder} (import.folder) cannot be ${what}: ${code}. ` +
        (isFull ? "Free some of the pool, or name another." : "Is the pool mounted there, for this user to write?"),
      { operation: "commit", cause: error, retryable: false },
    );
  }
}

/** What an image's name tells; undefined for a file that is none of ours. */
export function ownNameOf(fileName: string): ReturnType<typeof readOwnName> {
  const name = fileName.endsWith(PART) ? fileName.slice(0, -PART.length) : fileName;
  return name.startsWith("df-") && name.endsWith(ENDING) ? readOwnName(name.slice(0, -ENDING.length)) : undefined;
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength;)
    done += (await file.write(bytes, done, bytes.byteLength - done, at + done)).bytesWritten;
}

/** Whether the file system made a copy that shares its blocks. */
async function cloneFile(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    if (
      ["ENOTSUP", "EOPNOTSUPP", "EXDEV", "EINVAL", "ENOSYS", "ENOTTY"].includes(
        (error as NodeJS.ErrnoException).code ?? "",
      )
    )
      return false;
    throw error;
  }
}
