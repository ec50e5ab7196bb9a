import { open, type FileHandle } from "node:fs/promises";
import { promisify } from "node:util";
import { inflateRaw } from "node:zlib";
import type { SparseDisk } from "./sparse-disk.ts";

const inflate = promisify(inflateRaw);

/** Clusters of 64 KiB, as qemu-img makes them (QEMU docs/interop/qcow2). */
const clusterBits = 16;
const clusterSize = 2 ** clusterBits;
const entriesPerTable = clusterSize / 8;
const magic = 0x514649fb;
/** Bit 63 of an entry: the cluster's reference count is one, so that it may be written in place. */
const copied = 1n << 63n;
const compressed = 1n << 62n;
const zeroes = Buffer.alloc(clusterSize);

/** Writes a disk as a qcow2 image of version 3 without compression; what reads as zeroes takes no room. */
export async function writeQcow2(disk: SparseDisk, path: string): Promise<void> {
  await using source = await disk.open("r");
  await using target = await open(path, "w");
  const clusters = Math.ceil(disk.size / clusterSize);
  const l1Entries = Math.ceil(clusters / entriesPerTable);
  const l1Clusters = Math.max(1, Math.ceil((l1Entries * 8) / clusterSize));
  const l1 = Buffer.alloc(l1Clusters * clusterSize);
  let next = 1 + l1Clusters;
  const bytes = Buffer.alloc(clusterSize);
  for (let index = 0; index < l1Entries; index++) {
    let l2: Buffer | undefined;
    let l2Place = 0;
    for (let entry = 0; entry < entriesPerTable; entry++) {
      const offset = (index * entriesPerTable + entry) * clusterSize;
      if (offset >= disk.size) break;
      bytes.fill(0);
      await source.read(bytes, 0, Math.min(clusterSize, disk.size - offset), offset);
      if (bytes.equals(zeroes)) continue;
      if (l2 === undefined) {
        l2 = Buffer.alloc(clusterSize);
        l2Place = next++;
        l1.writeBigUInt64BE(copied | BigInt(l2Place * clusterSize), index * 8);
      }
      l2.writeBigUInt64BE(copied | BigInt(next * clusterSize), entry * 8);
      await target.write(bytes, 0, clusterSize, next++ * clusterSize);
    }
    if (l2 !== undefined) await target.write(l2, 0, clusterSize, l2Place * clusterSize);
  }
  await target.write(l1, 0, l1.length, clusterSize);
  const counts = await writeReferenceCounts(target, next);
  await target.write(header(disk.size, { l1Entries, ...counts }), 0, 104, 0);
}

/** Every cluster is used once: two bytes each in blocks that a table lists. */
async function writeReferenceCounts(
  target: FileHandle,
  used: number,
): Promise<{ tablePlace: number; tableClusters: number }> {
  const perBlock = clusterSize / 2;
  let blocks = 0;
  let tableClusters = 1;
  for (;;) {
    const total = used + tableClusters + blocks;
    const needed = Math.ceil(total / perBlock);
    const tables = Math.ceil((needed * 8) / clusterSize);
    if (needed === blocks && tables === tableClusters) break;
    blocks = needed;
    tableClusters = tables;
  }
  const table = Buffer.alloc(tableClusters * clusterSize);
  const total = used + tableClusters + blocks;
  for (let block = 0; block < blocks; block++) {
    const place = (used + tableClusters + block) * clusterSize;
    table.writeBigUInt64BE(BigInt(place), block * 8);
    const counts = Buffer.alloc(clusterSize);
    const here = Math.min(perBlock, total - block * perBlock);
    for (let each = 0; each < here; each++) counts.writeUInt16BE(1, each * 2);
    await target.write(counts, 0, clusterSize, place);
  }
  await target.write(table, 0, table.length, used * clusterSize);
  return { tablePlace: used * clusterSize, tableClusters };
}

function header(size: number, about: { l1Entries: number; tablePlace: number; tableClusters: number }): Buffer {
  const bytes = Buffer.alloc(104);
  bytes.writeUInt32BE(magic, 0);
  bytes.writeUInt32BE(3, 4);
  bytes.writeUInt32BE(clusterBits, 20);
  bytes.writeBigUInt64BE(BigInt(size), 24);
  bytes.writeUInt32BE(about.l1Entries, 36);
  bytes.writeBigUInt64BE(BigInt(clusterSize), 40);
  bytes.writeBigUInt64BE(BigInt(about.tablePlace), 48);
  bytes.writeUInt32BE(about.tableClusters, 56);
  // Reference counts of 16 bits, a header of 104 bytes.
  bytes.writeUInt32BE(4, 96);
  bytes.writeUInt32BE(104, 100);
  return bytes;
}

/** What an image says about itself; undefined where it is no qcow2. */
export async function inspectQcow2(
  path: string,
): Promise<{ size: number; backed: boolean; encrypted: boolean; externalData: boolean } | undefined> {
  await using file = await open(path, "r");
  const bytes = Buffer.alloc(104);
  const { bytesRead } = await file.read(bytes, 0, 104, 0);
  if (bytesRead < 72 || bytes.readUInt32BE(0) !== magic) return undefined;
  const features = bytes.readUInt32BE(4) >= 3 ? bytes.readBigUInt64BE(72) : 0n;
  return {
    size: Number(bytes.readBigUInt64BE(24)),
    backed: bytes.readBigUInt64BE(8) !== 0n,
    encrypted: bytes.readUInt32BE(32) !== 0,
    externalData: (features & 4n) !== 0n,
  };
}

/** Reads an image without backing file into an empty disk of its size. @throws Error for what no image holds */
export async function readQcow2(path: string, disk: SparseDisk): Promise<void> {
  await using file = await open(path, "r");
  const head = Buffer.alloc(104);
  await file.read(head, 0, 104, 0);
  const bits = head.readUInt32BE(20);
  if (bits < 9 || bits > 21) throw new Error(`clusters of 2^${bits} bytes are not a qcow2 image's`);
  const size = 2 ** bits;
  const l1 = Buffer.alloc(head.readUInt32BE(36) * 8);
  await file.read(l1, 0, l1.length, Number(head.readBigUInt64BE(40)));
  const l2 = Buffer.alloc(size);
  for (let index = 0; index * 8 < l1.length; index++) {
    const l2Place = Number(l1.readBigUInt64BE(index * 8) & 0x00fffffffffffe00n);
    if (l2Place === 0) continue;
    await file.read(l2, 0, size, l2Place);
    for (let entry = 0; entry < size / 8; entry++) {
      const word = l2.readBigUInt64BE(entry * 8);
      const offset = (index * (size / 8) + entry) * size;
      // Bit 0 of a cluster that is not compressed: all zeroes, whatever it holds.
      const zeroed = (word & compressed) === 0n && (word & 1n) === 1n;
      if (offset >= disk.size || word === 0n || zeroed) continue;
      const bytes =
        (word & compressed) === 0n
          ? await readCluster(file, Number(word & 0x00fffffffffffe00n), size)
          : await readCompressed(file, word, bits);
      await disk.write(offset, bytes.subarray(0, Math.min(size, disk.size - offset)));
    }
  }
}

async function readCluster(file: FileHandle, place: number, size: number): Promise<Buffer> {
  const bytes = Buffer.alloc(size);
  if (place !== 0) await file.read(bytes, 0, size, place);
  return bytes;
}

async function readCompressed(file: FileHandle, word: bigint, bits: number): Promise<Buffer> {
  const shift = BigInt(62 - (bits - 8));
  const place = Number(word & ((1n << shift) - 1n));
  const sectors = Number((word & (compressed - 1n)) >> shift) + 1;
  const bytes = Buffer.alloc(sectors * 512 - (place & 511));
  await file.read(bytes, 0, bytes.length, place);
  const whole = await inflate(bytes, { finishFlush: 2 });
  if (whole.length !== 2 ** bits) throw new Error("a compressed cluster has the wrong length");
  return whole;
}
