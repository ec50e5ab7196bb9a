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
  const rates = (): Record<string, number> =>
    Object.fromEntries(Object.entries(limits.report()).map(([name, { rate }]) => [name, rate]));
  const permits = [await limits.take("GetSnapshotBlock", "snap-1")];
  await clock.step(1000);
  permits.push(await limits.take("GetSnapshotBlock", "snap-2"));
  const before = rates();
  expect(Object.keys(before).sort()).toEqual([
    "GetSnapshotBlock",
    "GetSnapshotBlock snap-1",
    "GetSnapshotBlock snap-2",
  ]);
  permits[0]!.refused("snapshot");
  const slowed = rates();
  expect(slowed["GetSnapshotBlock snap-1"]).toBeLessThanOrEqual(before["GetSnapshotBlock snap-1"]! / 2);
  expect({ ...slowed, "GetSnapshotBlock snap-1": 0 }).toEqual({ ...before, "GetSnapshotBlock snap-1": 0 });
  permits[1]!.refused();
  const all = rates();
  expect(all["GetSnapshotBlock"]).toBeLessThanOrEqual(before["GetSnapshotBlock"]! / 2);
  expect({ ...all, GetSnapshotBlock: 0 }).toEqual({ ...slowed, GetSnapshotBlock: 0 });
});

/** Full at the start, and full again after a second. */
class Bucket {
  #tokens: number;
  #at = 0;
  readonly #quota: number;
  constructor(quota: number) {
    this.#quota = quota;
    this.#tokens = quota;
  }
  has(now: number): boolean {
    this.#tokens = Math.min(this.#quota, this.#tokens + ((now - this.#at) / 1000) * this.#quota);
    this.#at = now;
    return this.#tokens >= 1;
  }
  take(): void {
    this.#tokens--;
  }
}

/** What workers on several snapshots get from an account of 1000 calls a second, and from snapshots of their own quotas. */
async function loadAccount(
  clock: TestClock,
  limits: AccountLimits,
  quotas: Readonly<Record<string, number>>,
  seconds: number,
): Promise<Record<string, Outcome>> {
  const account = new Bucket(1000);
  const end = clock.now() + seconds * 1000;
  let running = 0;
  const outcomes: Record<string, Outcome> = {};
  const worker = async (id: string, outcome: Outcome, own: Bucket): Promise<void> => {
    running++;
    while (clock.now() < end) {
      const permit = await limits.take("GetSnapshotBlock", id);
      const now = clock.now();
      const scope = !own.has(now) ? "snapshot" : !account.has(now) ? "account" : undefined;
      if (scope === undefined) for (const bucket of [own, account]) bucket.take();
      await new Promise<void>((resolve) => clock.after(20, resolve));
      if (scope === undefined) {
        outcome.accepted++;
        permit.answered();
      } else {
        outcome.refused++;
        permit.refused(scope === "snapshot" ? scope : undefined);
      }
    }
    running--;
  };
  const all = Object.entries(quotas).flatMap(([id, quota]) => {
    const outcome = (outcomes[id] = { accepted: 0, refused: 0 });
    const own = new Bucket(quota);
    return Array.from({ length: 32 }, () => worker(id, outcome, own));
  });
  while (running > 0) await clock.step(clock.now() + 60_000);
  await Promise.all(all);
  return outcomes;
}

test("several snapshots under load use up one account's quota together, and each gets its share", async () => {
  const clock = new TestClock();
  const limits = new AccountLimits({ clock });
  const ids = ["snap-1", "snap-2", "snap-3", "snap-4"];
  const quotas = Object.fromEntries(ids.map((id) => [id, 1000]));
  const outcomes = Object.values(await loadAccount(clock, limits, quotas, 30));
  const accepted = outcomes.reduce((sum, each) => sum + each.accepted, 0);
  const refused = outcomes.reduce((sum, each) => sum + each.refused, 0);
  expect(accepted).toBeGreaterThan(0.95 * 30_000);
  expect(refused).toBeLessThan(0.05 * accepted);
  for (const [at, each] of outcomes.entries()) {
    expect(each.accepted, ids[at]).toBeGreaterThan((0.8 * accepted) / 4);
    expect(each.accepted, ids[at]).toBeLessThan((1.2 * accepted) / 4);
  }
  // It is the account's limiter that has learned of it, and none of the snapshots'.
  const report = limits.report();
  expect(report["GetSnapshotBlock"]?.learned).toBeGreaterThan(950);
  for (const id of ids) expect(report[`GetSnapshotBlock ${id}`]).toMatchObject({ throttled: 0 });
});

test("a snapshot with a small quota of its own takes its quota, and the others all that it leaves of the account's", async () => {
  const clock = new TestClock();
  const limits = new AccountLimits({ clock });
  const outcomes = await loadAccount(clock, limits, { slow: 100, "snap-1": 1000, "snap-2": 1000 }, 30);
  expect(outcomes["slow"]!.accepted).toBeGreaterThan(0.9 * 30 * 100);
  expect(outcomes["slow"]!.refused).toBeLessThan(0.1 * outcomes["slow"]!.accepted);
  const others = outcomes["snap-1"]!.accepted + outcomes["snap-2"]!.accepted;
  expect(others).toBeGreaterThan(0.95 * 30 * 900);
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
