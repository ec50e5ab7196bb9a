import { deflateSync } from "node:zlib";
import { isProviderError } from "@diskferry/core/provider";
import { describe, expect, test } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { AscendingDisk } from "../../src/readers/ascending-disk.ts";
import { readGrains } from "../../src/readers/stream-optimized.ts";

const seed = seedOf(4);
const sector = 512;
const grain = 65_536;
const size = 40 * grain + 512;
const what = "the export of disk 2000";

/** A disk with grains at random places, its last, short one included. */
function makeDisk(): { bytes: Uint8Array; grains: number[] } {
  const random = randomFrom(seed);
  const bytes = new Uint8Array(size);
  const grains: number[] = [];
  for (let at = 0; at < size; at += grain) {
    if (at > 0 && at + grain < size && random() < 0.6) continue;
    grains.push(at);
    bytes.set(randomBytes(Math.min(grain, size - at), seed + at + 1), at);
  }
  return { bytes, grains };
}

function sectors(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((sector - (bytes.byteLength % sector)) % sector)]);
}

function metadata(type: number, content: Buffer): Buffer {
  const head = Buffer.alloc(sector);
  head.writeBigUInt64LE(BigInt(content.length / sector), 0);
  head.writeUInt32LE(type, 12);
  return Buffer.concat([head, content]);
}

/** The pieces of a stream-optimized VMDK, one per marker, from the format's description alone. */
function piecesOf(disk: { bytes: Uint8Array; grains: readonly number[] }, tableEntries = 16): Buffer[] {
  const header = Buffer.alloc(sector);
  header.write("KDMV", 0, "latin1");
  header.writeUInt32LE(3, 4);
  header.writeUInt32LE(0x30001, 8);
  header.writeBigUInt64LE(BigInt(size / sector), 12);
  header.writeBigUInt64LE(BigInt(grain / sector), 20);
  header.writeUInt32LE(tableEntries, 44);
  header.writeBigUInt64LE(0xffffffffffffffffn, 56);
  header.writeBigUInt64LE(4n, 64);
  header.writeUInt16LE(1, 77);
  const pieces: Buffer[] = [Buffer.concat([header, Buffer.alloc(3 * sector)])];
  let listed = 0;
  const table = (): Buffer => {
    const entries = Buffer.alloc(Math.ceil((tableEntries * 4) / sector) * sector);
    for (let index = 0; index < listed; index++) entries.writeUInt32LE(1000 + index, index * 4);
    listed = 0;
    return metadata(1, entries);
  };
  for (const [index, at] of disk.grains.entries()) {
    const whole = new Uint8Array(grain);
    whole.set(disk.bytes.subarray(at, Math.min(at + grain, size)));
    const data = deflateSync(whole);
    const head = Buffer.alloc(12);
    head.writeBigUInt64LE(BigInt(at / sector), 0);
    head.writeUInt32LE(data.length, 8);
    pieces.push(sectors(Buffer.concat([head, data])));
    listed++;
    const next = disk.grains[index + 1];
    if (next === undefined || Math.floor(next / grain / tableEntries) !== Math.floor(at / grain / tableEntries)) {
      pieces.push(table());
    }
  }
  pieces.push(metadata(2, Buffer.alloc(sector)), metadata(3, header), metadata(0, Buffer.alloc(0)));
  return pieces;
}

/** The bytes in chunks of odd sizes, as a socket gives them. */
async function* chunksOf(bytes: Buffer): AsyncGenerator<Uint8Array> {
  const random = randomFrom(seed);
  for (let at = 0; at < bytes.length;) {
    const length = 1 + Math.floor(random() * 30_000);
    yield bytes.subarray(at, at + length);
    at += length;
    await Promise.resolve();
  }
}

async function decode(bytes: Buffer, step = size): Promise<Uint8Array> {
  const disk = new AscendingDisk(readGrains(chunksOf(bytes), { size, what }), size);
  const into = new Uint8Array(size).fill(0xa5);
  for (let at = 0; at < size; at += step) await disk.read(at, into.subarray(at, Math.min(size, at + step)));
  expect(disk.finished).toBe(true);
  return into;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => "resolved",
    (thrown: unknown) => thrown,
  );
  return isProviderError(error) ? `${error.code}${error.retryable ? " retryable" : ""}` : String(error);
}

const disk = makeDisk();
const pieces = piecesOf(disk);
const stream = Buffer.concat(pieces);

test.for([size, grain, 1 << 20, 4096, 3 * 512])("a stream is the disk, read in steps of %i bytes", async (step) => {
  expect(Buffer.compare(await decode(stream, step), disk.bytes)).toBe(0);
});

test("parts of a disk are read in passing, and never backwards", async () => {
  const reader = new AscendingDisk(readGrains(chunksOf(stream), { size, what }), size);
  for (const offset of [512, 5 * grain + 1024, 30 * grain]) {
    const into = new Uint8Array(2 * grain).fill(0xa5);
    await reader.read(offset, into);
    expect(Buffer.compare(into, disk.bytes.subarray(offset, offset + into.length))).toBe(0);
  }
  expect(reader.finished).toBe(false);
  expect(await codeOf(reader.read(0, new Uint8Array(512)))).toBe("UNAVAILABLE retryable");
  await expect(reader.read(size - 512, new Uint8Array(1024))).rejects.toThrow(RangeError);
  await reader.close();
});

test("an empty disk is a stream without grains", async () => {
  const empty = Buffer.concat(piecesOf({ bytes: new Uint8Array(size), grains: [] }));
  expect((await decode(empty)).every((byte) => byte === 0)).toBe(true);
});

test("a stream cut off anywhere is UNAVAILABLE, and never a disk with zeroes at its end", async () => {
  const random = randomFrom(seed);
  const boundaries = pieces.map((_, index) => Buffer.concat(pieces.slice(0, index)).length);
  const cuts = [
    ...boundaries,
    stream.length - 1,
    ...Array.from({ length: 40 }, () => Math.floor(random() * stream.length)),
  ];
  for (const cut of cuts) {
    expect(await codeOf(decode(stream.subarray(0, cut))), `cut at ${cut}, seed ${seed}`).toBe("UNAVAILABLE retryable");
  }
});

test("a read is not answered before the stream went past it", async () => {
  // The last grain of this disk lies far before its end; what is behind it is zero only if the stream says so.
  const early = { bytes: new Uint8Array(size), grains: [0] };
  early.bytes.set(randomBytes(grain, seed));
  const cut = piecesOf(early).slice(0, 2);
  const reader = new AscendingDisk(readGrains(chunksOf(Buffer.concat(cut)), { size, what }), size);
  await reader.read(0, new Uint8Array(grain));
  expect(await codeOf(reader.read(grain, new Uint8Array(grain)))).toBe("UNAVAILABLE retryable");
  // A failed stream stands nowhere; it does not answer later reads as if it had ended.
  expect(await codeOf(reader.read(2 * grain, new Uint8Array(grain)))).toBe("UNAVAILABLE retryable");
});

describe("a stream that contradicts itself is CORRUPT", () => {
  const isGrain = (index: number): boolean => (pieces[index]?.readUInt32LE(8) ?? 0) > 0 && index > 0;
  const grainsAt = pieces.flatMap((_, index) => (isGrain(index) ? [index] : []));
  const edited = (edit: (copy: Buffer[]) => void): Buffer => {
    const copy = pieces.map((piece) => Buffer.from(piece));
    edit(copy);
    return Buffer.concat(copy);
  };
  test.for<[string, (copy: Buffer[]) => void]>([
    ["a grain is left out", (copy) => void copy.splice(grainsAt[1] ?? 0, 1)],
    ["a grain comes twice", (copy) => void copy.splice(2, 0, copy[1] ?? Buffer.alloc(0))],
    ["a grain lies off the grid", (copy) => void copy[1]?.writeBigUInt64LE(1n, 0)],
    ["a grain lies behind the disk", (copy) => void copy[1]?.writeBigUInt64LE(BigInt(size / 512 + 127), 0)],
    ["a grain does not decompress", (copy) => void copy[1]?.fill(0x77, 20, 60)],
    ["a grain is huge", (copy) => void copy[1]?.writeUInt32LE(0x7fffffff, 8)],
    ["a marker is unknown", (copy) => void copy.at(-1)?.writeUInt32LE(9, 12)],
    [
      "the tables are missing",
      (copy) =>
        void copy.splice(
          0,
          copy.length,
          ...copy.filter((_, at) => at === 0 || isGrain(at) || at === pieces.length - 1),
        ),
    ],
    ["it is no VMDK", (copy) => void copy[0]?.write("QFI\xfb", 0, "latin1")],
    ["it is not compressed", (copy) => void copy[0]?.writeUInt32LE(1, 8)],
    ["it is of another disk", (copy) => void copy[0]?.writeBigUInt64LE(BigInt(size / 512 - 1), 12)],
    ["its grains are absurd", (copy) => void copy[0]?.writeBigUInt64LE(2n ** 40n, 20)],
    ["its tables are absurd", (copy) => void copy[0]?.writeUInt32LE(0xffffffff, 44)],
    ["its overhead is absurd", (copy) => void copy[0]?.writeBigUInt64LE(2n ** 40n, 64)],
  ])("%s", async ([, edit]) => {
    expect(await codeOf(decode(edited(edit)))).toBe("CORRUPT");
  });
});
