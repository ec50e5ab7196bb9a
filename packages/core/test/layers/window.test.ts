import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BackupWindow } from "../../src/layers/window.ts";
import { seedOf } from "../../../../test/seed.ts";

const berlin = { timeZone: "Europe/Berlin" };
const newYork = { timeZone: "America/New_York" };
const at = (text: string): number => Date.parse(text);
const iso = (time: number): string => new Date(time).toISOString();

describe("BackupWindow", () => {
  test("that crosses midnight is open from its evening to its morning", () => {
    const window = BackupWindow.parse("22:00-06:00", berlin);
    expect(window.isOpen(at("2026-07-01T19:59:59.999Z"))).toBe(false);
    expect(window.isOpen(at("2026-07-01T20:00:00Z"))).toBe(true);
    expect(window.isOpen(at("2026-07-02T03:59:59.999Z"))).toBe(true);
    expect(window.isOpen(at("2026-07-02T04:00:00Z"))).toBe(false);
    expect(iso(window.nextOpen(at("2026-07-01T12:00:00Z")))).toBe("2026-07-01T20:00:00.000Z");
    expect(iso(window.nextClose(at("2026-07-01T21:00:00Z")))).toBe("2026-07-02T04:00:00.000Z");
    expect(window.nextOpen(at("2026-07-01T21:00:00Z"))).toBe(at("2026-07-01T21:00:00Z"));
  });

  test("with weekdays opens on those days, and stays open over midnight into others", () => {
    const window = BackupWindow.parse("Mon-Fri 22:00-06:00", { timeZone: "UTC" });
    // 2026-11-20 is a Friday.
    expect(window.isOpen(at("2026-11-20T23:00:00Z"))).toBe(true);
    expect(window.isOpen(at("2026-11-21T05:00:00Z"))).toBe(true);
    expect(window.isOpen(at("2026-11-21T23:00:00Z"))).toBe(false);
    expect(window.isOpen(at("2026-11-23T05:00:00Z"))).toBe(false);
    expect(iso(window.nextOpen(at("2026-11-21T07:00:00Z")))).toBe("2026-11-23T22:00:00.000Z");
  });

  test("may have several parts, days in lists and ranges over the weekend, and a whole day", () => {
    const window = BackupWindow.parse("Mon, Wed 01:00-02:00; Fri-Sun 00:00-24:00", { timeZone: "UTC" });
    const open = ["2026-11-23T01:30", "2026-11-25T01:00", "2026-11-20T00:00", "2026-11-21T12:00", "2026-11-22T23:59"];
    const closed = ["2026-11-23T02:00", "2026-11-24T01:30", "2026-11-26T12:00", "2026-11-23T00:00"];
    for (const time of open) expect([time, window.isOpen(at(`${time}:00Z`))]).toEqual([time, true]);
    for (const time of closed) expect([time, window.isOpen(at(`${time}:00Z`))]).toEqual([time, false]);
    expect(iso(window.nextClose(at("2026-11-20T10:00:00Z")))).toBe("2026-11-23T00:00:00.000Z");
  });

  test("that is always open never closes", () => {
    const window = BackupWindow.parse("00:00-12:00, 12:00-24:00", berlin);
    expect(window.nextClose(at("2026-03-29T00:30:00Z"))).toBe(Number.POSITIVE_INFINITY);
  });

  test("lasts an hour less or more on the nights when clocks change", () => {
    const hours = (zone: { timeZone: string }, evening: string): number => {
      const window = BackupWindow.parse("22:00-06:00", zone);
      const opens = window.nextOpen(at(evening));
      return (window.nextClose(opens) - opens) / 3_600_000;
    };
    expect(hours(berlin, "2026-03-27T12:00:00Z")).toBe(8);
    expect(hours(berlin, "2026-03-28T12:00:00Z")).toBe(7);
    expect(hours(berlin, "2026-10-24T12:00:00Z")).toBe(9);
    expect(hours(newYork, "2026-03-07T12:00:00Z")).toBe(7);
    expect(hours(newYork, "2026-10-31T12:00:00Z")).toBe(9);
  });

  test("that begins in the skipped hour opens when the clocks have gone forward", () => {
    // Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC. New York, 8 March 2026: at 07:00 UTC.
    const window = BackupWindow.parse("02:30-04:00", berlin);
    expect(iso(window.nextOpen(at("2026-03-28T23:00:00Z")))).toBe("2026-03-29T01:00:00.000Z");
    expect(iso(window.nextClose(at("2026-03-29T01:00:00Z")))).toBe("2026-03-29T02:00:00.000Z");
    const american = BackupWindow.parse("02:30-04:00", newYork);
    expect(iso(american.nextOpen(at("2026-03-08T06:00:00Z")))).toBe("2026-03-08T07:00:00.000Z");
  });

  test("that lies in the skipped hour is left out that day", () => {
    const daily = BackupWindow.parse("02:00-02:45", berlin);
    expect(iso(daily.nextOpen(at("2026-03-28T12:00:00Z")))).toBe("2026-03-30T00:00:00.000Z");
    const weekly = BackupWindow.parse("Sun 02:00-03:00", berlin);
    expect(iso(weekly.nextOpen(at("2026-03-22T12:00:00Z")))).toBe("2026-04-05T00:00:00.000Z");
  });

  test("that ends in the hour that comes twice closes, and opens for the second time", () => {
    // Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC.
    const window = BackupWindow.parse("01:00-02:30", berlin);
    const opens = window.nextOpen(at("2026-10-24T12:00:00Z"));
    const closes = window.nextClose(opens);
    const again = window.nextOpen(closes);
    expect([opens, closes, again, window.nextClose(again)].map(iso)).toEqual([
      "2026-10-24T23:00:00.000Z",
      "2026-10-25T00:30:00.000Z",
      "2026-10-25T01:00:00.000Z",
      "2026-10-25T01:30:00.000Z",
    ]);
  });

  test.each(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"])(
    "agrees minute by minute with what a clock in %s shows, and finds every change",
    (timeZone) => {
      const clock = new Intl.DateTimeFormat("en-GB", {
        timeZone,
        weekday: "short",
        hour: "2-digit",
        minute: "2-digit",
        hourCycle: "h23",
      });
      const shown = (time: number): { day: string; minute: number } => {
        const parts = Object.fromEntries(clock.formatToParts(time).map(({ type, value }) => [type, value]));
        return { day: parts["weekday"] ?? "", minute: Number(parts["hour"]) * 60 + Number(parts["minute"]) };
      };
      const days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
      const two = (value: number): string => String(value).padStart(2, "0");
      const clockTime = (minute: number): string => `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;
      const changes = [
        "2026-03-08",
        "2026-03-29",
        "2026-04-05",
        "2026-10-04",
        "2026-10-25",
        "2026-11-01",
        "2026-07-15",
      ];
      fc.assert(
        fc.property(
          fc.constantFrom(...changes),
          fc.integer({ min: -1440, max: 1440 }),
          fc.integer({ min: 0, max: 1439 }),
          fc.integer({ min: 0, max: 1439 }),
          fc.subarray(days, { minLength: 1 }),
          (date, shift, from, to, chosen) => {
            fc.pre(from !== to);
            const text = `${chosen.join(",")} ${clockTime(from)}-${clockTime(to)}`;
            const window = BackupWindow.parse(text, { timeZone });
            const expected = (time: number): boolean => {
              const { day, minute } = shown(time);
              const yesterday = days[(days.indexOf(day) + 6) % 7]!;
              if (from < to) return chosen.includes(day) && minute >= from && minute < to;
              return (chosen.includes(day) && minute >= from) || (chosen.includes(yesterday) && minute < to);
            };
            const start = at(`${date}T00:00:00Z`) + shift * 60_000;
            let minute = 0;
            while (minute < 1500 && expected(start + minute * 60_000) === expected(start)) minute++;
            const found = expected(start) ? window.nextClose(start) : window.nextOpen(start);
            expect([text, iso(start), window.isOpen(start)]).toEqual([text, iso(start), expected(start)]);
            if (minute < 1500) expect([text, iso(found)]).toEqual([text, iso(start + minute * 60_000)]);
            else expect(found).toBeGreaterThanOrEqual(start + 1500 * 60_000);
          },
        ),
        { seed: seedOf(20261121), numRuns: 40 },
      );
    },
  );

  test("is read in the machine's own time zone unless told otherwise, and says which", () => {
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    expect(BackupWindow.parse("22:00-06:00").timeZone).toBe(own);
    expect(String(BackupWindow.parse(" 22:00-06:00 "))).toBe(`22:00-06:00 (${own})`);
    expect(String(BackupWindow.parse("22:00-06:00", berlin))).toBe("22:00-06:00 (Europe/Berlin)");
  });

  test.each([
    ["", "not understood"],
    ["always", "not understood"],
    ["22-6", "not understood"],
    ["22:00", "not understood"],
    ["25:00-26:00", "25:00 is no time"],
    ["22:60-23:00", "22:60 is no time"],
    ["24:00-06:00", "can only be an end"],
    ["22:00-22:00", "a whole day is 00:00-24:00"],
    ["Foo 22:00-06:00", "no weekday"],
    ["Mon-Fri", "no times"],
    ["22:00-06:00,", "not understood"],
  ])('refuses "%s" with the reason and an example', (text, reason) => {
    expect(() => BackupWindow.parse(text)).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID", message: expect.stringMatching(reason) }) as Error,
    );
    expect(() => BackupWindow.parse(text)).toThrow("write it like 22:00-06:00");
  });

  test("refuses a time zone that does not exist by name", () => {
    expect(() => BackupWindow.parse("22:00-06:00", { timeZone: "Europe/Atlantis" })).toThrow(
      /no time zone "Europe\/Atlantis"/,
    );
  });
});
