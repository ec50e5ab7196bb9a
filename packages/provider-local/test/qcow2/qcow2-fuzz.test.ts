import * as fs from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seedsOf } from "../../../../test/seed.ts";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { zstdFrameLength } from "../../src/qcow2/compression.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { WINDOW_CLUSTERS } from "../../src/qcow2/references.ts";
import { Bounds } from "../../../../test/bounds.ts";
import { SIZE, damageOf, damaged, filesWith, makeImage } from "./image-damage.ts";
import type { LossyFiles } from "./lossy-files.ts";
import { temporaryFolder } from "./qemu.ts";
import { type WritePlan, expectNothingWorse, tolerate, writePlan } from "./writes-on-damage.ts";

async function* none(): AsyncGenerator<never> {}

/** Everything that looks at an image; each may refuse it, none may fail otherwise. Tells how many went through. */
async function exercise(bytes: Uint8Array, plan: WritePlan): Promise<number> {
  const files = await filesWith(bytes);
  let passed = 0;
  const judge = async (body: () => Promise<void>): Promise<void> => {
    if (await tolerate(body)) passed++;
  };
  await judge(async () => {
    await using reader = await openQcow2Reader("/disk.qcow2", { files });
    const part = new Uint8Array(Math.min(reader.size, SIZE));
    await tolerate(() => reader.read(0, part));
    await tolerate(() => reader.read(reader.size - part.byteLength, part));
    await tolerate(async () => {
      let end = 0;
      for await (const tile of reader.tiles()) {
        expect(tile.offset).toBe(end);
        end += tile.length;
      }
      expect(end).toBe(reader.size);
    });
    await tolerate(async () => {
      for await (const tile of reader.tilesAbove(1)) expect(tile.length).toBeGreaterThan(0);
    }).catch((error: unknown) => {
      // Without its backing file the chain has no layer 1.
      if (!(error instanceof RangeError)) throw error;
    });
  });
  await judge(async () => {
    await checkQcow2("/disk.qcow2", { files });
  });
  if (await expectNothingWorse(files, plan)) passed++;
  return passed;
}

const plain: WritePlan = {
  run: "two",
  compress: false,
  steps: [{ kind: "write", sector: 1, fromEnd: false, count: 9, fill: 3 }],
};

describe.each(seedsOf(42))("damaged qcow2 images, seed %i (DISKFERRY_SEED repeats it)", (seed) => {
  for (const [compression, clusterSize] of [
    [undefined, 4096],
    ["zlib", 4096],
    ["zstd", 512],
  ] as const) {
    it(`are refused or read, and nothing gets worse: ${compression ?? "plain"}, clusters of ${clusterSize}`, async () => {
      await using bounds = new Bounds(`damaged qcow2 images, seed ${seed}`);
      const valid = await makeImage(compression, clusterSize);
      expect(await exercise(valid, plain)).toBe(3);
      let refused = 0;
      await fc.assert(
        fc.asyncProperty(damageOf(valid, clusterSize), writePlan, (damage, plan) =>
          bounds.run(async () => {
            if ((await exercise(damaged(valid, damage), plan)) < 3) refused++;
          }),
        ),
        { seed, numRuns: 250 },
      );
      expect(refused).toBeGreaterThan(20);
    }, 180_000);
  }

  it("are refused whatever bytes they are", async () => {
    await using bounds = new Bounds(`arbitrary bytes, seed ${seed}`);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2048 }), writePlan, (tail, plan) =>
        bounds.run(async () => {
          await exercise(Buffer.concat([Buffer.from("514649fb00000003", "hex"), tail]), plan);
        }),
      ),
      { seed, numRuns: 200 },
    );
  });

  it("do not lead the zstd frame walk astray", async () => {
    await using bounds = new Bounds(`zstd frames, seed ${seed}`);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), (tail) =>
        bounds.run(() => {
          const frame = Buffer.concat([Buffer.from("28b52ffd", "hex"), tail]);
          try {
            expect(zstdFrameLength(frame)).toBeLessThanOrEqual(frame.byteLength);
          } catch (error) {
            if (!(error instanceof RangeError)) throw error;
          }
        }),
      ),
      { seed, numRuns: 1000 },
    );
  });
});

describe("damage that is told", () => {
  /** A sound image, changed. */
  async function changed(change: (bytes: Buffer) => void): Promise<LossyFiles> {
    const bytes = Buffer.from(await makeImage(undefined, 4096));
    change(bytes);
    return filesWith(bytes);
  }

  /** Where the first L2 table is. */
  function firstTable(bytes: Buffer): number {
    return Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0x00ff_ffff_ffff_fe00n);
  }

  const USED_ONCE = 1n << 63n;
  /** Of a standard cluster's entry: kept for it but never written. */
  const ZERO = 1n;

  it("a place far behind the end of the file, which nobody then counts up to", async () => {
    const files = await changed((bytes) => {
      bytes.writeBigUInt64BE(USED_ONCE | (1n << 48n) | ZERO, firstTable(bytes));
    });
    const found = await checkQcow2("/disk.qcow2", { files });
    expect(found.messages).toContain(`entry 0 of L2 table 0 names ${2 ** 48}, too far behind the end of the file`);
    await expect(openQcow2Writer("/disk.qcow2", { run: "two", files })).rejects.toMatchObject({ code: "CORRUPT" });
  });

  it("clusters that went with the end of the file: nothing new takes their place", async () => {
    const whole = await makeImage(undefined, 4096);
    const cut = whole.subarray(0, whole.byteLength - 4096);
    const files = await filesWith(cut);
    const found = await checkQcow2("/disk.qcow2", { files });
    expect(found.messages[0]).toMatch(/beyond the end of the file/);
    await expect(openQcow2Writer("/disk.qcow2", { run: "two", files })).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringMatching(/beyond the end of the file/) as string,
    });
    expect(Buffer.compare(files.bytes("/disk.qcow2"), cut)).toBe(0);
  });

  it.each([0, 1, 100])("one cluster kept for two, %i behind the end of the file", async (behind) => {
    const files = await changed((bytes) => {
      const host = BigInt(bytes.byteLength + behind * 4096);
      for (const slot of [0, 1]) bytes.writeBigUInt64BE(USED_ONCE | host | ZERO, firstTable(bytes) + slot * 8);
    });
    const found = await checkQcow2("/disk.qcow2", { files });
    expect(found.messages).toContainEqual(
      expect.stringMatching(/^entry 1 of L2 table 0 .*which something else names too$/),
    );
    await expect(openQcow2Writer("/disk.qcow2", { run: "two", files })).rejects.toMatchObject({ code: "CORRUPT" });
  });

  it("a cluster kept alone behind the end of the file, which is no damage and stays nobody else's", async () => {
    const files = await changed((bytes) => {
      const table = firstTable(bytes);
      bytes.writeBigUInt64BE(USED_ONCE | BigInt(bytes.byteLength + 100 * 4096) | ZERO, table);
    });
    expect((await checkQcow2("/disk.qcow2", { files })).messages).not.toContainEqual(expect.stringMatching(/entry/));
    const steps: WritePlan["steps"] = [
      { kind: "write", sector: 400, fromEnd: false, count: 40, fill: 1 },
      { kind: "write", sector: 4, fromEnd: false, count: 1, fill: 2 },
    ];
    expect(await expectNothingWorse(files, { run: "two", compress: false, steps })).toBe(true);
    expect(await checkQcow2("/disk.qcow2", { files })).toMatchObject({ leaks: 0, corruptions: 0 });
  });

  it("a cluster named twice, however far back in a large file", async () => {
    using folder = temporaryFolder();
    const image = join(folder.path, "disk.qcow2");
    await createQcow2({ path: image, size: 64 * 512, clusterSize: 512 });
    {
      await using writer = await openQcow2Writer(image, { run: "one" });
      await writer.write(0, new Uint8Array(512).fill(1));
      await writer.commit({ written: none() });
    }
    const bytes = fs.readFileSync(image);
    const host = (WINDOW_CLUSTERS + 10) * 512;
    for (const slot of [1, 2]) bytes.writeBigUInt64BE(USED_ONCE | BigInt(host), firstTable(bytes) + slot * 8);
    fs.writeFileSync(image, bytes);
    fs.truncateSync(image, host + 512);
    const message = `entry 2 of L2 table 0 names the cluster at ${host}, which something else names too`;
    expect((await checkQcow2(image)).messages).toContain(message);
    await expect(openQcow2Writer(image, { run: "two" })).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining(message) as string,
    });
  });

  it("refcounts that are wrong, which a write in place leaves and one that allocates mends", async () => {
    const files = await changed((bytes) => {
      // Of the header, which is in use and now counted never, and of the cluster behind it, now too often.
      const block = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))));
      bytes.writeUInt16BE(0, block);
      bytes.writeUInt16BE(3, block + 2);
    });
    const before = await checkQcow2("/disk.qcow2", { files });
    expect(before).toMatchObject({ leaks: 1, corruptions: 1 });
    expect(await expectNothingWorse(files, plain)).toBe(true);
    expect(await checkQcow2("/disk.qcow2", { files })).toEqual(before);
    const steps: WritePlan["steps"] = [{ kind: "write", sector: 800, fromEnd: false, count: 9, fill: 3 }];
    expect(await expectNothingWorse(files, { ...plain, steps })).toBe(true);
    expect(await checkQcow2("/disk.qcow2", { files })).toMatchObject({ leaks: 0, corruptions: 0 });
  });

  it("a snapshot whose table would be longer than the file, which nobody then makes room for", async () => {
    await using bounds = new Bounds("a snapshot's table");
    const files = await changed((bytes) => {
      // One snapshot in the last cluster: its L1 table at cluster 1, of 2^21 entries.
      const at = bytes.byteLength - 4096;
      bytes.writeUInt32BE(1, 60);
      bytes.writeBigUInt64BE(BigInt(at), 64);
      bytes.fill(0, at);
      bytes.writeBigUInt64BE(4096n, at);
      bytes.writeUInt32BE(2 ** 21, at + 8);
    });
    await bounds.run(async () => {
      const { messages } = await checkQcow2("/disk.qcow2", { files });
      expect(messages).toContainEqual(expect.stringMatching(/^internal snapshot 0 .*beyond the end of the file$/));
    });
  });

  it.each(["one", "two"] as const)("features that a write would make stale, cleared by run %s", async (run) => {
    const files = await changed((bytes) => bytes.writeBigUInt64BE(1n << 40n, 88));
    expect(await expectNothingWorse(files, { ...plain, run })).toBe(true);
    expect(Buffer.from(files.bytes("/disk.qcow2")).readBigUInt64BE(88)).toBe(0n);
  });

  it("a refcount table of no clusters, and refcounts of another width than a commit leaves", async () => {
    const none = await changed((bytes) => bytes.writeUInt32BE(0, 56));
    await expect(openQcow2Reader("/disk.qcow2", { files: none })).rejects.toMatchObject({ code: "CORRUPT" });
    const narrow = await changed((bytes) => bytes.writeUInt32BE(0, 96));
    await expect(openQcow2Writer("/disk.qcow2", { run: "one", files: narrow })).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringMatching(/refcounts of 2\^0 bits/) as string,
    });
  });
});
