import { type FileHandle, link, mkdir, open, opendir, readFile, rename, stat, unlink, utimes } from "node:fs/promises";
import type { AppendFile, StateFiles } from "./files.ts";
import { fileError } from "./file-error.ts";

const ownerOnly = 0o600;
const ownerOnlyDirectory = 0o700;
const pieceLength = 256 * 1024;

/** The files of this machine. Failures are `ProviderError`s that name the path. */
export const nodeFiles: StateFiles = {
  read: (path) =>
    told("read", path, async () => {
      const bytes = await unlessMissing(readFile(path));
      return bytes && new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }),
  async *pieces(path) {
    const file = await told("read", path, () => unlessMissing(open(path, "r")));
    if (file === undefined) return;
    try {
      for (;;) {
        const piece = new Uint8Array(pieceLength);
        const { bytesRead } = await told("read", path, () => file.read(piece, 0, pieceLength));
        if (bytesRead === 0) return;
        yield piece.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  },
  create: (path, bytes) =>
    told("write", path, async () => {
      await using file = await open(path, "wx", ownerOnly);
      await file.writeFile(bytes);
      await file.sync();
    }),
  rename: (from, to) => told("rename a file to", to, () => rename(from, to)),
  link: (from, to) => told("link a file to", to, () => link(from, to)),
  remove: (path) => told("remove", path, async () => (await unlessMissing(unlink(path).then(() => true))) ?? false),
  open: (path) =>
    told("append to", path, async () => {
      const file = await open(path, "a", ownerOnly);
      return new NodeAppendFile(path, file, (await file.stat()).size);
    }),
  makeDirectory: (path) =>
    told("make the directory", path, async () => {
      try {
        await mkdir(path, ownerOnlyDirectory);
        return true;
      } catch (error) {
        if (codeOf(error) === "EEXIST" && (await stat(path)).isDirectory()) return false;
        throw codeOf(error) === "EEXIST" ? Object.assign(new Error("not a directory"), { code: "ENOTDIR" }) : error;
      }
    }),
  async *list(path) {
    const directory = await told("list", path, () => unlessMissing(opendir(path)));
    if (directory === undefined) return;
    try {
      for (;;) {
        const entry = await told("list", path, () => directory.read());
        if (entry === null) return;
        yield { name: entry.name, directory: entry.isDirectory() };
      }
    } finally {
      await directory.close();
    }
  },
  syncDirectory: (path) =>
    told("make durable", path, async () => {
      await using directory = await open(path, "r");
      await directory.sync();
    }),
  touch: (path) => told("touch", path, () => utimes(path, new Date(), new Date())),
  modifiedAt: (path) => told("look at", path, async () => (await unlessMissing(stat(path)))?.mtimeMs),
};

class NodeAppendFile implements AppendFile {
  length: number;
  readonly #path: string;
  readonly #file: FileHandle;

  constructor(path: string, file: FileHandle, length: number) {
    this.#path = path;
    this.#file = file;
    this.length = length;
  }

  append(bytes: Uint8Array): Promise<void> {
    return told("append to", this.#path, async () => {
      for (let done = 0; done < bytes.byteLength;) {
        const { bytesWritten } = await this.#file.write(bytes, done, bytes.byteLength - done);
        done += bytesWritten;
      }
      await this.#file.datasync();
      this.length += bytes.byteLength;
    });
  }

  truncate(length: number): Promise<void> {
    return told("cut", this.#path, async () => {
      await this.#file.truncate(length);
      await this.#file.sync();
      this.length = length;
    });
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

async function told<Result>(operation: string, path: string, call: () => Promise<Result>): Promise<Result> {
  try {
    return await call();
  } catch (error) {
    throw fileError(error, operation, path);
  }
}

async function unlessMissing<Result>(call: Promise<Result>): Promise<Result | undefined> {
  try {
    return await call;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function codeOf(error: unknown): unknown {
  return typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
}
