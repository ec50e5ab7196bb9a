import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { cleanup } from "../../src/engine/cleanup.ts";
import { cutover, revertCutover } from "../../src/engine/cutover.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { calm, failing, KIB, MIB, scene } from "./scene.ts";

async function snapshotIds(place: ReturnType<typeof scene>["place"], job = "job"): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of place.source.owned(job)) ids.push(id);
  return ids;
}

describe("cleanup", () => {
  // Invariant 9.
  it("leaves alone what others made, what the record names and what a run goes on with, and says why", async () => {
    for (const style of ["in-place", "versioned"] as const) {
      const { place, job, expectEqual, store } = scene({ source: { tracker: { keepsBase: true } }, target: { style } });
      place.takeSnapshot("vm", "somebody's");
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      await replicate({ ...job(), id: "other" });
      await replicate(job());
      const volumes = place.volumeIds();
      const report = await cleanup(job());
      expect(place.volumeIds()).toEqual(volumes);
      expect(report.removed).toEqual([]);
      expect(report.kept.every(({ reason }) => reason.length > 10)).toBe(true);
      place.write("vm", "root", 0, randomBytes(64 * KIB, 2));
      failing(place, "writer.commit", () => new Error("killed"));
      await expect(replicate(job())).rejects.toThrow("killed");
      calm(place);
      await cleanup(job());
      const rest = await replicate(job());
      expect(rest).toMatchObject({ resumed: true, disks: [{ mode: "incremental" }] });
      expectEqual(rest);
      expect((await snapshotIds(place)).length).toBe(1);
      expect((await snapshotIds(place, "other")).length).toBe(1);
      expect(await store.get("jobs/other/state")).toBeDefined();
    }
  });

  it("keeps earlier recovery points", async () => {
    const { place, job } = scene({ target: { style: "versioned" } });
    for (let run = 0; run < 3; run++) {
      place.write("vm", "root", 0, randomBytes(64 * KIB, run));
      await replicate(job());
    }
    const { kept } = await cleanup(job());
    expect(kept.filter(({ reason }) => reason.includes("recovery point"))).toHaveLength(2);
    expect(place.volumeIds().filter((id) => id.startsWith("version"))).toHaveLength(3);
  });

  it("removes what a lost run left behind, whatever order the target lists it in", async () => {
    const { place, job } = scene({ target: { style: "versioned" } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate(job());
    await replicate(job());
    const report = await cleanup(job(), { includeReplicas: true });
    expect(report.kept).toEqual([]);
    expect(place.volumeIds()).toEqual([]);
    expect(await snapshotIds(place)).toEqual([]);
    // And the job begins anew.
    expect((await replicate(job())).disks[0]!.mode).toBe("full");
  });

  it("changes nothing when it only tells, and does not stop a worker that is copying", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate(job());
    const volumes = place.volumeIds();
    place.write("vm", "root", 0, randomBytes(MIB, 2));
    let told: Awaited<ReturnType<typeof cleanup>> | undefined;
    place.fault = async ({ method }) => {
      if (method !== "writer.write" || told !== undefined) return;
      place.fault = undefined;
      told = await cleanup(job(), { dryRun: true, includeReplicas: true });
    };
    expectEqual(await replicate(job()));
    expect(told!.removed.length).toBeGreaterThan(0);
    expect(place.volumeIds()).toEqual(volumes);
  });

  it("refuses to remove a replica that a machine runs on, before it removes anything", async () => {
    const { place, job } = scene({ source: { tracker: { keepsBase: true } } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await cutover(job());
    const snapshots = await snapshotIds(place);
    await expect(cleanup(job(), { includeReplicas: true })).rejects.toMatchObject({ code: "IN_USE" });
    expect(await snapshotIds(place)).toEqual(snapshots);
    await revertCutover(job());
    await cleanup(job(), { includeReplicas: true });
    expect(place.volumeIds()).toEqual([]);
  });
});
