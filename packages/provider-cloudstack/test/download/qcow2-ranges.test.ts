import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, randomFrom } from "../../../../test/seed.ts";
import { openQcow2 } from "../../src/download/qcow2-ranges.ts";
import type { ByteRanges } from "../../src/download/ranged-file.ts";

const cluster = 65_536;

function inMemory(image: Buffer): ByteRanges & { requests: number } {
  const ranges = {
    length: image.byteLength,
    requests: 0,
    async read(offset: number, into: Uint8Array): Promise<void> {
      ranges.requests++;
      expect(offset + into.byteLength).toBeLessThanOrEqual(image.byteLength);
      into.set(image.subarray(offset, offset + into.byteLength));
    },
  };
  return ranges;
}

/** An image of four clusters: data, one that is zero although it has a place, one that is compressed, one that is absent. */
function handMade(): { image: Buffer; disk: Buffer } {
  const disk = Buffer.alloc(4 * cluster);
  disk.set(randomBytes(cluster, 5), 0);
  disk.write("a cluster that compresses well", 2 * cluster);
  const packed = deflateRawSync(disk.subarray(2 * cluster, 3 * cluster), { windowBits: 12 });
  const image = Buffer.alloc(6 * cluster, 0xee);
  image.fill(0, 0, 3 * cluster);
  image.writeUInt32BE(0x514649fb, 0);
  image.writeUInt32BE(3, 4);
  image.writeUInt32BE(16, 20);
  image.writeBigUInt64BE(BigInt(disk.byteLength), 24);
  image.writeUInt32BE(1, 36);
  image.writeBigUInt64BE(BigInt(cluster), 40);
  image.writeUInt32BE(4, 96);
  image.writeUInt32BE(104, 100);
  image.writeBigUInt64BE((1n << 63n) | BigInt(2 * cluster), cluster);
  const entry = (index: number, word: bigint): void => void image.writeBigUInt64BE(word, 2 * cluster + index * 8);
  entry(0, (1n << 63n) | BigInt(3 * cluster));
  entry(1, (1n << 63n) | BigInt(4 * cluster) | 1n);
  // It begins inside a sector, as compressed clusters do.
  const at = 5 * cluster + 100;
  const sectors = Math.ceil((100 + packed.byteLength) / 512) - 1;
  entry(2, (1n << 62n) | (BigInt(sectors) << 54n) | BigInt(at));
  disk.copy(image, 3 * cluster, 0, cluster);
  packed.copy(image, at);
  return { image, disk };
}

async function wholeOf(image: Buffer): Promise<Buffer> {
  const content = await openQcow2(inMemory(image), "snapshot 1");
  const disk = Buffer.alloc(content.length, 0xdd);
  await content.read(0, disk);
  return disk;
}

describe("an image made by hand", () => {
  it("gives data, zeroes, compressed clusters and holes", async () => {
    const { image, disk } = handMade();
    expect(Buffer.compare(await wholeOf(image), disk)).toBe(0);
  });

  it("gives any part of it", async () => {
    const { image, disk } = handMade();
    const content = await openQcow2(inMemory(image), "snapshot 1");
    const random = randomFrom(7);
    for (let round = 0; round < 200; round++) {
      const offset = 512 * Math.floor(random() * (disk.byteLength / 512));
      const length = 512 * Math.floor(random() * ((disk.byteLength - offset) / 512 + 1));
      const part = Buffer.alloc(length, 0xdd);
      await content.read(offset, part);
      expect(Buffer.compare(part, disk.subarray(offset, offset + length))).toBe(0);
    }
  });

  it("may be of version 2, where no cluster is marked as zero", async () => {
    const { image, disk } = handMade();
    image.writeUInt32BE(2, 4);
    image.copy(disk, cluster, 4 * cluster, 5 * cluster);
    expect(Buffer.compare(await wholeOf(image), disk)).toBe(0);
  });

  it.each<[string, RegExp, (image: Buffer) => Buffer | void]>([
    ["no qcow2 at all", /CORRUPT.*header/, (image) => void image.fill(0, 0, 4)],
    ["too short for a header", /CORRUPT.*header/, (image) => image.subarray(0, 60)],
    ["another version", /UNSUPPORTED.*version 4/, (image) => void image.writeUInt32BE(4, 4)],
    ["a backing file", /UNSUPPORTED.*another file/, (image) => void image.writeBigUInt64BE(200n, 8)],
    ["encryption", /UNSUPPORTED.*encrypted/, (image) => void image.writeUInt32BE(2, 32)],
    ["clusters of 4 MiB", /CORRUPT.*2\^22/, (image) => void image.writeUInt32BE(22, 20)],
    ["marked corrupt", /CORRUPT.*marked/, (image) => void image.writeBigUInt64BE(2n, 72)],
    ["an external data file", /UNSUPPORTED.*another file/, (image) => void image.writeBigUInt64BE(4n, 72)],
    ["subclusters", /UNSUPPORTED.*subclusters/, (image) => void image.writeBigUInt64BE(16n, 72)],
    ["a feature of the future", /UNSUPPORTED.*0x40/, (image) => void image.writeBigUInt64BE(64n, 72)],
    [
      "zstd",
      /UNSUPPORTED.*zlib/,
      (image) => {
        image.writeBigUInt64BE(8n, 72);
        image.writeUInt32BE(112, 100);
        image[104] = 1;
      },
    ],
    ["a table that is too small", /CORRUPT.*0 entries/, (image) => void image.writeUInt32BE(0, 36)],
    ["a size beyond reason", /CORRUPT/, (image) => void image.writeBigUInt64BE(1n << 62n, 24)],
    ["a first table beyond the end", /CORRUPT.*ends/, (image) => void image.writeBigUInt64BE(1n << 40n, 40)],
    ["cut before its data", /CORRUPT.*ends/, (image) => image.subarray(0, 3 * cluster + 512)],
    ["cut before its tables", /CORRUPT.*ends/, (image) => image.subarray(0, 2 * cluster)],
    [
      "a cluster that begins inside a cluster",
      /CORRUPT.*inside a cluster/,
      (image) => void image.writeBigUInt64BE((1n << 63n) | BigInt(3 * cluster + 512), 2 * cluster),
    ],
    ["a compressed cluster that is damaged", /CORRUPT/, (image) => void image.fill(0xff, 5 * cluster, 6 * cluster)],
    ["a compressed cluster that is cut away", /CORRUPT.*beyond/, (image) => image.subarray(0, 5 * cluster)],
  ])("is refused: %s", async (_what, pattern, damage) => {
    const { image } = handMade();
    const error = await wholeOf(damage(image) ?? image).then(
      () => expect.fail("it was read"),
      (failure: unknown) => failure as Error & { code: string },
    );
    expect(`${error.code} ${error.message}`).toMatch(pattern);
  });
});

describeWithPeers(["qemu-img"], "images of qemu-img", () => {
  it.each([
    [["-o", "cluster_size=65536"]],
    [["-o", "cluster_size=512"]],
    [["-o", "cluster_size=2M"]],
    [["-c", "-o", "cluster_size=65536"]],
    [["-c", "-o", "cluster_size=4096"]],
    [["-o", "compat=0.10"]],
    [["-o", "preallocation=metadata"]],
  ])("%j", async (flags) => {
    const folder = mkdtempSync(join(tmpdir(), "diskferry-qcow2-"));
    try {
      const disk = Buffer.alloc(5 * 2 ** 20 + 512);
      disk.set(randomBytes(500_000, 1), 100_000);
      disk.fill("text that compresses ", 2 ** 21, 2 ** 21 + 300_000);
      disk.set(randomBytes(512, 2), disk.byteLength - 512);
      const [raw, image] = [join(folder, "disk.raw"), join(folder, "disk.qcow2")];
      writeFileSync(raw, disk);
      execFileSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", ...flags, raw, image]);
      expect(Buffer.compare(await wholeOf(readFileSync(image)), disk)).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
