import { expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate, type RunReport } from "../../src/engine/replicate.ts";
import { calm, failing, KIB, MIB, scene } from "./scene.ts";

const full = 8 * MIB;

test("of a run tell what its tracker called changed, what was moved of that, and what a full copy would move", async () => {
  const it = scene({ source: { tracker: { granularity: 512 } } }, { root: 6 * MIB, data: 2 * MIB });
  it.place.write("vm", "root", 0, randomBytes(MIB, 1));
  const first = await replicate(it.job());
  expect(first.metrics?.efficiency).toEqual({ moved: MIB, changed: full, full, ratio: 1 / 8 });
  it.place.write("vm", "root", 3 * MIB, randomBytes(512, 2));
  it.place.write("vm", "data", 64 * KIB, randomBytes(1024, 3));
  const second = await replicate(it.job());
  expect(second.disks.map(({ mode, changed }) => [mode, changed])).toEqual([
    ["incremental", 512],
    ["incremental", 1024],
  ]);
  expect(second.metrics?.efficiency).toEqual({ moved: 1536, changed: 1536, full, ratio: 1536 / full });
  const rescan = await replicate(it.job({ mode: "rescan" }));
  expect(rescan.metrics?.efficiency).toEqual({ moved: 0, changed: full, full, ratio: 0 });
  for (const [earlier, report] of [
    [undefined, first],
    [first, second],
    [second, rescan],
  ] as const)
    expectTimes(report, earlier);
});

test("of a run that goes on after a kill tell of all that had changed", async () => {
  const it = scene({ source: { tracker: { granularity: 512 } } }, { root: full });
  await replicate(it.job());
  it.place.write("vm", "root", 3 * MIB, randomBytes(512, 2));
  for (const method of ["writer.flush", "writer.commit"]) {
    failing(it.place, method, () => new Error("killed"));
    await expect(replicate(it.job())).rejects.toThrow("killed");
    calm(it.place);
  }
  const report = await replicate(it.job());
  expect([report.resumed, report.metrics?.efficiency.changed]).toEqual([true, 512]);
  it.expectEqual(report);
});

/** Speed and lag agree with the run's own times and counts. */
function expectTimes(
  { metrics, startedAt, endedAt, disks, snapshot }: RunReport,
  earlier: RunReport | undefined,
): void {
  const { throughput, lag } = metrics!;
  expect(throughput.elapsedMs).toBe(Date.parse(endedAt) - Date.parse(startedAt));
  const seconds = throughput.elapsedMs / 1000;
  const sum = (of: "read" | "moved"): number => disks.reduce((total, disk) => total + disk[of], 0);
  if (seconds > 0) {
    expect(throughput.readGibPerSecond * seconds * 2 ** 30).toBeCloseTo(sum("read"), 3);
    expect(throughput.movedGibPerSecond * seconds * 2 ** 30).toBeCloseTo(sum("moved"), 3);
  }
  expect(lag.leastMs).toBeLessThanOrEqual(Date.parse(endedAt) - Date.parse(snapshot.takenAt));
  const waited = earlier && Date.parse(snapshot.takenAt) - Date.parse(earlier.snapshot.takenAt);
  expect(lag.mostMs).toBe(waited === undefined ? undefined : lag.leastMs + waited);
}
