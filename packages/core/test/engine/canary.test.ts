import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { LeafBitmap } from "../../src/manifest/bitmap.ts";
import { chooseLeaves, seededRandom } from "../../src/engine/leaf-sample.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import type { TrackingLostPolicy } from "../../src/engine/job.ts";
import { beginRun, transferSlice } from "../../src/engine/transfer.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { calm, failing, KIB, MIB, scene, type Scene } from "./scene.ts";

const LEAF = 64 * KIB;
const LEAVES = 64;
const ALL = { canary: LEAVES };

/** A replica, then a write that the tracker reports and one, to leaf 40, that it keeps to itself. */
async function lying(): Promise<Scene> {
  const it = scene({ source: { tracker: { granularity: LEAF } } }, { root: LEAVES * LEAF });
  it.place.write("vm", "root", 0, randomBytes(LEAVES * LEAF, 1));
  await replicate(it.job());
  it.place.write("vm", "root", 3 * LEAF, randomBytes(512, 2));
  it.place.write("vm", "root", 40 * LEAF, randomBytes(512, 3));
  // The listing begins: unchanged, leaf 3, unchanged, leaf 40. It tells the truth of the first two tiles.
  it.place.breakTracking("lie", { tiles: 2 });
  return it;
}

describe("a canary", () => {
  it("is not let out unless it is asked for, and without it a missed write goes unseen", async () => {
    const { job, place, expectEqual } = await lying();
    const report = await replicate(job());
    expect(report.disks[0]!.canary).toBeUndefined();
    expect(report.fallbacks).toEqual([]);
    expect(() => expectEqual(report)).toThrow(/differ, first at/);
    expect(place.volumeIds()).toHaveLength(1);
  });

  for (const policy of ["rescan", "full"] as const) {
    it(`that finds a missed write has the whole disk compared in the same run (${policy}), and says so`, async () => {
      const { job, place, expectEqual, notices } = await lying();
      const report = await replicate(job({ ...ALL, onTrackingLost: policy }));
      expectEqual(report);
      expect(report.disks[0]!.canary).toMatchObject({ missed: 1, missedAt: [{ offset: 40 * LEAF, length: LEAF }] });
      expect(report.disks[0]!.canary!.bound).toBeUndefined();
      expect(report.fallbacks).toMatchObject([{ disk: "root", from: "incremental", to: policy }]);
      expect(report.fallbacks[0]!.reason).toMatch(
        /called unchanged what had changed: 1 of 63 .*first at offset 2621440/,
      );
      expect(notices.join("\n")).toMatch(/incremental → (rescan|full): the tracker called unchanged/);
      expect(report.disks[0]).toMatchObject({ mode: policy, checkpoint: false });
      if (policy === "rescan") expect(report.disks[0]!.moved).toBeLessThanOrEqual(2 * LEAF);
      else expect(report.disks[0]!.moved).toBeGreaterThan((LEAVES - 2) * LEAF);

      // Its word is worth nothing until it is begun anew: the next run compares all, the one after it is incremental.
      place.mendTracking();
      place.write("vm", "root", 9 * LEAF, randomBytes(512, 4));
      const calls: string[] = [];
      place.fault = ({ method }) => void calls.push(method);
      const next = await replicate(job(ALL));
      place.fault = undefined;
      expect(calls.indexOf("tracker.reset")).toBeGreaterThanOrEqual(0);
      expect(calls.indexOf("tracker.reset")).toBeLessThan(calls.indexOf("snapshot"));
      expectEqual(next);
      expect(next.disks[0]).toMatchObject({ mode: "rescan", checkpoint: true });
      expect(next.fallbacks[0]!.reason).toMatch(/the last run found that the tracker missed writes/);
      place.write("vm", "root", 10 * LEAF, randomBytes(512, 5));
      const last = await replicate(job(ALL));
      expectEqual(last);
      expect(last.disks[0]).toMatchObject({
        mode: "incremental",
        canary: { missed: 0, bound: 0, unchanged: LEAVES - 1 },
      });
    });
  }

  it("stops a job that is told to stop, which then is never believed again without a rescan", async () => {
    const { job, place, store, expectEqual } = await lying();
    const before = (await status(store, "job")).record!.run;
    const strict = { onTrackingLost: "fail" as TrackingLostPolicy };
    await expect(replicate(job({ ...ALL, ...strict }))).rejects.toMatchObject({ code: "TRACKING_LOST" });
    expect((await status(store, "job")).record!.run).toBe(before);
    // Taking the canary away does not make the tracker's word good.
    await expect(replicate(job(strict))).rejects.toThrow(/an earlier attempt of this run found/);
    const report = await replicate(job());
    expectEqual(report);
    expect(report).toMatchObject({ resumed: true, disks: [{ mode: "rescan", checkpoint: false }] });
    expect(place.volumeIds()).toHaveLength(1);
  });

  it("that found a missed write is not forgotten by a run that is killed in the rescan", async () => {
    const { job, place, notices, expectEqual } = await lying();
    place.fault = ({ method, side }) => {
      const inRescan = notices.some((line) => line.includes("called unchanged"));
      if (inRescan && method === "reader.read" && side === "source") throw new Error("killed");
    };
    await expect(replicate(job(ALL))).rejects.toThrow("killed");
    calm(place);
    const report = await replicate(job());
    expect(report).toMatchObject({ resumed: true, disks: [{ mode: "rescan", checkpoint: false }] });
    expect(report.fallbacks[0]!.reason).toMatch(/called unchanged what had changed/);
    expectEqual(report);
  });

  it("is let out by whoever ends a run that was copied in slices", async () => {
    const { job, expectEqual } = await lying();
    const ticket = await beginRun(job(ALL));
    await transferSlice(job(ALL), ticket, { disk: "root", range: { offset: 0, length: (LEAVES / 2) * LEAF } });
    const report = await replicate(job(ALL));
    expectEqual(report);
    expect(report.disks[0]).toMatchObject({ mode: "rescan", canary: { missed: 1 } });
  });

  it("reads no more than its sample from the run's own snapshot, and states a bound", async () => {
    const { job, place } = scene({ source: { tracker: { granularity: LEAF } } }, { root: LEAVES * LEAF });
    place.write("vm", "root", 0, randomBytes(LEAVES * LEAF, 1));
    await replicate(job());
    place.write("vm", "root", 7 * LEAF, randomBytes(512, 2));
    const read: number[] = [];
    place.fault = ({ method, side, length, offset }) => {
      if (method === "reader.read" && side === "source")
        for (let at = 0; at < length!; at += LEAF) read.push(offset! + at);
    };
    let snapshots = 0;
    place.answer = ({ method }) => void (method === "snapshot" && snapshots++);
    const report = await replicate(job({ canary: 5 }));
    calm(place);
    expect(snapshots).toBe(1);
    expect(read).toHaveLength(6);
    const { canary } = report.disks[0]!;
    expect(canary).toMatchObject({ unchanged: LEAVES - 1, sampled: 5, missed: 0, missedAt: [] });
    expect(canary!.bound).toBeCloseTo(1 - 0.01 ** (1 / 5), 10);
    expect(canary!.seed).toBe(`${report.run}/root`);
    expect(report.disks[0]!.checkpoint).toBe(true);
    // The same seed chooses the same leaves.
    const unchanged = new LeafBitmap(LEAVES);
    unchanged.set(0, LEAVES);
    unchanged.clear(7);
    const again = [...chooseLeaves(unchanged, 5, seededRandom(canary!.seed)).runs()];
    const leaves = again.flatMap(({ leaf, count }) =>
      Array.from({ length: count }, (_, index) => (leaf + index) * LEAF),
    );
    expect([7 * LEAF, ...leaves].sort((one, other) => one - other)).toEqual(read.sort((one, other) => one - other));
  });

  it("does not go out in full copies and rescans, which ask no tracker", async () => {
    const { job, place } = scene({}, { root: MIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    expect((await replicate(job(ALL))).disks[0]!.canary).toBeUndefined();
    expect((await replicate(job({ ...ALL, mode: "rescan" }))).disks[0]!.canary).toBeUndefined();
  });

  it("is told where a tracker cannot be begun anew, and the next run compares all", async () => {
    const { job, place, notices, expectEqual } = await lying();
    await replicate(job(ALL));
    place.mendTracking();
    failing(place, "tracker.reset", () => new ProviderError("DENIED", "not allowed"));
    const report = await replicate(job(ALL));
    calm(place);
    expect(notices.join("\n")).toMatch(/could not be begun anew \(not allowed\); see that it is mended/);
    expect(report.disks[0]!.mode).toBe("rescan");
    expectEqual(report);
  });

  it("is refused where there is nothing to compare with, or for what is no number", async () => {
    const { job } = scene();
    await expect(replicate(job({ canary: 1, digest: "none" }))).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    for (const canary of [-1, 0.5, Number.NaN]) {
      await expect(replicate(job({ canary }))).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    }
  });

  it("chooses by a seed as evenly as by chance", () => {
    const random = seededRandom("42");
    const hits = Array.from({ length: 10 }, () => 0);
    for (let round = 0; round < 5000; round++) hits[random(10)]!++;
    // Chi-squared with 9 degrees of freedom: above 34 has a chance of 0.0001.
    expect(
      hits.reduce((sum, count) => sum + (count - 500) ** 2 / 500, 0),
      hits.join(" "),
    ).toBeLessThan(34);
  });
});
