import type { FileHandle } from "node:fs/promises";
import type { Wait } from "@diskferry/core/provider";

const BITS = 16;
const CLUSTER = 2 ** BITS;
const PER_TABLE = CLUSTER / 8;
/** "Copied": the cluster is used once. */
const COPIED = 1n << 63n;

/** A qcow2 image that is made while it is sent: its length is known before its first byte. */
export interface Qcow2Stream {
  /** Bytes. */
  readonly length: number;
  /** The whole image, from its start; each buffer is good until the next. */
  content(wait?: Wait): AsyncGenerator<Uint8Array>;
}

/**
 * A raw file as a qcow2 image of version 3 without compression, tables first; clusters that hold zeroes alone are left out.
 * The file must not change until the image was sent.
 */
export async function qcow2Stream(file: FileHandle, size: number, wait: Wait = {}): Promise<Qcow2Stream> {
  const clusters = Math.ceil(size / CLUSTER);
  const used: number[] = [];
  const bytes = Buffer.alloc(CLUSTER);
  const zeroes = Buffer.alloc(CLUSTER);
  for (let index = 0; index < clusters; index++) {
    wait.signal?.throwIfAborted();
    if (!(await readCluster(file, index, size, bytes)).equals(zeroes)) used.push(index);
  }
  const tables = [...new Set(used.map((index) => Math.floor(index / PER_TABLE)))];
  const l1Entries = Math.max(1, Math.ceil(clusters / PER_TABLE));
  const l1Clusters = Math.ceil((l1Entries * 8) / CLUSTER);
  const counts = countClusters(1 + l1Clusters + tables.length + used.length);
  const total = 1 + l1Clusters + tables.length + used.length + counts.tableClusters + counts.blocks;
  const countTableAt = 1 + l1Clusters;
  const blocksAt = countTableAt + counts.tableClusters;
  const tablesAt = blocksAt + counts.blocks;
  const dataAt = tablesAt + tables.length;

  const head = Buffer.alloc(CLUSTER);
  head.writeUInt32BE(0x514649fb, 0);
  head.writeUInt32BE(3, 4);
  head.writeUInt32BE(BITS, 20);
  head.writeBigUInt64BE(BigInt(size), 24);
  head.writeUInt32BE(l1Entries, 36);
  head.writeBigUInt64BE(BigInt(CLUSTER), 40);
  head.writeBigUInt64BE(BigInt(countTableAt * CLUSTER), 48);
  head.writeUInt32BE(counts.tableClusters, 56);
  // Reference counts of 2^4 bits, a header of 104 bytes.
  head.writeUInt32BE(4, 96);
  head.writeUInt32BE(104, 100);

  return {
    length: total * CLUSTER,
    async *content({ signal } = {}) {
      yield head;
      const l1 = Buffer.alloc(l1Clusters * CLUSTER);
      for (const [place, table] of tables.entries())
        l1.writeBigUInt64BE(COPIED | BigInt((tablesAt + place) * CLUSTER), table * 8);
      yield l1;
      const countTable = Buffer.alloc(counts.tableClusters * CLUSTER);
      for (let block = 0; block < counts.blocks; block++)
        countTable.writeBigUInt64BE(BigInt((blocksAt + block) * CLUSTER), block * 8);
      yield countTable;
      for (let block = 0; block < counts.blocks; block++) {
        const here = Buffer.alloc(CLUSTER);
        const last = Math.min(CLUSTER / 2, total - block * (CLUSTER / 2));
        for (let each = 0; each < last; each++) here.writeUInt16BE(1, each * 2);
        yield here;
      }
      let next = 0;
      for (const table of tables) {
        const l2 = Buffer.alloc(CLUSTER);
        for (; next < used.length; next++) {
          const index = used[next] ?? 0;
          if (Math.floor(index / PER_TABLE) !== table) break;
          l2.writeBigUInt64BE(COPIED | BigInt((dataAt + next) * CLUSTER), (index % PER_TABLE) * 8);
        }
        yield l2;
      }
      for (const index of used) {
        signal?.throwIfAborted();
        yield await readCluster(file, index, size, Buffer.alloc(CLUSTER));
      }
    },
  };
}

/** How many clusters the reference counts take, which count themselves too. */
function countClusters(others: number): { tableClusters: number; blocks: number } {
  let [tableClusters, blocks] = [1, 1];
  for (;;) {
    const needed = Math.ceil((others + tableClusters + blocks) / (CLUSTER / 2));
    const tables = Math.ceil((needed * 8) / CLUSTER);
    if (needed <= blocks && tables <= tableClusters) return { tableClusters, blocks };
    [tableClusters, blocks] = [tables, needed];
  }
}

/** One cluster of the disk; beyond the disk's end there are zeroes. */
async function readCluster(file: FileHandle, index: number, size: number, into: Buffer): Promise<Buffer> {
  const start = index * CLUSTER;
  const length = Math.min(CLUSTER, size - start);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(into, done, length - done, start + done);
    if (bytesRead === 0) throw new RangeError(`the spooled disk ends at ${start + done}, before its ${size} bytes`);
    done += bytesRead;
  }
  return into.fill(0, length);
}
