import { ProviderError } from "../provider/error.ts";
import { LocalTime } from "./local-time.ts";

interface Opening {
  /** 0 is Sunday; the days on which it opens. */
  days: ReadonlySet<number>;
  /** Minutes after midnight. */
  from: number;
  /** Minutes after midnight, above 1440 where it crosses midnight. */
  to: number;
}

const dayMinutes = 24 * 60;
const minuteMs = 60_000;
const dayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/** A week, and one more for a window whose only hour is skipped when clocks go forward. */
const horizonMs = 15 * dayMinutes * minuteMs;

/**
 * When copying is allowed: `22:00-06:00`, `Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00`. A window that ends before it
 * begins crosses midnight; its weekdays are those on which it opens. It is open while a clock on the wall of its time
 * zone shows a time from its beginning to just before its end, also on the days when clocks change: an hour that is
 * skipped is not made up for, and one that comes twice counts twice.
 */
export class BackupWindow {
  /** The IANA time zone it is read in. */
  readonly timeZone: string;
  readonly #text: string;
  readonly #openings: readonly Opening[];
  readonly #local: LocalTime;

  private constructor(text: string, openings: readonly Opening[], local: LocalTime) {
    this.#text = text;
    this.#openings = openings;
    this.#local = local;
    this.timeZone = local.timeZone;
  }

  /**
   * Reads a window from text. `timeZone` is an IANA name such as `Europe/Berlin`; the machine's own where absent.
   * @throws ProviderError CONFIG_INVALID
   */
  static parse(text: string, options: { timeZone?: string | undefined } = {}): BackupWindow {
    const local = LocalTime.of(options.timeZone);
    const openings: Opening[] = [];
    let days = new Set<number>();
    for (const part of text.split(/[,;]/)) {
      const match = /^\s*([a-z]{3}(?:\s*-\s*[a-z]{3})?)?\s*(?:(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d))?\s*$/i.exec(part);
      if (match === null || part.trim() === "") throw invalid(text, `"${part.trim()}" is not understood`);
      if (match[1] !== undefined) for (const day of daysOf(match[1], text)) days.add(day);
      if (match[2] === undefined) continue;
      const from = minutesOf(match[2], match[3], text);
      const to = minutesOf(match[4], match[5], text);
      if (from === dayMinutes) throw invalid(text, "24:00 can only be an end");
      if (from === to) throw invalid(text, "it ends when it begins; a whole day is 00:00-24:00");
      openings.push({
        days: days.size === 0 ? new Set([0, 1, 2, 3, 4, 5, 6]) : days,
        from,
        to: to < from ? to + dayMinutes : to,
      });
      days = new Set();
    }
    if (days.size > 0) throw invalid(text, "its last weekday has no times");
    return new BackupWindow(text.trim(), openings, local);
  }

  /** Whether it is open at `at`, in milliseconds since 1970 UTC. */
  isOpen(at: number): boolean {
    const wall = this.#local.at(at);
    const minute = Math.floor(wall / minuteMs);
    const today = Math.floor(minute / dayMinutes);
    const ofDay = minute - today * dayMinutes;
    // Day 0 of 1970 was a Thursday.
    const weekday = (((today + 4) % 7) + 7) % 7;
    return this.#openings.some(
      ({ days, from, to }) =>
        (days.has(weekday) && ofDay >= from && ofDay < to) || (days.has((weekday + 6) % 7) && ofDay + dayMinutes < to),
    );
  }

  /** The first moment from `at` on when it is open: `at` itself when it is. Milliseconds since 1970 UTC. */
  nextOpen(at: number): number {
    return this.isOpen(at) ? at : (this.#nextChange(at) ?? Number.POSITIVE_INFINITY);
  }

  /** The first moment from `at` on when it is closed; Infinity when it never closes. Milliseconds since 1970 UTC. */
  nextClose(at: number): number {
    return this.isOpen(at) ? (this.#nextChange(at) ?? Number.POSITIVE_INFINITY) : at;
  }

  /** In words, with the time zone. */
  toString(): string {
    return `${this.#text} (${this.timeZone})`;
  }

  #nextChange(start: number): number | undefined {
    const before = this.isOpen(start);
    for (let at = start; at < start + horizonMs;) {
      // The state changes only where the wall clock shows a boundary or jumps; so go from one such moment to the next.
      const next = at + this.#untilBoundaryMs(this.#local.at(at));
      const jump = this.#local.firstJump(at, next);
      at = jump ?? next;
      if (this.isOpen(at) !== before) return at;
    }
    return undefined;
  }

  #untilBoundaryMs(wall: number): number {
    const dayMs = dayMinutes * minuteMs;
    const ofDay = ((wall % dayMs) + dayMs) % dayMs;
    let least = dayMs - ofDay;
    for (const { from, to } of this.#openings) {
      for (const boundary of [from, to % dayMinutes]) {
        const until = boundary * minuteMs - ofDay;
        if (until > 0 && until < least) least = until;
      }
    }
    return least;
  }
}

function daysOf(text: string, whole: string): number[] {
  const [first, last] = text.split("-").map((name) => {
    const day = dayNames.indexOf(name.trim().toLowerCase());
    if (day < 0) throw invalid(whole, `"${name.trim()}" is no weekday; they are Mon Tue Wed Thu Fri Sat Sun`);
    return day;
  });
  if (first === undefined) return [];
  const days = [first];
  for (let day = first; last !== undefined && day !== last;) days.push((day = (day + 1) % 7));
  return days;
}

function minutesOf(hours: string | undefined, minutes: string | undefined, whole: string): number {
  const total = Number(hours) * 60 + Number(minutes);
  if (Number(minutes) > 59 || total > dayMinutes) throw invalid(whole, `${hours}:${minutes} is no time of day`);
  return total;
}

function invalid(text: string, why: string): ProviderError {
  const example = "write it like 22:00-06:00 or Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00";
  return new ProviderError("CONFIG_INVALID", `backup window "${text}": ${why}; ${example}`, { operation: "window" });
}
