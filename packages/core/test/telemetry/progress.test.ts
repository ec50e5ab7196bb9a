import { describe, expect, test } from "vitest";
import { listen } from "../../src/telemetry/channels.ts";
import { ProgressMeter } from "../../src/telemetry/progress.ts";
import type { ProgressReport } from "../../src/telemetry/progress.ts";
import { FakeClock, settle } from "../layers/fake-clock.ts";

const mib = 1048576;

function meterOf(options: { perSecond?: number; windowMs?: number } = {}): {
  clock: FakeClock;
  reports: ProgressReport[];
  meter: ProgressMeter;
} {
  const clock = new FakeClock();
  const reports: ProgressReport[] = [];
  const meter = new ProgressMeter({
    ...options,
    clock,
    job: "nightly",
    onProgress: (report) => void reports.push(report),
  });
  return { clock, reports, meter };
}

describe("ProgressMeter", () => {
  test("reports at most so many times a second, the latest state, and the end always", async () => {
    const { clock, reports, meter } = meterOf({ perSecond: 4 });
    const disk = meter.disk("sda", { totalBytes: 1000 * mib, phase: "copying" });
    for (let round = 0; round < 1000; round++) {
      disk.advance(mib);
      await clock.advance(5);
    }
    meter.finish();
    meter.finish();
    disk.advance(mib);
    await clock.advance(5000);
    expect(reports.length).toBeLessThanOrEqual(5 * 4 + 2);
    expect(reports.length).toBeGreaterThanOrEqual(5 * 4);
    expect(reports.filter(({ final }) => final)).toEqual([reports.at(-1)]);
    expect(reports.at(-1)).toMatchObject({ doneBytes: 1000 * mib, job: "nightly", phase: "copying", etaMs: 0 });
    expect(clock.timers).toBe(0);
  });

  test("shows what came too soon after a report although nothing follows", async () => {
    const { clock, reports, meter } = meterOf();
    const disk = meter.disk("sda", { totalBytes: 10 });
    disk.setPhase("committing");
    expect(reports.map(({ phase }) => phase)).toEqual(["snapshot"]);
    await clock.advance(250);
    expect(reports.map(({ phase }) => phase)).toEqual(["snapshot", "committing"]);
    meter.finish();
  });

  test("tells speed over the last seconds and the time that is left, per disk and for all", async () => {
    const { clock, meter } = meterOf({ windowMs: 10_000 });
    const fast = meter.disk("fast", { totalBytes: 1000 * mib, phase: "copying" });
    const slow = meter.disk("slow", { totalBytes: 100 * mib, phase: "copying" });
    expect(meter.report()).toMatchObject({ mibPerSecond: 0, etaMs: undefined });
    for (let second = 0; second < 30; second++) {
      fast.advance(second < 15 ? mib : 20 * mib);
      slow.advance(mib);
      await clock.advance(1000);
    }
    const { disks, ...all } = meter.report();
    // Within the one part in twenty that the window is cut into, at each of its ends.
    expect(Math.abs(disks[0]!.mibPerSecond - 20)).toBeLessThan(2);
    expect(Math.abs(disks[1]!.mibPerSecond - 1)).toBeLessThan(0.1);
    expect(Math.abs(all.mibPerSecond - 21)).toBeLessThan(2);
    expect(all).toMatchObject({ doneBytes: (15 + 300 + 30) * mib, totalBytes: 1100 * mib, elapsedMs: 30_000 });
    expect(disks[1]?.etaMs).toBeCloseTo(70_000, -4);
    // Nothing at all for longer than the window.
    await clock.advance(20_000);
    expect(meter.report()).toMatchObject({ mibPerSecond: 0, etaMs: undefined });
  });

  test("counts what an earlier run did as done, but not for the speed nor as moved", async () => {
    const { clock, meter } = meterOf();
    const disk = meter.disk("sda", { totalBytes: 100 * mib, doneBytes: 60 * mib, phase: "copying" });
    await clock.advance(1000);
    disk.advance(10 * mib, 2 * mib);
    const report = meter.report();
    expect(report).toMatchObject({ doneBytes: 70 * mib, movedBytes: 2 * mib });
    expect(report.mibPerSecond).toBeCloseTo(10, 5);
    expect(report.etaMs).toBeCloseTo(3000, 0);
  });

  test("is in the phase of its hindmost disk, unless told or held", () => {
    const { meter } = meterOf();
    const one = meter.disk("one");
    const other = meter.disk("other");
    one.setPhase("verifying");
    other.setPhase("copying");
    expect(meter.report().phase).toBe("copying");
    meter.setPhase("releasing");
    expect(meter.report().phase).toBe("releasing");
    meter.setHeld("paused");
    expect(meter.report()).toMatchObject({ phase: "paused", disks: [{ phase: "paused" }, { phase: "paused" }] });
    meter.setHeld(undefined);
    meter.setPhase(undefined);
    expect(meter.report()).toMatchObject({ phase: "copying", disks: [{ phase: "verifying" }, { phase: "copying" }] });
  });

  test("a pause does not slow the speed down that is shown after it", async () => {
    const { clock, meter } = meterOf();
    const disk = meter.disk("sda", { totalBytes: 100 * mib, phase: "copying" });
    const copy = async (): Promise<void> => {
      for (let round = 0; round < 20; round++) {
        await clock.advance(100);
        disk.advance(mib);
      }
    };
    await copy();
    meter.setHeld("waiting");
    expect(meter.report().etaMs).toBeUndefined();
    await clock.advance(5000);
    meter.setHeld(undefined);
    await copy();
    const { mibPerSecond, disks } = meter.report();
    expect([mibPerSecond, disks[0]?.mibPerSecond].map((speed) => speed?.toFixed(3))).toEqual(["10.000", "10.000"]);
  });

  test("tells the channel too, with or without a callback", async () => {
    const got: ProgressReport[] = [];
    const stop = listen("diskferry:progress-report", (report) => void got.push(report));
    using meter = new ProgressMeter({ clock: new FakeClock() });
    meter.disk("sda");
    meter.finish();
    stop();
    expect(got.map(({ final }) => final)).toEqual([false, true]);
    expect(JSON.parse(JSON.stringify(got[1]))).toMatchObject({ doneBytes: 0, phase: "snapshot" });
  });

  test("a callback that throws becomes one warning and stops nothing", async () => {
    const warnings: string[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning.message);
    process.on("warning", onWarning);
    const clock = new FakeClock();
    let calls = 0;
    const onProgress = (): void => {
      calls++;
      throw new Error("broken bar");
    };
    const meter = new ProgressMeter({ clock, onProgress });
    const disk = meter.disk("sda");
    await clock.advance(1000);
    disk.advance(1);
    meter.finish();
    await settle();
    process.off("warning", onWarning);
    expect(calls).toBe(3);
    expect(warnings).toEqual(["onProgress threw and is called on: Error: broken bar"]);
  });
});
