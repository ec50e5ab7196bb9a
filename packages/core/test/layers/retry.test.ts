import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProviderError } from "../../src/provider/error.ts";
import { retry } from "../../src/layers/retry.ts";
import type { RetryOptions } from "../../src/layers/retry.ts";
import type { Call, Run } from "../../src/layers/layer.ts";
import { seedOf } from "../../../../test/seed.ts";
import { makeCall } from "./call.ts";
import { FakeClock } from "./fake-clock.ts";

const unavailable = (options = {}): ProviderError => new ProviderError("UNAVAILABLE", "the server is away", options);

/** A run that fails as often as told and then succeeds; its attempts' numbers and times are kept. */
function failing(times: number, error: unknown, clock: FakeClock): { run: Run; attempts: [number, number][] } {
  const attempts: [number, number][] = [];
  const run = async (call: Call): Promise<void> => {
    attempts.push([call.attempt, clock.now()]);
    if (attempts.length <= times) throw error;
  };
  return { run, attempts };
}

describe("retry", () => {
  test("repeats a retryable failure until it succeeds, and numbers the attempts", async () => {
    const clock = new FakeClock();
    const { run, attempts } = failing(3, unavailable(), clock);
    await clock.finish(retry({ clock, random: () => 0.5 })(makeCall(), run));
    expect(attempts).toEqual([
      [1, 0],
      [2, 100],
      [3, 300],
      [4, 700],
    ]);
    expect(clock.timers).toBe(0);
  });

  test("keeps every wait under its bound and the attempts within number and deadline, whatever the options", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          attempts: fc.integer({ min: 1, max: 12 }),
          baseMs: fc.integer({ min: 0, max: 1000 }),
          maxMs: fc.integer({ min: 0, max: 5000 }),
          totalMs: fc.integer({ min: 0, max: 20_000 }),
        }),
        fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { minLength: 12, maxLength: 12 }),
        async (options, randoms) => {
          const clock = new FakeClock();
          const { run, attempts } = failing(100, unavailable(), clock);
          let index = 0;
          const layer = retry({ ...options, clock, random: () => randoms[index++ % randoms.length]! });
          await expect(clock.finish(layer(makeCall(), run))).rejects.toMatchObject({ code: "UNAVAILABLE" });
          expect(attempts.length).toBeGreaterThanOrEqual(1);
          expect(attempts.length).toBeLessThanOrEqual(options.attempts);
          for (let n = 1; n < attempts.length; n++) {
            const waited = attempts[n]![1] - attempts[n - 1]![1];
            expect(waited).toBeLessThanOrEqual(Math.min(options.maxMs, options.baseMs * 2 ** (n - 1)) + 1e-6);
            expect(attempts[n]![1]).toBeLessThanOrEqual(options.totalMs);
          }
        },
      ),
      { seed: seedOf(20261121), numRuns: 100 },
    );
  });

  test("waits at least as long as the far side asks, also beyond maxMs", async () => {
    const clock = new FakeClock();
    const { run, attempts } = failing(1, new ProviderError("THROTTLED", "slow down", { retryAfterMs: 30_000 }), clock);
    await clock.finish(retry({ clock, maxMs: 1000, random: () => 0 })(makeCall(), run));
    expect(attempts[1]).toEqual([2, 30_000]);
  });

  test("gives up at once when the far side asks to wait beyond the deadline", async () => {
    const clock = new FakeClock();
    const error = new ProviderError("THROTTLED", "slow down", { retryAfterMs: 30_000 });
    const { run, attempts } = failing(1, error, clock);
    await expect(retry({ clock, totalMs: 10_000 })(makeCall(), run)).rejects.toBe(error);
    expect(attempts).toHaveLength(1);
    expect(clock.timers).toBe(0);
  });

  test("tells at the end how often it tried, with the last error as cause", async () => {
    const clock = new FakeClock();
    const error = unavailable({ provider: "local", operation: "nbd read" });
    const { run } = failing(9, error, clock);
    await expect(
      clock.finish(retry({ clock, attempts: 3, random: () => 0.999 })(makeCall(), run)),
    ).rejects.toMatchObject({
      code: "UNAVAILABLE",
      provider: "local",
      operation: "nbd read",
      cause: error,
      message: expect.stringMatching(
        /^reading 1 MiB at offset 4096 \(source\) failed 3 times in 0\.6 s, at last with: the server is away$/,
      ),
    });
  });

  test.each([
    ["an unexpected error", new TypeError("bug")],
    ["a provider's error that is not retryable", new ProviderError("NOT_FOUND", "gone")],
    ["a foreign error that calls itself retryable", Object.assign(new Error("sdk"), { retryable: true })],
    ["a value that is no error", "text"],
  ])("does not repeat %s", async (_, error) => {
    const clock = new FakeClock();
    const { run, attempts } = failing(1, error, clock);
    await expect(retry({ clock })(makeCall(), run)).rejects.toBe(error);
    expect(attempts).toHaveLength(1);
  });

  test.each(["flush", "commit"] as const)("never repeats %s", async (method) => {
    const clock = new FakeClock();
    const error = unavailable();
    const { run, attempts } = failing(1, error, clock);
    await expect(retry({ clock })(makeCall({ method, side: "target" }), run)).rejects.toBe(error);
    expect(attempts).toHaveLength(1);
  });

  test("does not repeat a method that is excepted, as a read of an ascending reader", async () => {
    const clock = new FakeClock();
    const { run, attempts } = failing(1, unavailable(), clock);
    await expect(retry({ clock, except: ["read"] })(makeCall(), run)).rejects.toThrow("away");
    expect(attempts).toHaveLength(1);
  });

  test("does not repeat a call whose buffer the far side still holds", async () => {
    const clock = new FakeClock();
    let attempts = 0;
    const run: Run = (call) => {
      attempts++;
      call.unsettled = new Promise(() => undefined);
      return Promise.reject(unavailable());
    };
    await expect(retry({ clock })(makeCall(), run)).rejects.toThrow("away");
    expect(attempts).toBe(1);
  });

  test("an abort ends the wait between attempts with the signal's reason", async () => {
    const clock = new FakeClock();
    const controller = new AbortController();
    const { run, attempts } = failing(9, unavailable(), clock);
    const running = retry({ clock, random: () => 0.9 })(makeCall({ signal: controller.signal }), run);
    const judged = expect(running).rejects.toThrow("enough");
    await clock.advance(10);
    controller.abort(new Error("enough"));
    await judged;
    expect(attempts).toHaveLength(1);
    expect(clock.timers).toBe(0);
  });

  test("does not count time in which a gate held the call", async () => {
    const clock = new FakeClock();
    let attempts = 0;
    const run: Run = async (call) => {
      attempts++;
      if (attempts === 1) {
        await new Promise<void>((resolve) => void clock.after(50_000, resolve));
        call.deadlineAt! += 50_000;
        throw unavailable();
      }
    };
    await clock.finish(retry({ clock, totalMs: 10_000 })(makeCall(), run));
    expect(attempts).toBe(2);
  });

  test("tells of every repetition before it waits", async () => {
    const clock = new FakeClock();
    const told: [string, number][] = [];
    const { run } = failing(2, unavailable(), clock);
    const onRetry: RetryOptions["onRetry"] = (_call, error, delayMs) => void told.push([error.code, delayMs]);
    await clock.finish(retry({ clock, random: () => 0.25, onRetry })(makeCall(), run));
    expect(told).toEqual([
      ["UNAVAILABLE", 50],
      ["UNAVAILABLE", 100],
    ]);
  });

  test("refuses options that cannot be meant", () => {
    expect(() => retry({ attempts: 0 })).toThrow(RangeError);
    expect(() => retry({ baseMs: -1 })).toThrow(RangeError);
    expect(() => retry({ totalMs: Number.NaN })).toThrow(RangeError);
  });
});
