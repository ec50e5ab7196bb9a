import type { BlockReader } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import { digester, digestLength } from "../manifest/digest.ts";
import { hashPool } from "../manifest/hash-pool.ts";
import { checkShape, hex, type ManifestShape } from "../manifest/page.ts";
import { GrowingTree, TreeHasher } from "../manifest/tree.ts";

/** Bytes read at once, at least one leaf. */
const blockLength = 1024 * 1024;
/** Blocks under way at once at most, whatever the reader would take. */
const mostBlocks = 8;

/**
 * Reads a disk from its beginning to `size` and resolves with the root its manifest would have, 64 hexadecimal digits.
 * Memory: at most eight blocks of 1 MiB or one leaf, whichever is more.
 */
export async function rootOfDisk(
  reader: BlockReader,
  shape: ManifestShape,
  options: { progress?: ((bytes: number) => void) | undefined } & Wait = {},
): Promise<string> {
  checkShape(shape);
  const { algorithm, leaf, size } = shape;
  await using pool = hashPool(algorithm);
  const tree = new GrowingTree(new TreeHasher(digester(algorithm)));
  const { blockSize } = reader;
  const length = leavesPerBlock(leaf, blockSize) * leaf;
  const ascending = reader.order === "ascending";
  const lanes = ascending ? 1 : Math.min(mostBlocks, reader.concurrency ?? 1);
  const roomy = Math.ceil(length / blockSize) * blockSize;
  const blocks = Array.from({ length: lanes + 1 }, () => new Uint8Array(new SharedArrayBuffer(roomy)));
  // Reads at most `lanes` blocks at once, and adds the digests in order; a block is free again once it is hashed.
  const underWay: Promise<{ digests: Uint8Array; end: number }>[] = [];
  const lastReads: Promise<void>[] = [];
  const begin = async (offset: number, block: Uint8Array): Promise<{ digests: Uint8Array; end: number }> => {
    const end = Math.min(size, offset + length);
    // A volume larger than the disk is read in its own units, beyond the disk's end if need be.
    const into = block.subarray(0, Math.min(reader.size, Math.ceil(end / blockSize) * blockSize) - offset);
    const lane = (offset / length) % lanes;
    const before = lastReads[lane];
    const read = (async () => {
      await before;
      await reader.read(offset, into, { signal: options.signal });
    })();
    lastReads[lane] = read;
    await read;
    return { digests: await pool.hash(into.subarray(0, end - offset), leaf, options), end };
  };
  let next = 0;
  try {
    while (next < size || underWay.length > 0) {
      while (next < size && underWay.length < blocks.length) {
        const block = begin(next, blocks[(next / length) % blocks.length]!);
        block.catch(() => undefined);
        underWay.push(block);
        next += length;
      }
      const { digests, end } = await underWay.shift()!;
      for (let at = 0; at < digests.byteLength; at += digestLength) {
        tree.addLeaf(digests.subarray(at, at + digestLength));
      }
      options.progress?.(end);
    }
  } finally {
    await Promise.allSettled(underWay);
  }
  return hex(tree.root());
}

/** Leaves that are read at once: about a block's length, and a multiple of the reader's unit, a power of two. */
function leavesPerBlock(leaf: number, blockSize: number): number {
  let leaves = Math.max(1, Math.floor(blockLength / leaf));
  for (let unit = leaves * leaf; unit % blockSize !== 0; unit *= 2) leaves *= 2;
  return leaves;
}
