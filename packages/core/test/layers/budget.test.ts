import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Budget } from "../../src/layers/budget.ts";
import type { Share } from "../../src/layers/budget.ts";
import { seedOf } from "../../../../test/seed.ts";
import { settle } from "./fake-clock.ts";

describe("Budget", () => {
  test("is never exceeded, serves in order and ends empty, whatever is asked, given back and aborted", async () => {
    const capacity = 100;
    const action = fc.oneof(
      fc.record({ kind: fc.constant("acquire" as const), amount: fc.integer({ min: 0, max: capacity }) }),
      fc.record({ kind: fc.constant("release" as const), index: fc.nat() }),
      fc.record({ kind: fc.constant("abort" as const), index: fc.nat() }),
      fc.record({ kind: fc.constant("release twice" as const), index: fc.nat() }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
        const budget = new Budget(capacity);
        const held: Share[] = [];
        const returned: Share[] = [];
        const waiting: { order: number; controller: AbortController }[] = [];
        const served: number[] = [];
        const running: Promise<void>[] = [];
        let order = 0;
        for (const each of actions) {
          if (each.kind === "acquire") {
            const own = { order: order++, controller: new AbortController() };
            waiting.push(own);
            const leave = (): void => void waiting.splice(waiting.indexOf(own), 1);
            running.push(
              budget.acquire(each.amount, { signal: own.controller.signal }).then(
                (share) => {
                  leave();
                  served.push(own.order);
                  held.push(share);
                },
                (error: unknown) => {
                  leave();
                  expect(error).toBe("gone");
                },
              ),
            );
          } else if (each.kind === "abort") {
            waiting[each.index % Math.max(1, waiting.length)]?.controller.abort("gone");
          } else if (each.kind === "release") {
            const [share] = held.splice(each.index % Math.max(1, held.length), 1);
            share?.[Symbol.dispose]();
            if (share !== undefined) returned.push(share);
          } else {
            returned[each.index % Math.max(1, returned.length)]?.[Symbol.dispose]();
          }
          await settle();
          const used = held.reduce((sum, { amount }) => sum + amount, 0);
          expect(budget.used).toBe(used);
          expect(used).toBeLessThanOrEqual(capacity);
          expect(budget.waiting).toBe(waiting.length);
        }
        while (held.length > 0) {
          held.shift()?.[Symbol.dispose]();
          await settle();
        }
        await Promise.all(running);
        expect(served).toEqual(served.toSorted((one, other) => one - other));
        expect(budget).toMatchObject({ used: 0, waiting: 0 });
      }),
      { seed: seedOf(20261121), numRuns: 100 },
    );
  });

  test("gives two disks that always want more the same share", async () => {
    const budget = new Budget(4);
    const got = { one: 0, other: 0 };
    const disk = async (name: "one" | "other"): Promise<void> => {
      for (let round = 0; round < 100; round++) {
        using share = await budget.acquire(3);
        got[name] += share.amount;
        expect(Math.abs(got.one - got.other)).toBeLessThanOrEqual(6);
        await settle();
      }
    };
    await Promise.all([disk("one"), disk("other")]);
    expect(got).toEqual({ one: 300, other: 300 });
  });

  test("a large request is not starved by small ones that keep coming", async () => {
    const budget = new Budget(10);
    const first = await budget.acquire(6);
    const large = budget.acquire(10);
    expect(budget.tryAcquire(1)).toBeUndefined();
    const small = budget.acquire(1);
    first[Symbol.dispose]();
    const share = await large;
    expect(budget.waiting).toBe(1);
    share[Symbol.dispose]();
    (await small)[Symbol.dispose]();
    expect(budget.used).toBe(0);
  });

  test("growing lets waiting ones go, shrinking takes nothing back", async () => {
    const budget = new Budget(10);
    const first = await budget.acquire(10);
    const second = budget.acquire(5);
    budget.resize(15);
    (await second)[Symbol.dispose]();
    budget.resize(5);
    expect(budget.used).toBe(10);
    expect(budget.tryAcquire(1)).toBeUndefined();
    first[Symbol.dispose]();
    expect(budget.tryAcquire(5)?.amount).toBe(5);
  });

  test("a request that waited when the budget shrank below it goes alone", async () => {
    const budget = new Budget(10);
    const first = await budget.acquire(1);
    const large = budget.acquire(10);
    budget.resize(2);
    first[Symbol.dispose]();
    expect((await large).amount).toBe(10);
  });

  test("refuses what could never be granted", async () => {
    const budget = new Budget(10);
    await expect(budget.acquire(11)).rejects.toThrow(RangeError);
    expect(() => budget.tryAcquire(Number.NaN)).toThrow(RangeError);
    expect(() => new Budget(0)).toThrow(RangeError);
    await expect(budget.acquire(1, { signal: AbortSignal.abort("gone") })).rejects.toBe("gone");
    expect(budget.used).toBe(0);
  });
});
