import { expect, test } from "vitest";
import { NfcBudget } from "../../src/readers/nfc-budget.ts";

test("no more readers than allowed hold a host at once, and whoever waits is next in turn", async () => {
  const budget = new NfcBudget(2);
  const [first, second] = [await budget.take("host-1"), await budget.take("host-1")];
  const order: string[] = [];
  const third = budget.take("host-1").then((free) => (order.push("third"), free));
  const fourth = budget.take("host-1").then((free) => (order.push("fourth"), free));
  await budget.take("host-2");
  expect([budget.used("host-1"), budget.used("host-2"), order.length]).toEqual([2, 1, 0]);
  first();
  first();
  (await third)();
  second();
  (await fourth)();
  expect(order).toEqual(["third", "fourth"]);
  expect(budget.used("host-1")).toBe(0);
});

test("who gives up waiting takes no turn, and loses none", async () => {
  const budget = new NfcBudget(1);
  const free = await budget.take("host-1");
  const controller = new AbortController();
  const reason = new Error("enough");
  const waiting = budget.take("host-1", { signal: controller.signal });
  const next = budget.take("host-1");
  controller.abort(reason);
  free();
  await expect(waiting).rejects.toBe(reason);
  (await next)();
  expect(budget.used("host-1")).toBe(0);
});
