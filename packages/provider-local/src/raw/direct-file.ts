import { closeSync, read, statfsSync, write } from "node:fs";
import { isProviderError } from "@diskferry/core/provider";
import { errnoOf } from "../errors.ts";
import { type RawFile, openRaw } from "./raw-file.ts";

/** ext2 to ext4, and XFS (statfs(2)). Over a network O_DIRECT waits for the server in every write. */
const takingFileSystems: ReadonlySet<number> = new Set([0xef53, 0x5846_5342]);
/** Shorter writes may lie scattered, and the page cache brings those into order. */
const leastLength = 256 << 10;
/** What offset, length and memory have to be multiples of; no disk's blocks are larger. */
const unit = 4096;

/** The most that is looked at at once, in bytes. */
export const mostLength: number = 1 << 20;
/** Zeroes to compare with and to write. */
export const zeroes: Uint8Array = pageAligned(mostLength);

/** Whether at most {@link mostLength} bytes are all zero. */
export function isAllZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeroes.subarray(0, bytes.byteLength)) === 0;
}

/** Memory that O_DIRECT takes: V8 maps what may grow in whole pages. */
function pageAligned(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(length, { maxByteLength: length }));
}

/**
 * A second descriptor of a raw file or device, which passes the page cache by (open(2), O_DIRECT): writes cost no copy, push
 * nothing else out of memory, and a flush finds little left to do. It takes what is long and aligned; the rest, and whatever the
 * system does not take after all, is the caller's to write as usual.
 */
export class DirectFile {
  readonly #fd: number;
  /** Memory for reading that nobody reads into. */
  readonly #rooms: Uint8Array[] = [];
  #underWay = 0;
  #isRefused = false;
  #isClosed = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined where they would not help or cannot be had: the file's own descriptor is good for everything. */
  static open(file: RawFile): DirectFile | undefined {
    try {
      if (file.kind === "file" && !takingFileSystems.has(statfsSync(file.path).type)) return undefined;
      return new DirectFile(openRaw(file.path, { write: true, place: file.place, shared: true, direct: true }).fd);
    } catch (error) {
      if (isProviderError(error) || errnoOf(error) !== undefined) return undefined;
      throw error;
    }
  }

  /** Whether to try. */
  takes(offset: number, data: Uint8Array): boolean {
    if (this.#isRefused || this.#isClosed || data.byteLength < leastLength) return false;
    // Where memory begins cannot be seen, but a buffer that is cut out at a page mostly lies in one that begins at a page.
    return offset % unit === 0 && data.byteLength % unit === 0 && data.byteOffset % unit === 0;
  }

  /** Writes the beginning of `data`. Resolves with how many bytes of it the disk took, which may be none. */
  write(offset: number, data: Uint8Array): Promise<number> {
    return this.#call((done) => write(this.#fd, data, 0, data.byteLength, offset, done));
  }

  /**
   * Whether a range of at most {@link mostLength} bytes reads as zeroes; undefined: read it as usual. Reading past the page cache
   * reads nothing ahead: no page turns up there of what is being written beside it.
   */
  async isZero(offset: number, length: number): Promise<boolean | undefined> {
    if (this.#isRefused || this.#isClosed) return undefined;
    const room = this.#rooms.pop() ?? pageAligned(mostLength + 2 * unit);
    const start = offset - (offset % unit);
    const end = Math.ceil((offset + length) / unit) * unit;
    const got = await this.#call((done) => read(this.#fd, room, 0, end - start, start, done));
    const isWhole = start + got >= offset + length;
    const result = isWhole ? isAllZero(room.subarray(offset - start, offset - start + length)) : undefined;
    this.#rooms.push(room);
    return result;
  }

  /**
   * Closes the descriptor, at the end of the writes that are under way: one that waits for a thread knows it by its number alone,
   * and would go into whatever file is opened under that number next.
   */
  close(): void {
    this.#isClosed = true;
    this.#closeIfIdle();
  }

  #closeIfIdle(): void {
    if (this.#isClosed && this.#underWay === 0) closeSync(this.#fd);
  }

  /** Resolves with the bytes of a system call: none when the system refuses it as such. */
  #call(start: (done: (error: Error | null, bytes: number) => void) => void): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#underWay++;
      start((error, bytes) => {
        this.#underWay--;
        this.#closeIfIdle();
        if (error === null) resolve(bytes);
        else if (this.#isRefusal(error)) resolve(0);
        else reject(error);
      });
    });
  }

  /** EINVAL: memory, offset or length are not aligned as this disk wants it (open(2)); the next ones will not be either. */
  #isRefusal(error: Error): boolean {
    if (errnoOf(error) !== "EINVAL") return false;
    this.#isRefused = true;
    return true;
  }
}
