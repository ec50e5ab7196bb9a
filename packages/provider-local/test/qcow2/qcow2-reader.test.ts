import * as fs from "node:fs";
import { join } from "node:path";
import { type Tile, isProviderError } from "@diskferry/core/provider";
import { expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { type Qcow2Reader, openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { asRaw, qemuImg, qemuIo, qemuMap, temporaryFolder } from "./qemu.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

/** A raw disk with data, compressible data, zeroes and holes, none of it aligned to any cluster. */
function makeRaw(path: string, size: number, seed: number): void {
  const random = randomFrom(seed);
  const fd = fs.openSync(path, "w");
  fs.ftruncateSync(fd, size);
  for (let count = 0; count < 14; count++) {
    const length = Math.min(size, 512 * (1 + Math.floor(random() * 400)));
    const offset = 512 * Math.floor((random() * (size - length)) / 512);
    const bytes = count % 3 === 0 ? Buffer.alloc(length, count + 1) : randomBytes(length, seed + count);
    fs.writeSync(fd, bytes, 0, length, offset);
  }
  fs.closeSync(fd);
}

async function expectSame(image: string, raw: string, seed: number): Promise<void> {
  const expected = fs.readFileSync(raw);
  await using reader = await openQcow2Reader(image);
  expect(reader.size).toBe(expected.byteLength);
  const whole = Buffer.alloc(reader.size);
  await reader.read(0, whole);
  expect(whole.equals(expected), `${image} read as a whole`).toBe(true);
  const random = randomFrom(seed);
  for (let count = 0; count < 60; count++) {
    const offset = 512 * Math.floor(random() * (reader.size / 512));
    const length = Math.min(reader.size - offset, 512 * (1 + Math.floor(random() * random() * 600)));
    const part = Buffer.alloc(length, 0xee);
    await reader.read(offset, part);
    expect(part.equals(expected.subarray(offset, offset + length)), `${image}: ${length} bytes at ${offset}`).toBe(
      true,
    );
  }
  await expectTilesTrue(reader, expected);
}

async function tilesOf(tiles: AsyncIterable<Tile>): Promise<Tile[]> {
  const list: Tile[] = [];
  for await (const tile of tiles) list.push(tile);
  return list;
}

async function expectTilesTrue(reader: Qcow2Reader, expected: Buffer): Promise<void> {
  let end = 0;
  for (const tile of await tilesOf(reader.tiles())) {
    expect(tile.offset).toBe(end);
    expect(tile.kind).not.toBe("unchanged");
    end += tile.length;
    if (tile.kind === "zero") expect(expected.subarray(tile.offset, end).every((byte) => byte === 0)).toBe(true);
  }
  expect(end).toBe(reader.size);
}

const variants: [name: string, options: string, flags?: string[]][] = [
  ["version 2", "compat=0.10"],
  ["version 3", "compat=1.1"],
  ["clusters of 512 bytes", "compat=1.1,cluster_size=512"],
  ["clusters of 2 KiB", "cluster_size=2048"],
  ["clusters of 2 MiB", "cluster_size=2M"],
  ["subclusters", "extended_l2=on"],
  ["subclusters in clusters of 2 MiB", "extended_l2=on,cluster_size=2M"],
  ["subclusters in clusters of 16 KiB", "extended_l2=on,cluster_size=16k"],
  ["lazy refcounts", "lazy_refcounts=on"],
  ["refcounts of 1 bit", "refcount_bits=1"],
  ["refcounts of 64 bits", "refcount_bits=64"],
  ["preallocated metadata", "preallocation=metadata"],
  ["full preallocation", "preallocation=full"],
  ["zlib", "compression_type=zlib", ["-c"]],
  ["zlib in version 2", "compat=0.10", ["-c"]],
  ["zlib in clusters of 512 bytes", "cluster_size=512", ["-c"]],
  ["zlib in clusters of 2 MiB", "cluster_size=2M", ["-c"]],
  ["zstd", "compression_type=zstd", ["-c"]],
  ["zstd in clusters of 4 KiB", "compression_type=zstd,cluster_size=4k", ["-c"]],
  ["zstd in clusters of 2 MiB", "compression_type=zstd,cluster_size=2M", ["-c"]],
  ["zstd with subclusters", "compression_type=zstd,extended_l2=on", ["-c"]],
];

describeWithPeers(["qemu-img", "qemu-io"], "the qcow2 reader, against images by qemu", () => {
  const seed = seedOf(7);
  for (const [index, [name, options, flags = []]] of variants.entries()) {
    for (const size of [5 * MIB + 512, 4 * MIB]) {
      it(`reads ${name}, a disk of ${size} bytes`, async () => {
        using folder = temporaryFolder();
        const raw = join(folder.path, "disk.raw");
        const image = join(folder.path, "disk.qcow2");
        makeRaw(raw, size, seed + index);
        qemuImg("convert", "-f", "raw", "-O", "qcow2", ...flags, "-o", options, raw, image);
        // Then guest writes of all kinds on top.
        if (!options.includes("preallocation")) {
          qemuIo(
            image,
            "qcow2",
            "write -P 7 70k 3k",
            "write -z 128k 64k",
            "write -z -u 1M 100k",
            "write -P 9 1025k 512",
            "discard 256k 128k",
          );
        }
        await expectSame(image, asRaw(image, join(folder.path, "after.raw")), seed);
        expect(await checkQcow2(image)).toMatchObject({ leaks: 0, corruptions: 0 });
      });
    }
  }

  it("reads a chain of three over raw, of different sizes and cluster sizes", async () => {
    using folder = temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    makeRaw(at("base.raw"), 3 * MIB + 1536, seed);
    qemuImg("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", at("one.qcow2"), "6M");
    qemuIo(at("one.qcow2"), "qcow2", "write -P 1 3M 200k", "write -z 1M 300k", "write -P 2 5M 512");
    fs.mkdirSync(at("sub"));
    qemuImg(
      "create",
      "-q",
      "-f",
      "qcow2",
      "-o",
      "cluster_size=4k",
      "-F",
      "qcow2",
      "-b",
      "../one.qcow2",
      at("sub/two.qcow2"),
      "4M",
    );
    qemuIo(at("sub/two.qcow2"), "qcow2", "write -P 3 0 5k", "write -z 3M 64k", "write -P 4 2M 1000k");
    qemuImg(
      "create",
      "-q",
      "-f",
      "qcow2",
      "-o",
      "extended_l2=on",
      "-F",
      "qcow2",
      "-b",
      "sub/two.qcow2",
      at("three.qcow2"),
      "7M",
    );
    qemuIo(at("three.qcow2"), "qcow2", "write -P 5 10k 1k", "write -z 2M 4k", "write -P 6 6M 512");
    await expectSame(at("three.qcow2"), asRaw(at("three.qcow2"), at("after.raw")), seed);

    await using reader = await openQcow2Reader(at("three.qcow2"));
    expect(reader.chain.map(({ format }) => format)).toEqual(["qcow2", "qcow2", "qcow2", "raw"]);
    // What lies above each depth, judged by qemu's own map and by the content of the base.
    const map = qemuMap(at("three.qcow2"));
    const content = fs.readFileSync(at("after.raw"));
    for (const depth of [1, 2, 3]) {
      const base = reader.chain[depth]!;
      const below = Buffer.alloc(content.byteLength);
      asRaw(base.path, at("below.raw"), base.format);
      fs.readFileSync(at("below.raw")).copy(below);
      const tiles = await tilesOf(reader.tilesAbove(base.path));
      expect(tiles).toEqual(await tilesOf(reader.tilesAbove(depth)));
      let end = 0;
      for (const tile of tiles) {
        expect(tile.offset).toBe(end);
        end += tile.length;
        const now = content.subarray(tile.offset, end);
        if (tile.kind === "zero") expect(now.every((byte) => byte === 0)).toBe(true);
        if (tile.kind === "unchanged") expect(now.equals(below.subarray(tile.offset, end))).toBe(true);
      }
      expect(end).toBe(reader.size);
      for (const range of map) {
        if (range.depth >= depth || !range.data) continue;
        const covering = tiles.filter(
          (tile) => tile.offset < range.start + range.length && tile.offset + tile.length > range.start,
        );
        expect(
          covering.every((tile) => tile.kind === "changed"),
          JSON.stringify(range),
        ).toBe(true);
      }
    }
    await expect(async () => tilesOf(reader.tilesAbove("/elsewhere"))).rejects.toThrow(RangeError);
  });

  it("reads only what is active of an image with internal snapshots, and says that they are there", async () => {
    using folder = temporaryFolder();
    const image = join(folder.path, "disk.qcow2");
    qemuImg("create", "-q", "-f", "qcow2", image, "8M");
    qemuIo(image, "qcow2", "write -P 1 0 2M");
    qemuImg("snapshot", "-c", "first", image);
    qemuIo(image, "qcow2", "write -P 2 1M 2M");
    qemuImg("snapshot", "-c", "second", image);
    qemuIo(image, "qcow2", "write -z 0 1M");
    await expectSame(image, asRaw(image, join(folder.path, "after.raw")), seed);
    await using reader = await openQcow2Reader(image);
    expect(reader.chain[0]!.snapshots).toBe(2);
    expect(await checkQcow2(image)).toMatchObject({ leaks: 0, corruptions: 0 });
  });

  it("reads an image with dirty bitmaps, whose clusters are accounted for", async () => {
    using folder = temporaryFolder();
    const image = join(folder.path, "disk.qcow2");
    qemuImg("create", "-q", "-f", "qcow2", image, "64M");
    qemuImg("bitmap", "--add", image, "changes");
    qemuIo(image, "qcow2", "write -P 1 1M 1M");
    await expectSame(image, asRaw(image, join(folder.path, "after.raw")), seed);
    expect(await checkQcow2(image)).toMatchObject({ leaks: 0, corruptions: 0 });
  });

  it("lists and reads disks beyond 2 TiB without walking through their emptiness", async () => {
    using folder = temporaryFolder();
    for (const options of ["cluster_size=64k", "cluster_size=2M", "extended_l2=on"]) {
      const image = join(folder.path, `${options}.qcow2`);
      qemuImg("create", "-q", "-f", "qcow2", "-o", options, image, "30T");
      qemuIo(image, "qcow2", "write -P 5 3298534883328 64k", "write -P 6 32985346736128 64k");
      await using reader = await openQcow2Reader(image);
      const changed = (await tilesOf(reader.tiles())).filter((tile) => tile.kind === "changed");
      expect(changed.map(({ offset }) => offset)).toEqual([3298534883328, 32985346736128]);
      const part = Buffer.alloc(128 * KIB);
      await reader.read(32985346736128, part);
      expect(part.subarray(0, 64 * KIB).equals(Buffer.alloc(64 * KIB, 6))).toBe(true);
      expect(part.subarray(64 * KIB).equals(Buffer.alloc(64 * KIB))).toBe(true);
    }
  });

  async function refusal(image: string): Promise<{ code: string; message: string }> {
    try {
      await using reader = await openQcow2Reader(image);
      throw new Error(`${image} of ${reader.size} bytes was opened`);
    } catch (error) {
      if (!isProviderError(error)) throw error;
      return { code: error.code, message: error.message };
    }
  }

  it("refuses by name what it cannot read", async () => {
    using folder = temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    qemuImg("create", "-q", "-f", "qcow2", "-o", `data_file=${at("outside.raw")}`, at("outside.qcow2"), "1M");
    expect(await refusal(at("outside.qcow2"))).toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringMatching(/external data file.*qemu-nbd/),
    });
    const luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    const encrypt = (): string =>
      qemuImg("create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o", luks, at("luks.qcow2"), "1M");
    // qemu times itself to choose its iterations, and gives up where the clock does not move meanwhile.
    for (let attempt = 1; ; attempt++) {
      try {
        encrypt();
        break;
      } catch (error) {
        if (attempt === 10 || !String(error).includes("accurate CPU usage")) throw error;
      }
    }
    expect(await refusal(at("luks.qcow2"))).toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringMatching(/encrypted \(LUKS\).*qemu-nbd/),
    });
    const patched = (name: string, patch: (bytes: Buffer) => void): string => {
      qemuImg("create", "-q", "-f", "qcow2", at(name), "1M");
      const bytes = fs.readFileSync(at(name));
      patch(bytes);
      fs.writeFileSync(at(name), bytes);
      return at(name);
    };
    const corrupt = patched("corrupt.qcow2", (bytes) => bytes.writeUInt8(2, 79));
    expect(await refusal(corrupt)).toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining("qemu-img check -r all"),
    });
    const future = patched("future.qcow2", (bytes) => {
      bytes.writeUInt8(0x80, 78);
      // qemu's table of names has room in its entries: call the first one by our bit.
      const table = bytes.indexOf(Buffer.from("6803f857", "hex")) + 8;
      bytes.writeUInt8(15, table + 1);
      bytes.fill(0, table + 2, table + 48).write("time travel", table + 2);
    });
    expect(await refusal(future)).toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringContaining('"time travel" (bit 15)'),
    });
    const aes = patched("aes.qcow2", (bytes) => bytes.writeUInt32BE(1, 32));
    expect((await refusal(aes)).message).toContain("AES");
    fs.writeFileSync(at("plain.raw"), Buffer.alloc(4096));
    expect(await refusal(at("plain.raw"))).toMatchObject({ code: "UNSUPPORTED" });
    expect(await refusal(at("missing.qcow2"))).toMatchObject({ code: "NOT_FOUND" });
    qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "b.qcow2", at("a.qcow2"), "1M");
    qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "a.qcow2", at("b.qcow2"), "1M");
    expect(await refusal(at("a.qcow2"))).toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining("comes back to"),
    });
    qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://localhost/x", at("net.qcow2"), "1M");
    expect(await refusal(at("net.qcow2"))).toMatchObject({ code: "UNSUPPORTED" });
    qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", "vmdk", "-b", "plain.raw", at("vmdk.qcow2"), "1M");
    expect(await refusal(at("vmdk.qcow2"))).toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringContaining('"vmdk"'),
    });
  });

  it("does not follow a backing file of unstated format to a third one", async () => {
    using folder = temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    fs.writeFileSync(at("secret"), Buffer.alloc(1024, 1));
    qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "secret", at("posing.raw"), "1M");
    qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "posing.raw", at("top.qcow2"), "1M");
    const bytes = fs.readFileSync(at("top.qcow2"));
    // Take the format away: its extension becomes one that nobody knows.
    bytes.writeUInt32BE(0x12345678, bytes.indexOf(Buffer.from("e2792aca", "hex")));
    fs.writeFileSync(at("top.qcow2"), bytes);
    expect(await refusal(at("top.qcow2"))).toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringContaining("not stated"),
    });
  });
});
