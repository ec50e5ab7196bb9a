import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LatencyHistogram } from "../../src/layers/histogram.ts";
import { compose } from "../../src/layers/layer.ts";
import { Metrics } from "../../src/layers/metrics.ts";
import { retry } from "../../src/layers/retry.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { seedOf } from "../../../../test/seed.ts";
import { makeCall } from "./call.ts";
import { FakeClock } from "./fake-clock.ts";

describe("LatencyHistogram", () => {
  test("gives quantiles that are never below the truth and at most 12.5 % above it", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.001, max: 4_000_000, noNaN: true }), { minLength: 1, maxLength: 200 }),
        (durations) => {
          const histogram = new LatencyHistogram();
          for (const duration of durations) histogram.record(duration);
          const sorted = durations.toSorted((one, other) => one - other);
          const { count, p50, p90, p99, max, mean } = histogram.summary();
          expect(count).toBe(durations.length);
          expect(max).toBe(sorted.at(-1));
          expect(mean).toBeCloseTo(durations.reduce((sum, each) => sum + each, 0) / durations.length, 3);
          for (const [share, found] of [
            [0.5, p50],
            [0.9, p90],
            [0.99, p99],
          ] as const) {
            const truth = sorted[Math.ceil(sorted.length * share) - 1]!;
            expect(found).toBeGreaterThanOrEqual(truth - 1e-9);
            // Durations are counted in whole microseconds, rounded up.
            expect(found).toBeLessThanOrEqual((truth + 0.001) * 1.125 + 1e-9);
          }
        },
      ),
      { seed: seedOf(20261121), numRuns: 300 },
    );
  });

  test("of nothing is all zero, and takes what is out of range", () => {
    const histogram = new LatencyHistogram();
    expect(histogram.summary()).toEqual({ count: 0, mean: 0, p50: 0, p90: 0, p99: 0, max: 0 });
    histogram.record(-1);
    histogram.record(0);
    histogram.record(1e12);
    expect(histogram.summary()).toMatchObject({ count: 3, max: 1e12, p50: 0 });
  });
});

describe("Metrics", () => {
  test("counts attempts, bytes, errors by code, retries and latency by side and method", async () => {
    const clock = new FakeClock();
    const metrics = new Metrics({ clock });
    const layer = compose([retry({ clock, random: () => 0 }), metrics.layer]);
    const take = (durationMs: number): Promise<void> => new Promise((resolve) => void clock.after(durationMs, resolve));
    await clock.finish(
      layer(makeCall({ length: 4 * 1048576 }), async (call) => {
        await take(1000);
        if (call.attempt < 3) throw new ProviderError("THROTTLED", "slow down");
      }),
    );
    await clock.finish(layer(makeCall({ length: 1048576 }), () => take(1000)));
    await expect(
      layer(makeCall({ method: "write", side: "target" }), () => Promise.reject(new Error("x"))),
    ).rejects.toThrow("x");
    const { elapsedMs, calls } = metrics.snapshot();
    expect(elapsedMs).toBe(4000);
    expect(calls).toEqual([
      {
        side: "source",
        method: "read",
        calls: 4,
        inFlight: 0,
        bytes: 5 * 1048576,
        errors: 2,
        errorsByCode: { THROTTLED: 2 },
        retries: 2,
        latency: { count: 2, mean: 1000, p50: 1000, p90: 1000, p99: 1000, max: 1000 },
        mibPerSecond: 1.25,
      },
      expect.objectContaining({
        side: "target",
        method: "write",
        bytes: 0,
        errorsByCode: { UNEXPECTED: 1 },
        mibPerSecond: 0,
      }),
    ]);
    expect(JSON.parse(JSON.stringify(calls))).toEqual(calls);
  });

  test("shows what is under way", async () => {
    const metrics = new Metrics();
    const { promise, resolve } = Promise.withResolvers<void>();
    const running = metrics.layer(makeCall(), () => promise);
    expect(metrics.snapshot().calls).toMatchObject([{ inFlight: 1, calls: 0 }]);
    resolve();
    await running;
    expect(metrics.snapshot().calls).toMatchObject([{ inFlight: 0, calls: 1 }]);
  });

  test("adds what was counted in another thread", async () => {
    const clock = new FakeClock();
    const metrics = new Metrics({ clock });
    await clock.advance(2000);
    const read = { side: "source", method: "read", elapsedMs: 2000 } as const;
    metrics.record({ ...read, bytes: 1048576, attempt: 1 });
    metrics.record({ ...read, bytes: 0, attempt: 2, code: "UNAVAILABLE" });
    expect(metrics.snapshot().calls).toMatchObject([
      { calls: 2, bytes: 1048576, errors: 1, retries: 1, mibPerSecond: 0.5, errorsByCode: { UNAVAILABLE: 1 } },
    ]);
  });
});
