import { describe, expect, it } from "vitest";
import { randomBytes, randomFrom } from "../../../../test/seed.ts";
import { audit } from "../../src/engine/audit.ts";
import { boundOf } from "../../src/engine/leaf-sample.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { beginRun } from "../../src/engine/transfer.ts";
import { KIB, MIB, scene, type Scene } from "./scene.ts";

const LEAVES = 256;

/** A replica of 256 leaves, of which the tracker missed a write to leaf 77. */
async function missed(): Promise<Scene> {
  const it = scene({ source: { tracker: { granularity: 64 * KIB } } }, { root: LEAVES * 64 * KIB });
  it.place.write("vm", "root", 0, randomBytes(LEAVES * 64 * KIB, 1));
  await replicate(it.job());
  it.place.write("vm", "root", 77 * 64 * KIB, randomBytes(512, 2));
  it.place.breakTracking("lie");
  return it;
}

describe("audit", () => {
  it("finds a write that the tracker missed, where every leaf is read", async () => {
    const { job, place } = await missed();
    const before = place.volumeBytes("volume-1").slice();
    const report = await audit(job());
    expect(report).toMatchObject({
      sound: false,
      disks: [
        { unchanged: LEAVES, sampled: LEAVES, missed: 1, missedAt: [{ offset: 77 * 64 * KIB, length: 64 * KIB }] },
      ],
    });
    expect(report.disks[0]!.bound).toBeUndefined();
    expect(Buffer.compare(before, place.volumeBytes("volume-1"))).toBe(0);
    const owned = [];
    for await (const { id } of place.source.owned("job")) owned.push(id);
    expect(owned).toEqual([]);
  });

  it("leaves no snapshot behind when it is given up", async () => {
    const { job, place } = await missed();
    const controller = new AbortController();
    place.fault = ({ method }) => {
      if (method === "reader.read") controller.abort(new Error("given up"));
    };
    await expect(audit(job(), { signal: controller.signal })).rejects.toThrow("given up");
    place.fault = undefined;
    const owned = [];
    for await (const { id } of place.source.owned("job")) owned.push(id);
    expect(owned).toEqual([]);
  });

  it("finds it about as often as its sample is large, and the sample never repeats a leaf", async () => {
    const { job } = await missed();
    const random = randomFrom(5);
    let found = 0;
    const rounds = 40;
    for (let round = 0; round < rounds; round++) {
      const report = await audit(job(), { samples: 64, random: (limit) => Math.floor(random() * limit) });
      expect(report.disks[0]!.sampled).toBe(64);
      found += report.disks[0]!.missed;
    }
    // One leaf of four: 10 of 40 expected; 1 or 25 would be chances below 0.0002 and 0.000002.
    expect(found).toBeGreaterThan(1);
    expect(found).toBeLessThan(25);
  });

  it("chooses every leaf equally often", async () => {
    const { job, place } = scene({ source: { tracker: { granularity: 64 * KIB } } }, { root: 16 * 64 * KIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate(job());
    const random = randomFrom(9);
    const hits = Array.from({ length: 16 }, () => 0);
    const rounds = 150;
    place.fault = ({ method, side, offset, length }) => {
      if (method !== "reader.read" || side !== "source") return;
      for (let at = offset!; at < offset! + length!; at += 64 * KIB) hits[at / (64 * KIB)]!++;
    };
    // Floyd's sampling: each of the last four positions or, in its stead, any before it.
    const limits: number[] = [];
    await audit(job(), { samples: 4, random: (limit) => limits.push(limit) - 1 });
    expect(limits).toEqual([13, 14, 15, 16]);
    hits.fill(0);
    for (let round = 0; round < rounds; round++)
      await audit(job(), { samples: 4, random: (limit) => Math.floor(random() * limit) });
    expect(hits.reduce((sum, count) => sum + count, 0)).toBe(4 * rounds);
    // Chi-squared with 15 degrees of freedom: above 44 has a chance of 0.0001.
    const expected = (4 * rounds) / 16;
    const chi = hits.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chi, hits.join(" ")).toBeLessThan(44);
  });

  it("states a bound that is 0 where all was read, and never too small else", async () => {
    const { job, place } = scene({ source: { tracker: { granularity: 64 * KIB } } }, { root: LEAVES * 64 * KIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate(job());
    expect((await audit(job())).disks[0]).toMatchObject({ bound: 0, confidence: 0.99 });
    const { bound, sampled } = (await audit(job(), { samples: 100, confidence: 0.95 })).disks[0]!;
    expect(bound).toBeCloseTo(1 - 0.05 ** (1 / sampled), 10);
    // Without replacement: the chance to miss every one of K changed leaves in n of N is the product below.
    for (const [population, drawn, confidence] of [
      [256, 64, 0.99],
      [1000, 10, 0.9],
      [50, 49, 0.999],
    ] as const) {
      const changed = Math.ceil(boundOf(population, drawn, confidence) * population);
      let chance = 1;
      for (let n = 0; n < drawn; n++) chance *= Math.max(0, population - changed - n) / (population - n);
      expect(chance).toBeLessThanOrEqual(1 - confidence + 1e-12);
    }
  });

  it("is refused while a run is under way, whose snapshot it could cost", async () => {
    const { job, record } = scene();
    await replicate(job());
    await beginRun(job());
    const calls = record();
    await expect(audit(job())).rejects.toMatchObject({ code: "IN_USE" });
    expect(calls).toEqual([]);
  });

  it("is refused without a tracker, without digests and without a checkpoint", async () => {
    const untracked = scene({ source: { tracker: false } });
    await replicate(untracked.job());
    await expect(audit(untracked.job())).rejects.toMatchObject({ code: "UNSUPPORTED" });
    const undigested = scene();
    await replicate(undigested.job({ digest: "none" }));
    await expect(audit(undigested.job())).rejects.toMatchObject({ code: "UNSUPPORTED" });
    const lost = scene();
    lost.place.breakTracking("no-checkpoint");
    await replicate(lost.job());
    await expect(audit(lost.job())).rejects.toMatchObject({ code: "TRACKING_LOST" });
  });
});
