import { expect, test } from "vitest";
import type { Clock } from "../../src/limits/clock.ts";
import { AccountLimits, accountLimits } from "../../src/limits/account-limits.ts";
import { RateLimit } from "../../src/limits/rate-limit.ts";

/** A clock that stands still until it is told to go on. */
class TestClock implements Clock {
  #now = 0;
  #timers: { at: number; run: () => void }[] = [];
  now(): number {
    return this.#now;
  }
  after(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + ms, run };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((each) => each !== timer);
    };
  }
  /** Goes to the next timer, but no further than `end`, and lets what waited for it run. */
  async step(end: number): Promise<void> {
    const next = this.#timers.toSorted((a, b) => a.at - b.at)[0];
    this.#now = Math.min(end, next?.at ?? end);
    for (const timer of this.#timers.filter(({ at }) => at <= this.#now)) {
      this.#timers.splice(this.#timers.indexOf(timer), 1);
      timer.run();
    }
    for (let turn = 0; turn < 4; turn++) await Promise.resolve();
  }
}

interface Outcome {
  accepted: number;
  refused: number;
}

/** Workers that call a far side with a token bucket of one second, each again as soon as it was answered. */
async function load(
  clock: TestClock,
  limit: RateLimit,
  quotaAt: (ms: number) => number,
  seconds: number,
  workers = 64,
  latencyMs = 20,
): Promise<Outcome> {
  const end = clock.now() + seconds * 1000;
  const outcome = { accepted: 0, refused: 0 };
  let tokens = quotaAt(clock.now());
  let at = clock.now();
  let running = 0;
  const worker = async (): Promise<void> => {
    running++;
    while (clock.now() < end) {
      const permit = await limit.take();
      const now = clock.now();
      const quota = quotaAt(now);
      tokens = Math.min(quota, tokens + ((now - at) / 1000) * quota);
      at = now;
      const isAccepted = tokens >= 1;
      if (isAccepted) tokens--;
      await new Promise<void>((resolve) => clock.after(latencyMs, resolve));
      if (isAccepted) {
        outcome.accepted++;
        limit.answered(permit);
      } else {
        outcome.refused++;
        limit.refused(permit);
      }
    }
    running--;
  };
  const all = Array.from({ length: workers }, worker);
  while (running > 0) await clock.step(clock.now() + 60_000);
  await Promise.all(all);
  return outcome;
}

test("a quota nobody told of is found and used to more than 95 %, with few refusals", async () => {
  for (const quota of [50, 200, 1000]) {
    const clock = new TestClock();
    const limit = new RateLimit({ start: 250, floor: 10, clock });
    const { accepted, refused } = await load(clock, limit, () => quota, 60);
    expect(accepted, `of ${60 * quota} at ${quota}/s`).toBeGreaterThan(0.95 * 60 * quota);
    expect(refused, `of ${accepted} at ${quota}/s`).toBeLessThan(0.03 * accepted);
    expect(limit.report()).toMatchObject({ calls: accepted + refused, throttled: refused });
  }
});

test("a rate that is refused is cut once for all calls that were under way", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 100, floor: 1, clock });
  const permits = [await limit.take()];
  while (permits.length < 5) {
    const taken = limit.take();
    await clock.step(clock.now() + 1000);
    permits.push(await taken);
  }
  const before = limit.report().rate;
  limit.refused(permits[0]!);
  const cut = limit.report().rate;
  expect(cut).toBeLessThanOrEqual(before / 2);
  for (const permit of permits.slice(1)) limit.refused(permit);
  expect(limit.report()).toMatchObject({ rate: cut, throttled: 5 });
});

test.for([
  [200, 20],
  [200, 100],
  [1000, 20],
  [1000, 100],
])(
  "within ten seconds at %i/s nothing is left of what flows in, with answers after %i ms",
  async ([quota, latency]) => {
    const clock = new TestClock();
    const limit = new RateLimit({ start: 250, floor: 10, clock });
    const { accepted, refused } = await load(clock, limit, () => quota!, 10, 128, latency);
    // The bucket is full at the start and may be used up too.
    expect(accepted).toBeGreaterThan(0.97 * 11 * quota!);
    expect(refused).toBeLessThan(0.1 * accepted);
    expect(limit.report().learned).toBeGreaterThan(0.95 * quota!);
    expect(limit.report().learned).toBeLessThan(1.05 * quota!);
  },
);

test("when others take most of a quota, what is left is found", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 250, floor: 10, clock });
  await load(clock, limit, () => 1000, 20, 128);
  const { accepted, refused } = await load(clock, limit, () => 300, 20, 128);
  expect(accepted).toBeGreaterThan(0.9 * 20 * 300);
  expect(refused).toBeLessThan(0.15 * accepted);
});

test("a bucket that others keep empty is taken for no small quota", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 250, floor: 10, clock });
  await load(clock, limit, () => 400, 1);
  const { accepted } = await load(clock, limit, () => 200, 10, 128);
  expect(accepted).toBeGreaterThan(0.97 * 10 * 200);
});

test("without a quota the rate grows as far as the callers go", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 250, floor: 10, clock });
  const { accepted, refused } = await load(clock, limit, () => 1e9, 10, 100, 20);
  expect(refused).toBe(0);
  // 100 workers at 20 ms make 5000 calls per second.
  expect(accepted).toBeGreaterThan(0.85 * 50_000);
});

test("a quota that was raised is found again", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 250, floor: 10, clock });
  await load(clock, limit, () => 200, 20);
  const { accepted } = await load(clock, limit, () => 1000, 60);
  expect(accepted).toBeGreaterThan(0.7 * 60 * 1000);
  const settled = await load(clock, limit, () => 1000, 20);
  expect(settled.accepted).toBeGreaterThan(0.95 * 20 * 1000);
});

test("in a storm of refusals calls are held, and afterwards the rate comes back", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 250, floor: 10, clock });
  const storm = await load(clock, limit, () => 0, 120);
  expect(storm.accepted).toBe(0);
  // At the floor of 10/s without holding back these would be 1200.
  expect(storm.refused).toBeLessThan(600);
  const after = await load(clock, limit, () => 1000, 60);
  expect(after.accepted).toBeGreaterThan(0.6 * 60 * 1000);
});

test("a ceiling is never exceeded, whatever the far side would bear", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 250, floor: 10, ceiling: 40, clock });
  const { accepted } = await load(clock, limit, () => 1e9, 10);
  expect(accepted).toBeLessThanOrEqual(40 * 10 + 64 + 4);
});

test("waiters are served in order, and one that gives up leaves its place", async () => {
  const clock = new TestClock();
  const limit = new RateLimit({ start: 1, floor: 1, clock });
  await limit.take();
  const served: number[] = [];
  const controller = new AbortController();
  const waits = [1, 2, 3].map((number) =>
    limit.take(number === 2 ? controller.signal : undefined).then(() => served.push(number)),
  );
  const reason = new Error("enough");
  controller.abort(reason);
  await expect(waits[1]).rejects.toBe(reason);
  for (let turn = 0; turn < 3; turn++) await clock.step(clock.now() + 2000);
  expect(served).toEqual([1, 3]);
});

test("a snapshot's refusal slows that snapshot alone, and an account's all of them", async () => {
  const clock = new TestClock();
  const limits = new AccountLimits({ clock });
  const permit = await limits.take("GetSnapshotBlock", "snap-1");
  permit.refused("snapshot");
  const report = limits.report();
  expect(report["GetSnapshotBlock snap-1"]?.throttled).toBe(1);
  expect(report["GetSnapshotBlock"]?.throttled).toBe(0);
  await clock.step(1000);
  (await limits.take("GetSnapshotBlock", "snap-2")).refused();
  expect(limits.report()["GetSnapshotBlock"]?.throttled).toBe(1);
  expect(limits.report()["GetSnapshotBlock snap-2"]?.throttled).toBe(0);
});

test("limiters of snapshots are forgotten when there are many, those of accounts never", async () => {
  const limits = new AccountLimits({ clock: new TestClock() });
  for (let number = 0; number < 1200; number++) {
    const permit = limits.take("PutSnapshotBlock", `snap-${number}`, AbortSignal.abort(new Error("no")));
    await expect(permit).rejects.toThrow("no");
  }
  const names = Object.keys(limits.report());
  expect(names.length).toBeLessThanOrEqual(1000);
  expect(names).toContain("PutSnapshotBlock");
});

test("all connections of the process to one account and Region share their limiters", () => {
  const place = { account: "111111111111", region: "us-east-1" };
  expect(accountLimits(place)).toBe(accountLimits({ ...place }));
  expect(accountLimits({ ...place, region: "eu-west-1" })).not.toBe(accountLimits(place));
  expect(accountLimits({ ...place, account: "222222222222" })).not.toBe(accountLimits(place));
  expect(accountLimits({ ...place, endpoint: "http://127.0.0.1:1" })).not.toBe(accountLimits(place));
});

test("a disk's first run begins and completes both of its snapshots at once, and more wait their turn", async () => {
  const clock = new TestClock();
  const limits = new AccountLimits({ clock });
  for (const operation of ["StartSnapshot", "CompleteSnapshot"] as const) {
    let taken = 0;
    for (let call = 0; call < 3; call++) void limits.take(operation, undefined).then(() => taken++);
    for (let turn = 0; turn < 8; turn++) await Promise.resolve();
    expect(taken).toBe(2);
    const began = clock.now();
    while (taken < 3) await clock.step(began + 1000);
    expect(clock.now() - began).toBe(200);
  }
});
