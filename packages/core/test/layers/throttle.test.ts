import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Limit, throttle } from "../../src/layers/throttle.ts";
import type { LimitOptions, Rates } from "../../src/layers/throttle.ts";
import { seedOf } from "../../../../test/seed.ts";
import { makeCall } from "./call.ts";
import { FakeClock, settle } from "./fake-clock.ts";

interface Passed {
  at: number;
  bytes: number;
  order: number;
}

/** Asks for every size at its time and tells when each got through. */
async function passing(
  limit: Limit,
  clock: FakeClock,
  asked: readonly { atMs: number; bytes: number }[],
): Promise<Passed[]> {
  const passed: Passed[] = [];
  const running: Promise<void>[] = [];
  for (const [order, { atMs, bytes }] of asked.entries()) {
    await clock.advance(atMs - clock.now());
    const turn = limit.take(bytes) ?? Promise.resolve();
    running.push(turn.then(() => void passed.push({ at: clock.now(), bytes, order })));
  }
  await clock.finish(Promise.all(running));
  return passed;
}

const asks = fc
  .array(fc.record({ gapMs: fc.integer({ min: 0, max: 400 }), bytes: fc.integer({ min: 0, max: 300_000 }) }), {
    minLength: 1,
    maxLength: 40,
  })
  .map((list) => {
    let atMs = 0;
    return list.map(({ gapMs, bytes }) => ({ atMs: (atMs += gapMs), bytes }));
  });

describe("Limit", () => {
  test("lets through in no span of time more than rate × time + the burst, or one request where that is larger", async () => {
    await fc.assert(
      fc.asyncProperty(
        asks,
        fc.integer({ min: 1000, max: 1_000_000 }),
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 0, max: 1000 }),
        async (asked, bytesPerSecond, callsPerSecond, burstMs) => {
          const clock = new FakeClock();
          const passed = await passing(new Limit({ bytesPerSecond, callsPerSecond, burstMs, clock }), clock, asked);
          expect(passed.map(({ order }) => order)).toEqual(asked.map((_, order) => order));
          const largest = Math.max(...asked.map(({ bytes }) => bytes));
          const byteBurst = Math.max((bytesPerSecond * burstMs) / 1000, largest);
          const callBurst = Math.max((callsPerSecond * burstMs) / 1000, 1);
          for (let first = 0; first < passed.length; first++) {
            let bytes = 0;
            for (let last = first; last < passed.length; last++) {
              bytes += passed[last]!.bytes;
              const seconds = (passed[last]!.at - passed[first]!.at) / 1000;
              expect(bytes).toBeLessThanOrEqual(bytesPerSecond * seconds + byteBurst + 1);
              expect(last - first + 1).toBeLessThanOrEqual(callsPerSecond * seconds + callBurst + 0.01);
            }
          }
        },
      ),
      { seed: seedOf(20261121), numRuns: 150 },
    );
  });

  test("is not slower than its rate while enough is asked for", async () => {
    const clock = new FakeClock();
    const asked = Array.from({ length: 100 }, () => ({ atMs: 0, bytes: 100_000 }));
    await passing(new Limit({ bytesPerSecond: 1_000_000, clock }), clock, asked);
    // 100 × 100 kB at 1 MB/s, of which the burst of 100 ms is free.
    expect(clock.now()).toBeCloseTo(9900, 3);
  });

  test("lets a request through that is larger than the burst, and has the next one pay for it", async () => {
    const clock = new FakeClock();
    const passed = await passing(new Limit({ bytesPerSecond: 1_000_000, burstMs: 100, clock }), clock, [
      { atMs: 0, bytes: 5_000_000 },
      { atMs: 0, bytes: 1 },
    ]);
    expect(passed.map(({ at }) => Math.round(at))).toEqual([0, 4900]);
  });

  test("a small request does not overtake a large one that came first", async () => {
    const clock = new FakeClock();
    const passed = await passing(new Limit({ bytesPerSecond: 1000, clock }), clock, [
      { atMs: 0, bytes: 100 },
      { atMs: 0, bytes: 10_000 },
      { atMs: 0, bytes: 0 },
    ]);
    expect(passed.map(({ order }) => order)).toEqual([0, 1, 2]);
  });

  test("puts a new rate in force for those who wait already", async () => {
    const clock = new FakeClock();
    const limit = new Limit({ bytesPerSecond: 1000, burstMs: 0, clock });
    await limit.take(1000);
    let through = false;
    const waiting = limit.take(1000)?.then(() => (through = true));
    await clock.advance(100);
    expect(through).toBe(false);
    limit.set({ bytesPerSecond: 900_000 });
    await clock.advance(1);
    expect(through).toBe(true);
    await waiting;
    expect(limit.rates).toEqual({ bytesPerSecond: 900_000, callsPerSecond: undefined });
    expect(clock.timers).toBe(0);
  });

  test("keeps within the sum of all rates that were in force, however they change", async () => {
    const rates = fc.record({ bytesPerSecond: fc.integer({ min: 1000, max: 500_000 }) });
    await fc.assert(
      fc.asyncProperty(fc.array(rates, { minLength: 2, maxLength: 8 }), async (list: Rates[]) => {
        const clock = new FakeClock();
        const limit = new Limit({ ...list[0], clock });
        let bytes = 0;
        const running = Array.from({ length: 200 }, async () => {
          await limit.take(5000);
          bytes += 5000;
        });
        let allowed = (list[0]!.bytesPerSecond! * 100) / 1000;
        for (const each of list) {
          limit.set(each);
          await clock.advance(300);
          allowed += each.bytesPerSecond! * 0.3;
          expect(bytes).toBeLessThanOrEqual(allowed + 5000);
        }
        limit.set({});
        await clock.finish(Promise.all(running));
        expect(bytes).toBe(1_000_000);
        expect(clock.timers).toBe(0);
      }),
      { seed: seedOf(20261121), numRuns: 50 },
    );
  });

  test("without rates holds nothing, and lifting them lets everyone go", async () => {
    const clock = new FakeClock();
    const limit = new Limit({ clock, burstMs: 0 });
    expect(limit.take(2 ** 50)).toBeUndefined();
    limit.set({ callsPerSecond: 1 });
    await limit.take(1);
    const waiting = Promise.all([limit.take(1), limit.take(1)]);
    expect(limit.waiting).toBe(2);
    limit.set({});
    await waiting;
    expect(limit.take(2 ** 50)).toBeUndefined();
  });

  test("an abort leaves the queue with the signal's reason, and lets the next one go", async () => {
    const clock = new FakeClock();
    const limit = new Limit({ bytesPerSecond: 1000, burstMs: 1000, clock });
    await limit.take(900);
    const controller = new AbortController();
    const large = limit.take(1000, { signal: controller.signal });
    const judged = expect(large).rejects.toThrow("enough");
    let through = false;
    const small = limit.take(50)?.then(() => (through = true));
    await settle();
    expect(through).toBe(false);
    controller.abort(new Error("enough"));
    await judged;
    await settle();
    expect(through).toBe(true);
    await small;
    expect(limit.waiting).toBe(0);
    expect(clock.timers).toBe(0);
  });

  test.each<[string, LimitOptions]>([
    ["0 bytes", { bytesPerSecond: 0 }],
    ["less than 0 calls", { callsPerSecond: -1 }],
    ["not a number", { bytesPerSecond: Number.NaN }],
    ["a burst below 0", { burstMs: -1 }],
  ])("refuses %s", (_, options) => {
    expect(() => new Limit(options)).toThrow(RangeError);
  });
});

describe("throttle", () => {
  test("charges reads and writes with their bytes and every call as one, and does not count the wait as the call's", async () => {
    const clock = new FakeClock();
    const limit = new Limit({ bytesPerSecond: 1048576, burstMs: 0, clock });
    const layer = throttle(limit, { clock });
    await layer(makeCall(), () => Promise.resolve());
    // Moves no data, so it passes although a MiB is owed.
    await layer(makeCall({ method: "zero" }), () => Promise.resolve());
    expect(clock.now()).toBe(0);
    const call = makeCall({ method: "write", deadlineAt: 500 });
    await clock.finish(layer(call, () => Promise.resolve()));
    expect(clock.now()).toBeCloseTo(1000, 3);
    expect(call.heldMs).toBeCloseTo(1000, 3);
    expect(call.deadlineAt).toBeCloseTo(1500, 3);
  });

  test("a call that is aborted while it waits is not run", async () => {
    const clock = new FakeClock();
    const limit = new Limit({ callsPerSecond: 1, clock });
    const layer = throttle(limit, { clock });
    await layer(makeCall(), () => Promise.resolve());
    const controller = new AbortController();
    let ran = false;
    const waiting = layer(makeCall({ signal: controller.signal }), async () => void (ran = true));
    const judged = expect(waiting).rejects.toThrow("enough");
    controller.abort(new Error("enough"));
    await judged;
    await clock.advance(5000);
    expect(ran).toBe(false);
  });
});
