import { createHash, type Hash } from "node:crypto";
import type { WrittenExtent } from "@diskferry/core/provider";
import { BLOCK_BYTES } from "../plan/request-counts.ts";

const DIGEST_BYTES = 32;

/**
 * What CompleteSnapshot is told of the blocks put into a snapshot: their number, and the LINEAR aggregate, SHA-256 over
 * the SHA-256 digests of the blocks in ascending order of their index (EBS direct APIs, "Use checksums"). Digests are
 * taken as they are given; no block is hashed again.
 */
export class LinearChecksum {
  readonly #hash: Hash = createHash("sha256");
  readonly #size: number;
  #end = 0;
  #count = 0;

  /** `size`: bytes of the volume. */
  constructor(size: number) {
    this.#size = size;
  }

  /** Blocks so far. */
  get count(): number {
    return this.#count;
  }

  /** Takes the next extent. @throws RangeError when it is out of order, no whole blocks, or lacks a digest. */
  add({ offset, length, digests }: WrittenExtent): void {
    if (offset % BLOCK_BYTES !== 0 || length % BLOCK_BYTES !== 0 || length <= 0)
      throw new RangeError(`${offset}+${length} is no range of whole blocks`);
    if (offset < this.#end || offset + length > this.#size)
      throw new RangeError(`${offset}+${length} is out of order or beyond the volume's end`);
    const blocks = length / BLOCK_BYTES;
    if (digests?.byteLength !== blocks * DIGEST_BYTES)
      throw new RangeError(`${offset}+${length} comes with ${digests?.byteLength ?? 0} bytes of digests`);
    this.#hash.update(digests);
    this.#count += blocks;
    this.#end = offset + length;
  }

  /** The aggregate in base64. Ends it: nothing can be added afterwards. */
  end(): string {
    return this.#hash.digest("base64");
  }
}
