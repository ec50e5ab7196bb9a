import { copyInto } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { Grain } from "./stream-optimized.ts";

/**
 * Reads a disk out of a stream of its grains, forwards only. Bytes count as zero only when a later grain or the end of the
 * stream was seen: one that was cut off proves nothing of what it did not reach.
 */
export class AscendingDisk {
  readonly #grains: AsyncIterator<Grain>;
  readonly #size: number;
  #grain: Grain | undefined;
  #ended = false;
  #at = 0;

  constructor(grains: AsyncIterable<Grain>, size: number) {
    this.#grains = grains[Symbol.asyncIterator]();
    this.#size = size;
  }

  /** Whether the stream was read to its end, and found whole. */
  get finished(): boolean {
    return this.#ended;
  }

  /** Where the next read may begin, in bytes. */
  get position(): number {
    return this.#at;
  }

  /**
   * Fills all of `into`. @throws RangeError outside the disk; ProviderError UNAVAILABLE for what lies behind, so that the
   * stream is opened again
   */
  async read(offset: number, into: Uint8Array): Promise<void> {
    const end = offset + into.byteLength;
    if (!(offset >= 0 && end <= this.#size)) {
      throw new RangeError(`${into.byteLength} bytes at ${offset} are not within a disk of ${this.#size} bytes`);
    }
    if (offset < this.#at) {
      throw vsphereError(
        "UNAVAILABLE",
        `The export stands at byte ${this.#at} and cannot go back to ${offset}; it is opened again.`,
        { operation: "read export" },
      );
    }
    // From here on it stands nowhere, should it fail.
    this.#at = Infinity;
    into.fill(0);
    for (;;) {
      const grain = await this.#next(offset);
      if (grain === undefined || grain.offset >= end) break;
      const from = Math.max(offset, grain.offset);
      const to = Math.min(end, grain.offset + grain.data.byteLength);
      copyInto(into, grain.data.subarray(from - grain.offset, to - grain.offset), from - offset);
      if (grain.offset + grain.data.byteLength >= end && end < this.#size) break;
      this.#grain = undefined;
    }
    this.#at = end;
  }

  async close(): Promise<void> {
    await this.#grains.return?.();
  }

  /** The first grain that ends behind `offset`; undefined where the stream has ended. */
  async #next(offset: number): Promise<Grain | undefined> {
    while (!this.#ended && (this.#grain === undefined || this.#grain.offset + this.#grain.data.byteLength <= offset)) {
      const next = await this.#grains.next();
      if (next.done === true) {
        this.#ended = true;
        this.#grain = undefined;
      } else this.#grain = next.value;
    }
    return this.#grain;
  }
}
