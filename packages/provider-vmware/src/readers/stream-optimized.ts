import { inflateSync } from "node:zlib";
import type { ProviderError } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { ByteStream } from "./byte-stream.ts";

const sector = 512;
/** Types of metadata markers (Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents"). */
const marker = { endOfStream: 0, grainTable: 1, grainDirectory: 2, footer: 3 };
/** The flags of a stream: grains are compressed and announced by markers. */
const compressedWithMarkers = 0x30000;
const deflate = 1;
/** Largest grain that is taken for meant, in sectors: 2 MiB; exports have 64 KiB. */
const largestGrain = 4096;
/** Largest grain table that is taken for meant, in entries; exports have 512. */
const largestTable = 65_536;

/** A grain of a disk with its bytes; what lies between grains is zero. */
export interface Grain {
  /** Bytes. */
  offset: number;
  data: Uint8Array;
}

/** What a stream has to be. */
export interface StreamExpectation {
  /** Bytes of the disk; a stream of another size is another disk. */
  size: number;
  /** Names the stream in messages. */
  what: string;
}

/**
 * Reads the grains of a stream-optimized VMDK as it arrives, ascending. It ends only where the end-of-stream marker was
 * seen: a stream that was cut off ends with HTTP status 200 like a whole one. Each grain table is held against the grains
 * that came before it, so that one left out is noticed.
 *
 * @throws ProviderError UNAVAILABLE (retryable) for a stream that ends early; CORRUPT for one that contradicts itself
 */
export async function* readGrains(
  chunks: AsyncIterable<Uint8Array>,
  expected: StreamExpectation,
): AsyncGenerator<Grain, void> {
  const stream = new ByteStream(chunks);
  try {
    const { grainBytes, tableEntries, overHead } = headerOf(await whole(stream, sector, expected), expected);
    await past(stream, overHead - sector, expected);
    let after = 0;
    let inTable = 0;
    for (;;) {
      const head = viewOf(await whole(stream, sector, expected));
      const value = Number(head.getBigUint64(0, true));
      const length = head.getUint32(8, true);
      if (length > 0) {
        const offset = value * sector;
        if (offset % grainBytes !== 0 || offset < after || offset >= expected.size) {
          throw corrupt(expected, `a grain at byte ${offset} does not follow the one that ends at ${after}`);
        }
        const compressed = await compressedGrain(stream, head, length, grainBytes, expected);
        const data = inflated(compressed, Math.min(grainBytes, expected.size - offset), grainBytes, expected);
        after = offset + grainBytes;
        inTable++;
        yield { offset, data };
        continue;
      }
      const type = head.getUint32(12, true);
      if (type === marker.endOfStream) {
        if (inTable > 0) throw corrupt(expected, `${inTable} grains were announced by no table`);
        return;
      }
      if (type === marker.grainTable) {
        const table = viewOf(await whole(stream, Math.ceil((tableEntries * 4) / sector) * sector, expected));
        if (value * sector !== table.byteLength) throw corrupt(expected, `a grain table of ${value} sectors`);
        const listed = entriesIn(table, tableEntries);
        if (listed !== inTable) throw corrupt(expected, `a table lists ${listed} grains, and ${inTable} came`);
        inTable = 0;
      } else if (type === marker.grainDirectory || type === marker.footer) {
        await past(stream, value * sector, expected);
      } else {
        throw corrupt(expected, `a marker of type ${type}`);
      }
    }
  } finally {
    await stream.close();
  }
}

/** The sparse extent header. @throws ProviderError CORRUPT */
function headerOf(
  bytes: Uint8Array,
  expected: StreamExpectation,
): { grainBytes: number; tableEntries: number; overHead: number } {
  const header = viewOf(bytes);
  if (Buffer.from(bytes.subarray(0, 4)).toString("latin1") !== "KDMV") throw corrupt(expected, "it is no VMDK");
  const flags = header.getUint32(8, true);
  const size = Number(header.getBigUint64(12, true)) * sector;
  const grainSectors = Number(header.getBigUint64(20, true));
  const tableEntries = header.getUint32(44, true);
  const overHead = Number(header.getBigUint64(64, true)) * sector;
  const algorithm = header.getUint16(77, true);
  if ((flags & compressedWithMarkers) !== compressedWithMarkers || algorithm !== deflate) {
    throw corrupt(expected, `it is not stream-optimized (flags ${flags.toString(16)}, compression ${algorithm})`);
  }
  if (size !== expected.size) throw corrupt(expected, `it is of a disk of ${size} bytes, not ${expected.size}`);
  if (!(grainSectors >= 8 && grainSectors <= largestGrain && Number.isInteger(Math.log2(grainSectors)))) {
    throw corrupt(expected, `its grains have ${grainSectors} sectors`);
  }
  if (!(tableEntries >= 1 && tableEntries <= largestTable))
    throw corrupt(expected, `tables of ${tableEntries} entries`);
  if (!(overHead >= sector && overHead <= 2 ** 32)) throw corrupt(expected, `${overHead} bytes before the first grain`);
  return { grainBytes: grainSectors * sector, tableEntries, overHead };
}

/** The compressed bytes of a grain: they begin inside the marker's sector and are padded to whole ones. */
async function compressedGrain(
  stream: ByteStream,
  head: DataView,
  length: number,
  grainBytes: number,
  expected: StreamExpectation,
): Promise<Uint8Array> {
  // What does not compress grows by zlib's framing alone.
  if (length > grainBytes + Math.ceil(grainBytes / 1000) + 1024) {
    throw corrupt(expected, `a grain of ${length} compressed bytes`);
  }
  const first = new Uint8Array(head.buffer, head.byteOffset + 12, Math.min(length, sector - 12)).slice();
  const rest = Math.ceil((12 + length) / sector) * sector - sector;
  if (rest === 0) return first;
  const more = await whole(stream, rest, expected);
  return Buffer.concat([first, more.subarray(0, length - first.byteLength)]);
}

/**
 * A grain's bytes, cut where the disk ends. Decompressed at once and in one piece, which takes 0.1 ms: by Node's thread pool
 * it is four to nine times as much processor time, most of it garbage.
 */
function inflated(compressed: Uint8Array, wanted: number, grainBytes: number, expected: StreamExpectation): Uint8Array {
  let data: Buffer;
  try {
    // With room for a little more zlib sees its end without a second piece.
    data = inflateSync(compressed, { maxOutputLength: grainBytes, chunkSize: grainBytes + 64 });
  } catch (error) {
    throw corrupt(expected, "a grain does not decompress", error);
  }
  if (data.byteLength < wanted) throw corrupt(expected, `a grain of ${data.byteLength} bytes where ${wanted} belong`);
  return data.subarray(0, wanted);
}

/** How many grains a table refers to; 0 is none, 1 a grain of zeroes that has no data. */
function entriesIn(table: DataView, count: number): number {
  let found = 0;
  for (let index = 0; index < count; index++) if (table.getUint32(index * 4, true) > 1) found++;
  return found;
}

async function whole(stream: ByteStream, length: number, expected: StreamExpectation): Promise<Uint8Array> {
  return (await stream.take(length)) ?? truncated(stream, expected);
}

async function past(stream: ByteStream, length: number, expected: StreamExpectation): Promise<void> {
  if (!(await stream.skip(length))) truncated(stream, expected);
}

function truncated(stream: ByteStream, { what }: StreamExpectation): never {
  throw vsphereError(
    "UNAVAILABLE",
    `${what} ended after ${stream.position} bytes without its end-of-stream marker: the connection or the lease was cut ` +
      "off. It is read again from its start.",
    { operation: "read export" },
  );
}

function corrupt({ what }: StreamExpectation, found: string, cause?: unknown): ProviderError {
  return vsphereError(
    "CORRUPT",
    `${what} cannot be trusted: ${found}. Nothing of it is used; read the disk with another reader.`,
    { operation: "read export", cause },
  );
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
