import { randomBytes } from "node:crypto";
import { blockSize, digestOf } from "./block-pool.ts";

/**
 * Content that is a function of the block index, so that a volume of any size needs no room: each block that has data
 * is the same noise with its own index in front.
 */
export class SyntheticContent {
  /** Blocks of the volume. */
  readonly blocks: number;
  /** Every how manieth block holds data. */
  readonly stride: number;
  readonly #noise: Buffer = randomBytes(blockSize - 8);
  readonly #digests = new Map<number, string>();

  constructor(blocks: number, stride: number) {
    this.blocks = blocks;
    this.stride = stride;
  }

  /** Whether the block has data. */
  has(index: number): boolean {
    return index >= 0 && index < this.blocks && index % this.stride === 0;
  }

  /** The first block with data at `index` or behind it. */
  next(index: number): number | undefined {
    const at = Math.ceil(index / this.stride) * this.stride;
    return at < this.blocks ? at : undefined;
  }

  /** The block in two pieces, the second of which all blocks share and nobody may change. */
  pieces(index: number): [Buffer, Buffer] {
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(BigInt(index) + 1n);
    return [head, this.#noise];
  }

  /** SHA-256 in base64; computed once. */
  digest(index: number): string {
    const known = this.#digests.get(index);
    if (known !== undefined) return known;
    const digest = digestOf(Buffer.concat(this.pieces(index)));
    this.#digests.set(index, digest);
    return digest;
  }
}
