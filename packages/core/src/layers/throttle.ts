import type { Wait } from "../provider/wait.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { hold } from "./layer.ts";
import type { Layer } from "./layer.ts";
import { Waiters } from "./waiters.ts";

/** Absent: not limited. To stop everything, use a pause gate. */
export interface Rates {
  /** Bytes per second of reads and writes, more than 0. */
  bytesPerSecond?: number | undefined;
  /** Calls of any kind per second, more than 0. */
  callsPerSecond?: number | undefined;
}

export interface LimitOptions extends Rates {
  /** How much may come at once after a quiet time, in milliseconds of the rate. Default 100. */
  burstMs?: number | undefined;
  clock?: Clock | undefined;
}

/**
 * A limit in bytes and calls per second, shared by any number of layers, and changed while calls run. Two token buckets
 * with one queue, first come first served: a request goes when both hold enough for it, or, if it is larger than the
 * burst, when they are full; it then leaves a debt. So in any span of time no more than rate × time + the burst (or one
 * request, where that is larger) goes through, and no request is too large.
 */
export class Limit {
  readonly #waiters = new Waiters();
  readonly #clock: Clock;
  readonly #burstMs: number;
  readonly #bytes = new Bucket(0);
  readonly #calls = new Bucket(1);
  #rates: Rates = {};
  #cancelTimer: (() => void) | undefined;

  constructor(options: LimitOptions = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#burstMs = options.burstMs ?? 100;
    if (!(this.#burstMs >= 0)) throw new RangeError(`burstMs is ${this.#burstMs}; 0 or more is needed`);
    this.set(options);
  }

  /** The rates in force. */
  get rates(): Rates {
    return this.#rates;
  }

  /** How many calls wait. */
  get waiting(): number {
    return this.#waiters.count;
  }

  /** Puts new rates in force at once, for those who wait too. */
  set(rates: Rates): void {
    for (const name of ["bytesPerSecond", "callsPerSecond"] as const) {
      const rate = rates[name];
      if (rate !== undefined && !(rate > 0)) {
        throw new RangeError(`${name} is ${rate}; more than 0 is needed. Leave it out for no limit, pause to stop`);
      }
    }
    const now = this.#clock.now();
    this.#rates = { bytesPerSecond: rates.bytesPerSecond, callsPerSecond: rates.callsPerSecond };
    this.#bytes.set(rates.bytesPerSecond, this.#burstMs, now);
    this.#calls.set(rates.callsPerSecond, this.#burstMs, now);
    this.#letThrough();
  }

  /** Undefined when one call of `bytes` may go now, and is charged; else what to wait for. */
  take(bytes: number, wait?: Wait): Promise<void> | undefined {
    const now = this.#clock.now();
    if (this.#waiters.count === 0 && this.#delayMs(bytes, now) <= 0) {
      this.#charge(bytes);
      return undefined;
    }
    const turn = this.#waiters.join(bytes, wait, () => this.#letThrough());
    this.#letThrough();
    return turn;
  }

  #delayMs(bytes: number, now: number): number {
    return Math.max(this.#bytes.delayMs(bytes, now), this.#calls.delayMs(1, now));
  }

  #charge(bytes: number): void {
    this.#bytes.tokens -= bytes;
    this.#calls.tokens -= 1;
  }

  #letThrough(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const now = this.#clock.now();
    for (let first = this.#waiters.first; first !== undefined; first = this.#waiters.first) {
      const delayMs = this.#delayMs(first, now);
      if (delayMs > 0) {
        this.#cancelTimer = this.#clock.after(delayMs, () => this.#letThrough());
        return;
      }
      this.#charge(first);
      this.#waiters.release();
    }
  }
}

/** Holds every call back as long as `limit` demands. Reads and writes are charged with their bytes, other calls as one call. */
export function throttle(limit: Limit, options: { clock?: Clock | undefined } = {}): Layer {
  const clock = options.clock ?? systemClock;
  return (call, run) => {
    const bytes = call.method === "read" || call.method === "write" ? (call.length ?? 0) : 0;
    const turn = limit.take(bytes, call);
    return turn === undefined ? run(call) : hold(call, clock, turn).then(() => run(call));
  };
}

class Bucket {
  tokens = 0;
  readonly #leastBurst: number;
  #perMs = Number.POSITIVE_INFINITY;
  #burst = Number.POSITIVE_INFINITY;
  #countedAt = 0;

  constructor(leastBurst: number) {
    this.#leastBurst = leastBurst;
  }

  set(perSecond: number | undefined, burstMs: number, now: number): void {
    const unlimitedBefore = this.#perMs === Number.POSITIVE_INFINITY;
    if (!unlimitedBefore) this.#count(now);
    this.#perMs = perSecond === undefined ? Number.POSITIVE_INFINITY : perSecond / 1000;
    this.#burst = perSecond === undefined ? this.#perMs : Math.max(this.#leastBurst, this.#perMs * burstMs);
    this.tokens = unlimitedBefore ? this.#burst : Math.min(this.tokens, this.#burst);
    this.#countedAt = now;
  }

  delayMs(amount: number, now: number): number {
    if (this.#perMs === Number.POSITIVE_INFINITY || amount === 0) return 0;
    this.#count(now);
    const missing = Math.min(amount, this.#burst) - this.tokens;
    // Rounding may leave a rest too small for the clock to pass; it is owed by the next request.
    return missing <= 1e-6 * Math.max(1, this.#burst) ? 0 : missing / this.#perMs;
  }

  #count(now: number): void {
    this.tokens = Math.min(this.#burst, this.tokens + (now - this.#countedAt) * this.#perMs);
    this.#countedAt = now;
  }
}
