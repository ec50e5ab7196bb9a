import { promisify } from "node:util";
import { deflate } from "node:zlib";
import { grainSize } from "./disk-layer.ts";
import type { DiskLayer } from "./disk-layer.ts";

const sector = 512;
const grainSectors = grainSize / sector;
const entriesPerTable = 512;
const overHeadSectors = 128;
const compress = promisify(deflate);

const marker = { endOfStream: 0, grainTable: 1, grainDirectory: 2, footer: 3 } as const;

/**
 * A disk as a stream-optimized VMDK, in ascending order and without going back: header, descriptor, compressed grains
 * with their tables, directory, footer, end of stream (VMware Virtual Disk Format 1.1, "Stream-Optimized").
 */
export async function* streamOptimized(layer: DiskLayer, capacity: number, name: string): AsyncGenerator<Buffer> {
  const overHead = Buffer.alloc(overHeadSectors * sector);
  headerOf(capacity, undefined).copy(overHead);
  overHead.write(descriptorOf(capacity, name), sector, "utf8");
  yield overHead;
  let position = overHeadSectors;
  const directory = new Uint32Array(Math.ceil(Math.ceil(capacity / grainSize) / entriesPerTable));
  let table: { index: number; entries: Uint32Array } | undefined;
  const closeTable = function* (): Generator<Buffer> {
    if (table === undefined) return;
    directory[table.index] = position + 1;
    const written = metadata(marker.grainTable, bytesOf(table.entries));
    position += written.length / sector;
    table = undefined;
    yield written;
  };
  for (let from = 0; from < capacity;) {
    const listed = layer.areas({ allocated: true }, { start: from, end: capacity, limit: 256, granularity: grainSize });
    for (const area of listed.areas) {
      for (let offset = area.start; offset < area.start + area.length; offset += grainSize) {
        const grain = offset / grainSize;
        const index = Math.floor(grain / entriesPerTable);
        if (table !== undefined && table.index !== index) yield* closeTable();
        table ??= { index, entries: new Uint32Array(entriesPerTable) };
        const bytes = Buffer.alloc(grainSize);
        layer.read(offset, bytes.subarray(0, Math.min(grainSize, capacity - offset)));
        const written = grainOf(offset / sector, await compress(bytes, { level: 1 }));
        table.entries[grain % entriesPerTable] = position;
        position += written.length / sector;
        yield written;
      }
    }
    from = listed.covered;
  }
  yield* closeTable();
  const directoryAt = position + 1;
  yield metadata(marker.grainDirectory, bytesOf(directory));
  yield metadata(marker.footer, headerOf(capacity, directoryAt));
  yield metadata(marker.endOfStream, Buffer.alloc(0));
}

function headerOf(capacity: number, directoryAt: number | undefined): Buffer {
  const header = Buffer.alloc(sector);
  header.write("KDMV", 0, "latin1");
  header.writeUInt32LE(3, 4);
  header.writeUInt32LE(0x30001, 8);
  header.writeBigUInt64LE(BigInt(capacity / sector), 12);
  header.writeBigUInt64LE(BigInt(grainSectors), 20);
  header.writeBigUInt64LE(1n, 28);
  header.writeBigUInt64LE(BigInt(overHeadSectors - 1), 36);
  header.writeUInt32LE(entriesPerTable, 44);
  header.writeBigUInt64LE(0n, 48);
  header.writeBigUInt64LE(directoryAt === undefined ? 0xffffffffffffffffn : BigInt(directoryAt), 56);
  header.writeBigUInt64LE(BigInt(overHeadSectors), 64);
  header.write("\n \r\n", 73, "latin1");
  header.writeUInt16LE(1, 77);
  return header;
}

function descriptorOf(capacity: number, name: string): string {
  return [
    "# Disk DescriptorFile",
    "version=1",
    "CID=7b6d5a01",
    "parentCID=ffffffff",
    'createType="streamOptimized"',
    "",
    "# Extent description",
    `RDONLY ${capacity / sector} SPARSE "${name}"`,
    "",
    "# The Disk Data Base",
    "#DDB",
    "",
    'ddb.virtualHWVersion = "14"',
    'ddb.adapterType = "lsilogic"',
    "",
  ].join("\n");
}

function grainOf(firstSector: number, data: Buffer): Buffer {
  const written = Buffer.alloc(Math.ceil((12 + data.length) / sector) * sector);
  written.writeBigUInt64LE(BigInt(firstSector), 0);
  written.writeUInt32LE(data.length, 8);
  data.copy(written, 12);
  return written;
}

/** A marker of one sector and what it announces, padded to sectors. */
function metadata(type: number, content: Buffer): Buffer {
  const sectors = Math.ceil(content.length / sector);
  const written = Buffer.alloc((1 + sectors) * sector);
  written.writeBigUInt64LE(BigInt(sectors), 0);
  written.writeUInt32LE(0, 8);
  written.writeUInt32LE(type, 12);
  content.copy(written, sector);
  return written;
}

function bytesOf(entries: Uint32Array): Buffer {
  const written = Buffer.alloc(entries.length * 4);
  for (const [index, entry] of entries.entries()) written.writeUInt32LE(entry, index * 4);
  return written;
}
