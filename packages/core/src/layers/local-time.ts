import { ProviderError } from "../provider/error.ts";

/** The clock on the wall of one time zone. */
export class LocalTime {
  readonly timeZone: string;
  readonly #format: Intl.DateTimeFormat;

  private constructor(format: Intl.DateTimeFormat) {
    this.#format = format;
    this.timeZone = format.resolvedOptions().timeZone;
  }

  /** @throws ProviderError CONFIG_INVALID when there is no such zone. */
  static of(timeZone?: string): LocalTime {
    try {
      return new LocalTime(
        new Intl.DateTimeFormat("en-US", {
          timeZone,
          calendar: "iso8601",
          numberingSystem: "latn",
          hourCycle: "h23",
          year: "numeric",
          month: "numeric",
          day: "numeric",
          hour: "numeric",
          minute: "numeric",
          second: "numeric",
        }),
      );
    } catch (cause) {
      const message = `there is no time zone "${timeZone}"; give an IANA name such as Europe/Berlin or UTC`;
      throw new ProviderError("CONFIG_INVALID", message, { operation: "window", cause });
    }
  }

  /**
   * What the wall shows at `at` (milliseconds since 1970 UTC), as milliseconds from midnight of 1 January 1970 on the
   * wall.
   */
  at(at: number): number {
    const second = Math.floor(at / 1000) * 1000;
    const parts: Partial<Record<Intl.DateTimeFormatPartTypes, number>> = {};
    for (const { type, value } of this.#format.formatToParts(second)) parts[type] = Number(value);
    const { year = 1970, month = 1, day = 1, hour = 0, minute = 0, second: seconds = 0 } = parts;
    return Date.UTC(year, month - 1, day, hour, minute, seconds) + (at - second);
  }

  /**
   * The first moment in (`from`, `to`] at which the wall clock has jumped against UTC; undefined where it runs evenly.
   * `to` is at most a day after `from`, so that there is one jump at most.
   */
  firstJump(from: number, to: number): number | undefined {
    const offset = this.at(from) - from;
    if (this.at(to) - to === offset) return undefined;
    let before = from;
    let after = to;
    while (after - before > 1) {
      const middle = Math.floor((before + after) / 2);
      if (this.at(middle) - middle === offset) before = middle;
      else after = middle;
    }
    return after;
  }
}
