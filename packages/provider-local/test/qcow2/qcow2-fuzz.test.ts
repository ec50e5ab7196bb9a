import fc from "fast-check";
import { isProviderError } from "@diskferry/core/provider";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { zstdFrameLength } from "../../src/qcow2/compression.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { LossyFiles } from "./lossy-files.ts";

async function* none(): AsyncGenerator<never> {}

const SIZE = 200 * 4096;

async function makeImage(compression: "zlib" | "zstd" | undefined, clusterSize: number): Promise<Uint8Array> {
  const files = new LossyFiles();
  await createQcow2({ path: "/base.qcow2", size: SIZE / 2, clusterSize, files });
  const backing = { path: "base.qcow2", format: "qcow2" as const };
  await createQcow2({ path: "/disk.qcow2", size: SIZE, clusterSize, compression, backing, files });
  await using writer = await openQcow2Writer("/disk.qcow2", { run: "one", compress: compression !== undefined, files });
  await writer.write(0, new Uint8Array(20 * 4096).fill(7));
  await writer.write(30 * 4096, randomBytes(10 * 4096, 1));
  await writer.zero(25 * 4096, 10 * 4096);
  await writer.write(150 * 4096, new Uint8Array(4096).fill(9));
  await writer.commit({ written: none() });
  return files.bytes("/disk.qcow2");
}

/** Bytes that no piece of memory exceeds, whatever an image of 60 KiB states: two of the largest clusters. */
const MOST_MEMORY = 4 << 20;

/** Bytes of the longest piece of memory that was asked for. */
let longest = 0;

/** Watches what every table and packed cluster, whose length an image states, is read into. */
function watchMemory(): void {
  for (const name of ["alloc", "allocUnsafe", "allocUnsafeSlow"] as const) {
    const real = Buffer[name].bind(Buffer);
    vi.spyOn(Buffer, name).mockImplementation((length: number) => {
      longest = Math.max(longest, length);
      return real(length);
    });
  }
}

/** Lets a ProviderError pass, and nothing else. */
async function tolerate(body: () => Promise<void>): Promise<boolean> {
  try {
    await body();
    return true;
  } catch (error) {
    if (isProviderError(error)) return false;
    throw error;
  }
}

/** Everything that looks at an image; each may refuse it, none may fail otherwise. Tells how many went through. */
async function exercise(bytes: Uint8Array): Promise<number> {
  const files = new LossyFiles();
  await createQcow2({ path: "/base.qcow2", size: SIZE / 2, clusterSize: 4096, files });
  files.put("/disk.qcow2", bytes);
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
  await judge(async () => {
    await using writer = await openQcow2Writer("/disk.qcow2", { run: "two", files });
    if (writer.size > 512) await writer.write(512, new Uint8Array(Math.min(writer.size - 512, 9 * 512)).fill(3));
    await writer.commit({ written: none() });
    const found = await checkQcow2("/disk.qcow2", { files });
    expect([found.leaks, found.corruptions], found.messages[0]).toEqual([0, 0]);
  });
  return passed;
}

const interesting = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.constantFrom(
    0n,
    1n,
    511n,
    512n,
    4096n,
    2n ** 31n,
    2n ** 32n,
    2n ** 53n,
    2n ** 56n - 512n,
    2n ** 62n,
    2n ** 63n,
    2n ** 64n - 1n,
  ),
  fc.nat({ max: 60 }).map((cluster) => BigInt(cluster * 4096)),
  fc.nat({ max: 60 }).map((cluster) => BigInt(cluster * 4096) + 2n ** 63n),
  fc.nat({ max: 200_000 }).map((offset) => BigInt(offset) + 2n ** 62n),
);

const change = fc.record({
  // Headers and tables are aimed at; the rest gets its share.
  at: fc.oneof(
    fc.nat({ max: 14 }).map((word) => word * 8),
    fc.nat({ max: 200 }),
    fc.nat({ max: 20 * 512 }).map((word) => word * 8),
  ),
  value: interesting,
  width: fc.constantFrom(1, 4, 8),
});

/** The latter two once made a count that never ended. */
const seeds = [seedOf(42), seedOf(202), seedOf(936_824_005)];

describe.each(seeds)("damaged qcow2 images, seed %i", (seed) => {
  beforeEach(() => {
    watchMemory();
    return () => vi.restoreAllMocks();
  });

  for (const [compression, clusterSize] of [
    [undefined, 4096],
    ["zlib", 4096],
    ["zstd", 512],
  ] as const) {
    it(`are refused or read, and nothing else happens: ${compression ?? "plain"}, clusters of ${clusterSize}`, async () => {
      const valid = await makeImage(compression, clusterSize);
      expect(await exercise(valid)).toBe(3);
      let refused = 0;
      await fc.assert(
        fc.asyncProperty(
          fc.array(change, { minLength: 1, maxLength: 4 }),
          fc.option(fc.nat({ max: valid.byteLength })),
          async (changes, cut) => {
            const bytes = Buffer.from(valid);
            for (const { at, value, width } of changes) {
              const place = at % (bytes.byteLength - 8);
              if (width === 8) bytes.writeBigUInt64BE(value, place);
              else if (width === 4) bytes.writeUInt32BE(Number(value & 0xffffffffn), place);
              else bytes[place] = Number(value & 0xffn);
            }
            if ((await exercise(cut === null ? bytes : bytes.subarray(0, cut))) < 3) refused++;
          },
        ),
        { seed, numRuns: 250 },
      );
      expect(refused).toBeGreaterThan(20);
      expect(longest).toBeLessThanOrEqual(MOST_MEMORY);
    });
  }

  it("are refused whatever bytes they are", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2048 }), async (tail) => {
        await exercise(Buffer.concat([Buffer.from("514649fb00000003", "hex"), tail]));
      }),
      { seed, numRuns: 200 },
    );
  });

  it("do not lead the zstd frame walk astray", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (tail) => {
        const frame = Buffer.concat([Buffer.from("28b52ffd", "hex"), tail]);
        try {
          expect(zstdFrameLength(frame)).toBeLessThanOrEqual(frame.byteLength);
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
        }
      }),
      { seed, numRuns: 1000 },
    );
  });
});

describe("damage that is told", () => {
  /** A sound image, changed. */
  async function damaged(change: (bytes: Buffer) => void): Promise<LossyFiles> {
    const files = new LossyFiles();
    await createQcow2({ path: "/base.qcow2", size: SIZE / 2, clusterSize: 4096, files });
    const bytes = Buffer.from(await makeImage(undefined, 4096));
    change(bytes);
    files.put("/disk.qcow2", bytes);
    return files;
  }

  it("a place far behind the end of the file, which nobody then counts up to", async () => {
    const files = await damaged((bytes) => {
      const l1 = Number(bytes.readBigUInt64BE(40));
      const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
      // Kept for it but never written: bit 0 of a standard cluster's entry.
      bytes.writeBigUInt64BE((1n << 63n) | (1n << 48n) | 1n, l2);
    });
    const found = await checkQcow2("/disk.qcow2", { files });
    expect(found.messages).toContain(`entry 0 of L2 table 0 names ${2 ** 48}, too far behind the end of the file`);
    await expect(openQcow2Writer("/disk.qcow2", { run: "two", files })).rejects.toMatchObject({ code: "CORRUPT" });
  });

  it("a refcount table of no clusters, and refcounts of another width than a commit leaves", async () => {
    const none = await damaged((bytes) => bytes.writeUInt32BE(0, 56));
    await expect(openQcow2Reader("/disk.qcow2", { files: none })).rejects.toMatchObject({ code: "CORRUPT" });
    const narrow = await damaged((bytes) => bytes.writeUInt32BE(0, 96));
    await expect(openQcow2Writer("/disk.qcow2", { run: "one", files: narrow })).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringMatching(/refcounts of 2\^0 bits/) as string,
    });
  });
});
