import { describe, expect, test } from "vitest";
import { PauseGate, gate } from "../../src/layers/gate.ts";
import { compose } from "../../src/layers/layer.ts";
import type { Call, Run } from "../../src/layers/layer.ts";
import { Limit, throttle } from "../../src/layers/throttle.ts";
import { watchdog } from "../../src/layers/watchdog.ts";
import type { ProviderError } from "../../src/provider/error.ts";
import { makeCall } from "./call.ts";
import { FakeClock } from "./fake-clock.ts";

const forever: Run = (call) =>
  new Promise((_resolve, reject) => {
    call.signal.addEventListener("abort", () => reject(call.signal.reason as Error), { once: true });
  });

describe("watchdog", () => {
  test("ends all calls under way when none came to an end for too long, and names them", async () => {
    const clock = new FakeClock();
    const stalls: ProviderError[] = [];
    const layer = watchdog({ idleMs: 1000, clock, onStall: (error) => void stalls.push(error) });
    const calls = [0, 1, 2, 3, 4].map((index) => layer(makeCall({ offset: index * 1048576, disk: "sda" }), forever));
    const judged = Promise.all(
      calls.map((call) => expect(call).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: false })),
    );
    await clock.advance(999);
    expect(stalls).toEqual([]);
    await clock.advance(1);
    await judged;
    expect(stalls.map(({ message }) => message)).toEqual([
      "no progress for 1000 ms with 5 under way: reading 1 MiB at offset 0 of source disk sda, reading 1 MiB at offset 1048576 of source disk sda, reading 1 MiB at offset 2097152 of source disk sda, 2 more",
    ]);
    expect(clock.timers).toBe(0);
  });

  test("knows what is under way whatever order calls end in, and names the oldest", async () => {
    const clock = new FakeClock();
    const stalls: string[] = [];
    const layer = watchdog({ idleMs: 1000, clock, onStall: ({ message }) => void stalls.push(message) });
    const ends: (() => void)[] = [];
    const calls: Promise<void>[] = [];
    for (let index = 0; index < 8; index++) {
      const run = (call: Call): Promise<void> =>
        new Promise((resolve, reject) => {
          ends[index] = resolve;
          call.signal.addEventListener("abort", () => reject(call.signal.reason as Error), { once: true });
        });
      calls.push(layer(makeCall({ offset: index * 1048576 }), run));
      await clock.advance(1);
    }
    for (const index of [1, 7, 0, 4]) {
      ends[index]?.();
      await calls[index];
    }
    const judged = [2, 3, 5, 6].map((index) => expect(calls[index]).rejects.toMatchObject({ code: "UNAVAILABLE" }));
    await clock.advance(1000);
    await Promise.all(judged);
    expect(stalls).toEqual([
      "no progress for 1000 ms with 4 under way: reading 1 MiB at offset 2097152 (source), reading 1 MiB at offset 3145728 (source), reading 1 MiB at offset 5242880 (source), 1 more",
    ]);
    expect(clock.timers).toBe(0);
  });

  test("is content as long as any call comes to a good end", async () => {
    const clock = new FakeClock();
    const layer = watchdog({ idleMs: 1000, clock });
    const controller = new AbortController();
    const hanging = layer(makeCall({ signal: controller.signal }), forever);
    const judged = expect(hanging).rejects.toThrow("enough");
    for (let round = 0; round < 10; round++) {
      await clock.finish(layer(makeCall(), () => new Promise((resolve) => void clock.after(600, resolve))));
    }
    controller.abort(new Error("enough"));
    await judged;
    expect(clock.now()).toBe(6000);
  });

  test("does not take failures for progress", async () => {
    const clock = new FakeClock();
    const layer = watchdog({ idleMs: 1000, clock });
    const judged = expect(layer(makeCall(), forever)).rejects.toThrow("no progress for 1000 ms");
    for (let round = 0; round < 9; round++) {
      await clock.advance(100);
      await expect(layer(makeCall(), () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    }
    await clock.advance(100);
    await judged;
  });

  test("sleeps while nothing is under way, and does not count that time", async () => {
    const clock = new FakeClock();
    const layer = watchdog({ idleMs: 1000, clock });
    await layer(makeCall(), () => Promise.resolve());
    expect(clock.timers).toBe(0);
    await clock.advance(100_000);
    await clock.finish(layer(makeCall(), () => new Promise((resolve) => void clock.after(900, resolve))));
    expect(clock.timers).toBe(0);
  });

  test("never takes a call that a gate or limit holds for one that hangs", async () => {
    const clock = new FakeClock();
    const pause = new PauseGate();
    const limit = new Limit({ bytesPerSecond: 1048576 / 10, burstMs: 0, clock });
    const layer = compose([watchdog({ idleMs: 1000, clock }), gate([pause], { clock }), throttle(limit, { clock })]);
    pause.pause();
    const running = Promise.all([1, 2, 3].map(() => layer(makeCall(), () => Promise.resolve())));
    await clock.advance(50_000);
    pause.resume();
    await clock.finish(running);
    expect(clock.now()).toBeCloseTo(70_000, 3);
  });

  test("gives a call that was held its full time afterwards", async () => {
    const clock = new FakeClock();
    const pause = new PauseGate();
    const stalls: unknown[] = [];
    const onStall = (error: unknown): void => void stalls.push(error);
    const layer = compose([watchdog({ idleMs: 1000, clock, onStall }), gate([pause], { clock })]);
    pause.pause();
    const running = layer(makeCall(), () => new Promise((resolve) => void clock.after(900, resolve)));
    await clock.advance(500);
    pause.resume();
    await clock.finish(running);
    expect(clock.now()).toBe(1400);
    expect(stalls).toEqual([]);
  });

  test("still ends a call that hangs after it was held", async () => {
    const clock = new FakeClock();
    const pause = new PauseGate();
    const layer = compose([watchdog({ idleMs: 1000, clock }), gate([pause], { clock })]);
    pause.pause();
    const judged = expect(layer(makeCall(), forever)).rejects.toThrow("no progress");
    await clock.advance(50_000);
    pause.resume();
    await clock.advance(1000);
    await judged;
  });

  test("rejects a call that ignores its signal after the grace, and tells that its buffer is in use", async () => {
    const clock = new FakeClock();
    const call = makeCall({ method: "flush" });
    const layer = watchdog({ idleMs: 1000, graceMs: 200, clock });
    await expect(clock.finish(layer(call, () => new Promise(() => undefined)))).rejects.toThrow("no progress");
    expect(clock.now()).toBe(1200);
    expect(call.unsettled).toBeDefined();
    expect(clock.timers).toBe(0);
  });
});
