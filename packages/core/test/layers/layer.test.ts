import { describe, expect, test } from "vitest";
import { ProviderError } from "../../src/provider/error.ts";
import { codeOf, compose, describeBytes, describeCall, hold } from "../../src/layers/layer.ts";
import type { Layer } from "../../src/layers/layer.ts";
import { makeCall } from "./call.ts";
import { FakeClock } from "./fake-clock.ts";

describe("compose", () => {
  test("runs layers from the first to the last and back, around the call", async () => {
    const seen: string[] = [];
    const named =
      (name: string): Layer =>
      async (call, run) => {
        seen.push(`${name} in`);
        await run(call);
        seen.push(`${name} out`);
      };
    const layer = compose([named("a"), named("b"), named("c")]);
    await layer(makeCall(), async () => void seen.push("run"));
    expect(seen).toEqual(["a in", "b in", "c in", "run", "c out", "b out", "a out"]);
  });

  test("of no layers is the call itself", async () => {
    const call = makeCall();
    let got: unknown;
    await compose([])(call, async (given) => void (got = given));
    expect(got).toBe(call);
  });

  test("keeps calls that run at once apart", async () => {
    const layer = compose([(call, run) => run(call), async (call, run) => run(call), (call, run) => run(call)]);
    const seen = new Set<number>();
    await Promise.all(
      Array.from({ length: 50 }, (_, offset) =>
        layer(makeCall({ offset }), async (call) => {
          await Promise.resolve();
          seen.add((call.offset ?? 0) * 100 + offset);
        }),
      ),
    );
    expect([...seen]).toEqual(Array.from({ length: 50 }, (_, offset) => offset * 101));
  });

  test("passes on a rejection and a result that come late", async () => {
    const failure = new Error("late");
    const layer = compose([(call, run) => run(call), (call, run) => run(call)]);
    await expect(layer(makeCall(), () => Promise.reject(failure))).rejects.toBe(failure);
  });
});

test("holding a call back is charged neither to its deadline nor to its age", async () => {
  const clock = new FakeClock();
  const call = makeCall({ deadlineAt: 1000 });
  const { promise, resolve } = Promise.withResolvers<void>();
  const held = hold(call, clock, promise);
  await clock.advance(700);
  expect(call.heldSince).toBe(0);
  resolve();
  await held;
  expect(call).toMatchObject({ heldMs: 700, heldSince: undefined, deadlineAt: 1700 });
});

test("a call is described with what, where and whose", () => {
  expect(describeCall(makeCall({ disk: "2000" }))).toBe("reading 1 MiB at offset 4096 of source disk 2000");
  expect(describeCall(makeCall({ method: "flush", side: "target", offset: undefined, length: undefined }))).toBe(
    "flushing (target)",
  );
  expect([0, 512, 1536, 65536, 3 * 2 ** 30].map(describeBytes)).toEqual([
    "0 bytes",
    "512 bytes",
    "1536 bytes",
    "64 KiB",
    "3 GiB",
  ]);
});

test("a failure is counted by the code of a provider's error, also of another copy of core", () => {
  const foreign = Object.assign(new Error("x"), { code: "FENCED", [Symbol.for("diskferry.ProviderError")]: true });
  expect(codeOf(new ProviderError("AUTH", "x"))).toBe("AUTH");
  expect(codeOf(foreign)).toBe("FENCED");
  expect(codeOf(new DOMException("x", "AbortError"))).toBe("ABORTED");
  expect(codeOf("text")).toBe("UNEXPECTED");
});
