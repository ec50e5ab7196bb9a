import { execFile } from "node:child_process";
import { open, rename, rm, truncate, type FileHandle } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** The bytes of one volume, snapshot or template: a sparse file, so that what was never written takes no room. */
export class SparseDisk {
  readonly path: string;
  /** Bytes. */
  size: number;
  /** Writes and copies take turns, so that a copy is of one moment. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(path: string, size: number) {
    this.path = path;
    this.size = size;
  }

  /** Makes a disk that reads as zeroes. */
  static async create(path: string, size: number): Promise<SparseDisk> {
    await using file = await open(path, "wx");
    await file.truncate(size);
    return new SparseDisk(path, size);
  }

  /** Makes a disk with another's bytes of this moment; `size` larger than the other's leaves zeroes behind them. */
  static async copy(path: string, from: SparseDisk, size: number = from.size): Promise<SparseDisk> {
    await from.#inTurn(() => copySparse(from.path, path));
    if (size !== from.size) await truncate(path, size);
    return new SparseDisk(path, size);
  }

  /** Copies several disks at one moment: none of them is written through this class between the copies. */
  static async copyTogether(pairs: readonly { path: string; from: SparseDisk }[]): Promise<SparseDisk[]> {
    const gate = Promise.withResolvers<void>();
    const ready = pairs.map(() => Promise.withResolvers<void>());
    const turns = pairs.map(({ path, from }, index) =>
      from.#inTurn(async () => {
        ready[index]?.resolve();
        await gate.promise;
        await copySparse(from.path, path);
      }),
    );
    await Promise.all(ready.map((each) => each.promise));
    gate.resolve();
    await Promise.all(turns);
    return pairs.map(({ path, from }) => new SparseDisk(path, from.size));
  }

  /** Fresh memory with the bytes. @throws RangeError outside the disk */
  async read(offset: number, length: number): Promise<Buffer> {
    this.#check(offset, length);
    const bytes = Buffer.alloc(length);
    await using file = await open(this.path, "r");
    await file.read(bytes, 0, length, offset);
    return bytes;
  }

  /** @throws RangeError outside the disk */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.#check(offset, bytes.length);
    await this.#inTurn(async () => {
      await using file = await open(this.path, "r+");
      for (let done = 0; done < bytes.length;) {
        done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
      }
    });
  }

  /** A handle for whoever goes through the whole disk; the caller closes it. */
  async open(flags: "r" | "r+"): Promise<FileHandle> {
    return open(this.path, flags);
  }

  /** Grows or, with loss, shrinks it. */
  async resize(size: number): Promise<void> {
    await truncate(this.path, size);
    this.size = size;
  }

  /** Takes over another disk's bytes, as a revert does; the file stays the same one for nobody who has it open. */
  async replace(from: SparseDisk): Promise<void> {
    await this.#inTurn(async () => {
      await copySparse(from.path, `${this.path}.new`);
      await truncate(`${this.path}.new`, this.size);
      await rename(`${this.path}.new`, this.path);
    });
  }

  /** Takes over a raw file's bytes; the disk keeps its size. */
  async load(path: string): Promise<void> {
    await this.#inTurn(async () => {
      await copySparse(path, this.path);
      await truncate(this.path, this.size);
    });
  }

  /**
   * Moves the bytes to a file of their own, so that a program that still has the old file open can write what it likes
   * and reach nothing: what a detached device is to a guest.
   */
  async cutOff(): Promise<void> {
    await this.#inTurn(async () => {
      await copySparse(this.path, `${this.path}.new`);
      await rename(`${this.path}.new`, this.path);
    });
  }

  async discard(): Promise<void> {
    await rm(this.path, { force: true });
  }

  #inTurn(action: () => Promise<void>): Promise<void> {
    const done = this.#last.then(action);
    this.#last = done.catch(() => undefined);
    return done;
  }

  #check(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && offset + length <= this.size) return;
    throw new RangeError(`${length} bytes at ${offset} are not inside a disk of ${this.size} bytes`);
  }
}

const piece = 1 << 20;
const zeroes = Buffer.alloc(piece);

/** `cp` knows the file system's holes, which Node cannot ask for; elsewhere than on Linux zeroes are looked for. */
async function copySparse(from: string, to: string): Promise<void> {
  if (process.platform === "linux") {
    await run("cp", ["--sparse=always", "--reflink=auto", "--", from, to]);
    return;
  }
  await using source = await open(from, "r");
  await using target = await open(to, "w");
  const { size } = await source.stat();
  await target.truncate(size);
  const bytes = Buffer.alloc(piece);
  for (let offset = 0; offset < size; offset += piece) {
    const { bytesRead } = await source.read(bytes, 0, piece, offset);
    const part = bytes.subarray(0, bytesRead);
    if (!part.equals(zeroes.subarray(0, bytesRead))) await target.write(part, 0, bytesRead, offset);
  }
}
