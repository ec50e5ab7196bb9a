import { tracingChannel } from "node:diagnostics_channel";
import { describe, expect, test } from "vitest";
import { hasListeners, listen, publish, trace, traceCalls } from "../../src/telemetry/channels.ts";
import { makeCall } from "../layers/call.ts";

describe("channels", () => {
  test("make no message while nobody listens, and reach who does until it stops", () => {
    let made = 0;
    const message = (): { job: string; snapshot: string } => {
      made++;
      return { job: "nightly", snapshot: "snap-1" };
    };
    publish("diskferry:snapshot-release", message);
    expect([made, hasListeners("diskferry:snapshot-release")]).toEqual([0, false]);
    const got: unknown[] = [];
    const stop = listen("diskferry:snapshot-release", (each) => void got.push(each));
    publish("diskferry:snapshot-release", message);
    stop();
    publish("diskferry:snapshot-release", message);
    expect(got).toEqual([{ job: "nightly", snapshot: "snap-1" }]);
    expect(made).toBe(1);
  });
});

describe("tracing", () => {
  test("shows the attempts of calls on the channels of their methods, with start, end and error", async () => {
    const seen: string[] = [];
    const subscribers = (name: string) => ({
      start: (message: object) => void seen.push(`${name} start ${JSON.stringify(message)}`),
      asyncEnd: () => void seen.push(`${name} end`),
      error: (message: { error: unknown }) => void seen.push(`${name} ${(message.error as Error).message}`),
      end: () => undefined,
      asyncStart: () => undefined,
    });
    const names = ["diskferry:block-read", "diskferry:provider-call"];
    const stops = names.map((name) => {
      const own = subscribers(name);
      tracingChannel(name).subscribe(own);
      return () => tracingChannel(name).unsubscribe(own);
    });
    const layer = traceCalls({ run: "r1" });
    await layer(makeCall({ disk: "sda", attempt: 2 }), () => Promise.resolve());
    await expect(
      layer(makeCall({ method: "release", offset: undefined, length: undefined }), () =>
        Promise.reject(new Error("no")),
      ),
    ).rejects.toThrow("no");
    for (const stop of stops) stop();
    await layer(makeCall(), () => Promise.resolve());
    expect(seen).toEqual([
      'diskferry:block-read start {"run":"r1","disk":"sda","side":"source","method":"read","offset":4096,"length":1048576,"attempt":2}',
      "diskferry:block-read end",
      'diskferry:provider-call start {"run":"r1","side":"source","method":"release","attempt":1}',
      "diskferry:provider-call no",
      "diskferry:provider-call end",
    ]);
  });

  test("gives the operation's result back, listened to or not", async () => {
    const operation = (): Promise<number> => Promise.resolve(42);
    const make = (): { disk: string } => ({ disk: "sda" });
    expect(await trace("diskferry:disk-verify", make, operation)).toBe(42);
    const subscribers = { start() {}, end() {}, asyncStart() {}, asyncEnd() {}, error() {} };
    tracingChannel("diskferry:disk-verify").subscribe(subscribers);
    expect(await trace("diskferry:disk-verify", make, operation)).toBe(42);
    tracingChannel("diskferry:disk-verify").unsubscribe(subscribers);
  });
});
