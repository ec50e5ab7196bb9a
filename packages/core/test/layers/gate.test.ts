import { describe, expect, test } from "vitest";
import { PauseGate, allOpen, gate } from "../../src/layers/gate.ts";
import { WindowGate } from "../../src/layers/window-gate.ts";
import { BackupWindow } from "../../src/layers/window.ts";
import { makeCall } from "./call.ts";
import { FakeClock, settle } from "./fake-clock.ts";

const night = BackupWindow.parse("22:00-06:00", { timeZone: "UTC" });
const hourMs = 3_600_000;

describe("PauseGate", () => {
  test("holds calls from pause to resume, and tells its listeners", async () => {
    const clock = new FakeClock();
    const pause = new PauseGate();
    const layer = gate([pause], { clock });
    const told: boolean[] = [];
    const stop = pause.listen((open) => void told.push(open));
    let ran = 0;
    const run = async (): Promise<void> => void ran++;
    await layer(makeCall(), run);
    pause.pause();
    pause.pause();
    const calls = [makeCall(), makeCall()];
    const held = Promise.all(calls.map((call) => layer(call, run)));
    await clock.advance(5000);
    expect(ran).toBe(1);
    expect(calls[0]?.heldSince).toBe(0);
    pause.resume();
    await held;
    expect(ran).toBe(3);
    expect(calls[1]).toMatchObject({ heldMs: 5000, heldSince: undefined });
    stop();
    pause.pause();
    expect(told).toEqual([false, true]);
  });

  test("does not interrupt a call that is under way", async () => {
    const pause = new PauseGate();
    const { promise, resolve } = Promise.withResolvers<void>();
    const running = gate([pause])(makeCall(), () => promise);
    pause.pause();
    resolve();
    await running;
  });

  test("an abort ends the wait with the signal's reason", async () => {
    const pause = new PauseGate();
    pause.pause();
    const controller = new AbortController();
    const judged = expect(gate([pause])(makeCall({ signal: controller.signal }), settle)).rejects.toThrow("enough");
    controller.abort(new Error("enough"));
    await judged;
    pause.resume();
  });
});

describe("WindowGate", () => {
  test("opens and closes with its window", async () => {
    const clock = new FakeClock("2026-11-20T21:30:00Z");
    using window = new WindowGate(night, { clock });
    const told: [boolean, string][] = [];
    window.listen((open) => void told.push([open, new Date(clock.date()).toISOString()]));
    expect(window.open).toBe(false);
    expect(new Date(window.nextChange).toISOString()).toBe("2026-11-20T22:00:00.000Z");
    const waiting = window.wait();
    await clock.finish(waiting);
    expect(clock.now()).toBe(hourMs / 2);
    await clock.advance(24 * hourMs);
    expect(told).toEqual([
      [true, "2026-11-20T22:00:00.000Z"],
      [false, "2026-11-21T06:00:00.000Z"],
      [true, "2026-11-21T22:00:00.000Z"],
    ]);
  });

  test("lets those who wait go when the window is changed or taken away", async () => {
    const clock = new FakeClock("2026-11-20T12:00:00Z");
    using window = new WindowGate(night, { clock });
    const first = window.wait();
    window.set(BackupWindow.parse("11:00-13:00", { timeZone: "UTC" }));
    await first;
    window.set(night);
    expect(window.open).toBe(false);
    const second = window.wait();
    window.set(undefined);
    await second;
    expect(window.nextChange).toBe(Number.POSITIVE_INFINITY);
    expect(clock.timers).toBe(0);
  });

  test("notices within a minute that the time of day was set", async () => {
    let jump = 0;
    const real = new FakeClock("2026-11-20T12:00:00Z");
    const clock = {
      now: () => real.now(),
      date: () => real.date() + jump,
      after: (delayMs: number, action: () => void) => real.after(delayMs, action),
    };
    using window = new WindowGate(night, { clock });
    let open = false;
    const waiting = window.wait().then(() => (open = true));
    await real.advance(1000);
    jump = 11 * hourMs;
    await real.advance(60_000);
    expect(open).toBe(true);
    await waiting;
  });

  test("keeps no timer when nobody waits or listens", async () => {
    const clock = new FakeClock("2026-11-20T12:00:00Z");
    const window = new WindowGate(night, { clock });
    expect(clock.timers).toBe(0);
    const controller = new AbortController();
    const judged = expect(window.wait({ signal: controller.signal })).rejects.toThrow("enough");
    expect(clock.timers).toBe(1);
    controller.abort(new Error("enough"));
    await judged;
    expect(clock.timers).toBe(0);
    const stop = window.listen(() => undefined);
    stop();
    stop();
    expect(clock.timers).toBe(0);
  });

  test("together with a pause lets nothing pass before both are open at once", async () => {
    const clock = new FakeClock("2026-11-20T21:00:00Z");
    using window = new WindowGate(night, { clock });
    const pause = new PauseGate();
    let open = false;
    const waiting = allOpen([pause, window]).then(() => (open = true));
    await clock.advance(hourMs / 2);
    pause.pause();
    await clock.advance(hourMs);
    expect(window.open).toBe(true);
    expect(open).toBe(false);
    pause.resume();
    await waiting;
    expect([pause.phase, window.phase]).toEqual(["paused", "waiting"]);
  });
});
