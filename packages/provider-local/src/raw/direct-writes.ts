import { closeSync, statfsSync, write } from "node:fs";
import { isProviderError } from "@diskferry/core/provider";
import { errnoOf } from "../errors.ts";
import { type RawFile, openRaw } from "./raw-file.ts";

/** ext2 to ext4, and XFS (statfs(2)). Over a network O_DIRECT waits for the server in every write. */
const takingFileSystems: ReadonlySet<number> = new Set([0xef53, 0x5846_5342]);
/** Shorter writes may lie scattered, and the page cache brings those into order. */
const leastLength = 256 << 10;
/** What offset, length and memory have to be multiples of; no disk's blocks are larger. */
const unit = 4096;

/**
 * A second descriptor of a raw file or device, whose writes pass the page cache by (open(2), O_DIRECT): they cost no copy, push
 * nothing else out of memory, and a flush finds little left to do. It takes what is long and aligned; the rest, and whatever the
 * system does not take after all, is the caller's to write as usual.
 */
export class DirectWrites {
  readonly #fd: number;
  #underWay = 0;
  #isRefused = false;
  #isClosed = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined where they would not help or cannot be had: the file's own descriptor is good for everything. */
  static open(file: RawFile): DirectWrites | undefined {
    try {
      if (file.kind === "file" && !takingFileSystems.has(statfsSync(file.path).type)) return undefined;
      return new DirectWrites(openRaw(file.path, { write: true, place: file.place, shared: true, direct: true }).fd);
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
    return new Promise((resolve, reject) => {
      this.#underWay++;
      write(this.#fd, data, 0, data.byteLength, offset, (error, wrote) => {
        this.#underWay--;
        this.#closeIfIdle();
        if (error === null) resolve(wrote);
        else if (this.#isRefusal(error)) resolve(0);
        else reject(error);
      });
    });
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

  /** EINVAL: memory, offset or length are not aligned as this disk wants it (open(2)); the next ones will not be either. */
  #isRefusal(error: Error): boolean {
    if (errnoOf(error) !== "EINVAL") return false;
    this.#isRefused = true;
    return true;
  }
}
