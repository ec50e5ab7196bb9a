import { createHash } from "node:crypto";
import { mkdtemp, open, rm, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SyntheticContent } from "./synthetic-content.ts";

/** Bytes of one EBS block (EBS direct APIs, ListSnapshotBlocks: BlockSize 524288). */
export const blockSize = 524288;

/** One immutable block of data; a later write of the same place makes another one, even when the bytes are equal. */
export type StoredBlock = PooledBlock | { readonly synthetic: SyntheticContent; readonly index: number };

/** A block in the pool's file. */
export interface PooledBlock {
  /** Place in the pool's file, in blocks. */
  readonly slot: number;
  /** SHA-256 in base64; absent until somebody computed it. */
  digest?: string;
}

/** The SHA-256 of bytes in base64, as every EBS checksum is written. */
export function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64");
}

/** Keeps the bytes of all volumes and snapshots of a simulator in one sparse file that vanishes with it. */
export class BlockPool {
  readonly #file: FileHandle;
  readonly #folder: string;
  #slots = 0;

  private constructor(folder: string, file: FileHandle) {
    this.#folder = folder;
    this.#file = file;
  }

  /** Makes an empty pool in a folder of its own under the system's temporary folder. */
  static async create(): Promise<BlockPool> {
    const folder = await mkdtemp(join(tmpdir(), "diskferry-aws-"));
    return new BlockPool(folder, await open(join(folder, "blocks"), "w+"));
  }

  /** Stores one whole block; zeros are not written, so that they take no room in the sparse file. */
  async store(bytes: Uint8Array, digest?: string): Promise<StoredBlock> {
    if (bytes.length !== blockSize) throw new RangeError(`a block has ${blockSize} bytes, not ${bytes.length}`);
    const slot = this.#slots++;
    if (Buffer.compare(bytes, zeroBlock) !== 0) await this.#file.write(bytes, 0, blockSize, slot * blockSize);
    return digest === undefined ? { slot } : { slot, digest };
  }

  /** Reads one block into a fresh buffer of the caller's; what the file does not reach is zero. */
  async read(block: StoredBlock): Promise<Buffer> {
    if ("synthetic" in block) return Buffer.concat(block.synthetic.pieces(block.index));
    const bytes = Buffer.alloc(blockSize);
    await this.#file.read(bytes, 0, blockSize, block.slot * blockSize);
    return bytes;
  }

  /** A block ready to be sent, in pieces that nobody may change, and its digest. */
  async sendable(block: StoredBlock): Promise<{ pieces: Buffer[]; digest: string }> {
    if ("synthetic" in block) {
      const { synthetic, index } = block;
      return { pieces: synthetic.pieces(index), digest: synthetic.digest(index) };
    }
    const bytes = await this.read(block);
    return { pieces: [bytes], digest: (block.digest ??= digestOf(bytes)) };
  }

  /** Closes and removes the file. */
  async close(): Promise<void> {
    await this.#file.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

const zeroBlock = Buffer.alloc(blockSize);
