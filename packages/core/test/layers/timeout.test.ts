import { describe, expect, test } from "vitest";
import { oldBytesPerCall } from "../../../../test/old-space.ts";
import { compose } from "../../src/layers/layer.ts";
import type { Call, Run } from "../../src/layers/layer.ts";
import { retry } from "../../src/layers/retry.ts";
import { timeout } from "../../src/layers/timeout.ts";
import { watchdog } from "../../src/layers/watchdog.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { makeCall } from "./call.ts";
import { FakeClock, settle } from "./fake-clock.ts";

/** Ends when aborted, as a well-behaved call does. */
const obedient: Run = (call) =>
  new Promise((_resolve, reject) => {
    call.signal.addEventListener("abort", () => reject(call.signal.reason as Error), { once: true });
  });

describe("timeout", () => {
  test("leaves a call alone that answers in time, and nothing behind", async () => {
    const clock = new FakeClock();
    const call = makeCall();
    const { signal } = call;
    await timeout({ perAttemptMs: 1000, clock })(call, () => Promise.resolve());
    expect(clock.timers).toBe(0);
    expect(call.signal).toBe(signal);
    expect(call.unsettled).toBeUndefined();
  });

  test("aborts a call that takes too long, and rejects with UNAVAILABLE once it has let go", async () => {
    const clock = new FakeClock();
    const call = makeCall();
    const running = timeout({ perAttemptMs: 1000, clock })(call, obedient);
    await expect(clock.finish(running)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: true,
      message: "no answer for 1000 ms reading 1 MiB at offset 4096 (source)",
    });
    expect(clock.now()).toBe(1000);
    expect(call.unsettled).toBeUndefined();
    expect(clock.timers).toBe(0);
  });

  test("waits for a slow abort to settle before the buffer may be used again", async () => {
    const clock = new FakeClock();
    const own = new Error("closed");
    const run: Run = (call) =>
      new Promise((_resolve, reject) => {
        call.signal.addEventListener("abort", () => void clock.after(300, () => reject(own)), { once: true });
      });
    const call = makeCall();
    await expect(clock.finish(timeout({ perAttemptMs: 1000, graceMs: 500, clock })(call, run))).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: true,
      cause: own,
    });
    expect(clock.now()).toBe(1300);
    expect(call.unsettled).toBeUndefined();
  });

  test("takes an answer that comes while the abort is under way for what it is", async () => {
    const clock = new FakeClock();
    const run: Run = () => new Promise((resolve) => void clock.after(1200, resolve));
    await clock.finish(timeout({ perAttemptMs: 1000, graceMs: 500, clock })(makeCall(), run));
    expect(clock.now()).toBe(1200);
  });

  test("gives up a call that ignores its signal, not retryable, and tells when its buffer is free", async () => {
    const clock = new FakeClock();
    const late = Promise.withResolvers<void>();
    const call = makeCall();
    const running = timeout({ perAttemptMs: 1000, graceMs: 500, clock })(call, () => late.promise);
    await expect(clock.finish(running)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: false,
      message: expect.stringContaining("its connection counts as dead"),
    });
    expect(clock.now()).toBe(1500);
    let free = false;
    void call.unsettled?.then(() => (free = true));
    await settle();
    expect(call.unsettled).toBeDefined();
    expect(free).toBe(false);
    // The late failure is nobody's: it must neither be unhandled nor reject `unsettled`.
    late.reject(new Error("after all"));
    await settle();
    expect(free).toBe(true);
  });

  test("inside retry, a call that ignores its signal is not started a second time over the same buffer", async () => {
    const clock = new FakeClock();
    let started = 0;
    const layer = compose([retry({ clock }), timeout({ perAttemptMs: 1000, graceMs: 500, clock })]);
    const deaf: Run = () => {
      started++;
      return new Promise(() => undefined);
    };
    await expect(clock.finish(layer(makeCall(), deaf))).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(started).toBe(1);
  });

  test("inside retry, a hanging call that lets go is tried again", async () => {
    const clock = new FakeClock();
    const attempts: number[] = [];
    const layer = compose([retry({ clock, random: () => 0 }), timeout({ perAttemptMs: 1000, clock })]);
    await clock.finish(
      layer(makeCall(), (call) => {
        attempts.push(call.attempt);
        return call.attempt < 3 ? obedient(call) : Promise.resolve();
      }),
    );
    expect(attempts).toEqual([1, 2, 3]);
    expect(clock.now()).toBe(2000);
  });

  test("cuts the last attempt at the retry's deadline", async () => {
    const clock = new FakeClock();
    const layer = compose([retry({ clock, totalMs: 2500, random: () => 0 }), timeout({ perAttemptMs: 1000, clock })]);
    await expect(clock.finish(layer(makeCall(), obedient))).rejects.toThrow(/failed 3 times in 2\.5 s/);
    expect(clock.now()).toBe(2500);
  });

  test("an abort from outside reaches the call, and its own rejection comes out", async () => {
    const clock = new FakeClock();
    const controller = new AbortController();
    const reason = new Error("cancelled");
    const running = timeout({ perAttemptMs: 1000, clock })(makeCall({ signal: controller.signal }), obedient);
    const judged = expect(running).rejects.toBe(reason);
    await settle();
    controller.abort(reason);
    await judged;
    expect(clock.timers).toBe(0);
  });

  test("an abort from outside that the call ignores is bounded by the grace", async () => {
    const clock = new FakeClock();
    const controller = new AbortController();
    const reason = new Error("cancelled");
    const call = makeCall({ signal: controller.signal });
    const running = timeout({ perAttemptMs: 60_000, graceMs: 500, clock })(call, () => new Promise(() => undefined));
    const judged = expect(running).rejects.toBe(reason);
    await settle();
    controller.abort(reason);
    await clock.advance(500);
    await judged;
    expect(call.unsettled).toBeDefined();
  });

  test("does not start a call whose signal is aborted already", async () => {
    let started = false;
    const signal = AbortSignal.abort(new Error("cancelled"));
    const run: Run = async () => void (started = true);
    await expect(timeout({ perAttemptMs: 1000 })(makeCall({ signal }), run)).rejects.toThrow("cancelled");
    expect(started).toBe(false);
  });

  test("lets a flush take its time unless told otherwise", async () => {
    const clock = new FakeClock();
    const flush = (): Call => makeCall({ method: "flush", side: "target", offset: undefined, length: undefined });
    const slow: Run = (call) =>
      new Promise((resolve, reject) => {
        call.signal.addEventListener("abort", () => reject(call.signal.reason as Error), { once: true });
        clock.after(100_000, resolve);
      });
    await clock.finish(timeout({ perAttemptMs: 1000, clock })(flush(), slow));
    const bounded = timeout({ perAttemptMs: 1000, perMethodMs: { flush: 5000 }, clock });
    await expect(clock.finish(bounded(flush(), slow))).rejects.toMatchObject({
      message: "no answer for 5000 ms flushing (target)",
    });
  });

  test("keeps thousands of calls on one signal without a leak of listeners", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on("warning", onWarning);
    const { signal } = new AbortController();
    const layer = timeout({ perAttemptMs: 1000 });
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 200 }, () => layer(makeCall({ signal }), () => settle())));
    }
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });

  test("leaves nothing of a call in old memory, nor do the layers around it", async () => {
    const { signal } = new AbortController();
    const layer = compose([watchdog({ idleMs: 60_000 }), retry({}), timeout({ perAttemptMs: 60_000 })]);
    const run: Run = () => new Promise((resolve) => void setImmediate(resolve));
    expect(await oldBytesPerCall(() => layer(makeCall({ signal }), run))).toBeLessThan(200);
  });

  test("the error of the call itself comes out unchanged", async () => {
    const error = new ProviderError("DENIED", "no");
    await expect(timeout({ perAttemptMs: 1000 })(makeCall(), () => Promise.reject(error))).rejects.toBe(error);
  });
});
