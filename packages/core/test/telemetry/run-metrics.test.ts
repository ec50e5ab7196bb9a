import { expect, test } from "vitest";
import { measureRun } from "../../src/telemetry/run-metrics.ts";

const facts = {
  startedAt: "2026-11-21T01:00:00Z",
  endedAt: "2026-11-21T01:00:10Z",
  takenAt: "2026-11-21T01:00:01Z",
  durableAt: "2026-11-21T01:00:09Z",
  readBytes: 20 * 2 ** 30,
  movedBytes: 10 * 2 ** 30,
  changedBytes: 20 * 2 ** 30,
  fullBytes: 100 * 2 ** 30,
};

test("a run's metrics are its throughput, the lag from change to durable, and what it saved", () => {
  const metrics = measureRun({ ...facts, previousTakenAt: "2026-11-21T00:00:00Z" });
  expect(metrics).toEqual({
    throughput: { elapsedMs: 10_000, readGibPerSecond: 2, movedGibPerSecond: 1 },
    lag: { leastMs: 8000, mostMs: 3_609_000 },
    efficiency: { moved: 10 * 2 ** 30, changed: 20 * 2 ** 30, full: 100 * 2 ** 30, ratio: 0.1 },
  });
  expect(JSON.parse(JSON.stringify(metrics))).toEqual(metrics);
});

test("a first run has no worst case, and an instant one no speed", () => {
  const metrics = measureRun({ ...facts, endedAt: facts.startedAt, fullBytes: 0 });
  expect(metrics.lag).toEqual({ leastMs: 8000, mostMs: undefined });
  expect(metrics.throughput).toEqual({ elapsedMs: 0, readGibPerSecond: 0, movedGibPerSecond: 0 });
  expect(metrics.efficiency.ratio).toBe(0);
});

test("clocks that were set back in between do not give negative times", () => {
  const metrics = measureRun({ ...facts, durableAt: "2026-11-21T00:00:00Z", endedAt: "2026-11-21T00:00:00Z" });
  expect([metrics.lag.leastMs, metrics.throughput.elapsedMs]).toEqual([0, 0]);
});

test("a time that is none is the caller's mistake", () => {
  expect(() => measureRun({ ...facts, takenAt: "yesterday" })).toThrow(RangeError);
});
