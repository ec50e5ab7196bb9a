import { type Clock, systemClock } from "./clock.ts";

export interface RateLimitOptions {
  /** Calls per second to begin with; found too low, the rate grows at once. */
  start: number;
  /** Calls that may be made at once before any. Absent: 1. */
  saved?: number | undefined;
  /** The rate never falls below this, lest waiters wait longer than their timeouts. */
  floor: number;
  /** The rate never rises above this. Absent: as far as the quota turns out to be. */
  ceiling?: number | undefined;
  clock?: Clock | undefined;
}

/** What a limiter has seen. */
export interface RateReport {
  /** Calls per second that are granted now. */
  rate: number;
  /** The rate at which the far side last refused; absent: it never did. */
  learned?: number;
  calls: number;
  throttled: number;
}

/** Leave to make one call. */
export interface Permit {
  /** The rate's generation when leave was given: refusals of calls from before the last cut say nothing about the rate now. */
  readonly epoch: number;
}

/** How long the rate is held before it is looked at again, in milliseconds: at first, and once something was refused. */
const firstWindowMs = 100;
const windowMs = 250;
/** Calls saved up while nobody asks, as seconds at the rate: what a busy event loop may miss. */
const burstSeconds = 0.5;
/** Calls that a far side is taken to save up, as seconds at its quota. */
const bucketSeconds = 1;
/** What was served between two refusals tells the quota from this time between them on, in milliseconds. */
const tellingMs = 400;
/** And tells no more than this share above or below of what was known: answers come in bursts where a machine is busy. */
const mostNews = 0.3;
/** The longest that all calls are held after refusals at the lowest rate, in milliseconds: then one of them tries. */
const longestPauseMs = 2000;

/**
 * Grants calls at a rate that finds the far side's quota by itself, taken to be a bucket that fills at the quota's rate.
 * It grows by half per window until the first refusal. A refused call found the bucket empty, so what was served between two
 * refusals is what flowed in: the quota itself, at which the rate is set and from which it climbs in small steps until the
 * next refusal, so that the bucket never fills in vain. Refused again too soon to tell, it falls. Refused at its
 * floor, it holds everything for a while that doubles. Waiters are served in order.
 */
export class RateLimit {
  readonly #floor: number;
  readonly #ceiling: number;
  readonly #clock: Clock;
  readonly #waiters: { grant: (permit: Permit) => void }[] = [];
  #rate: number;
  #learned: number | undefined;
  /** What the quota was taken for after the first refusal. */
  #guess = 0;
  /** When the bucket was last known to be empty, and how many calls were served until then. */
  #empty: { served: number; at: number } | undefined;
  #tokens: number;
  #at: number;
  #served = 0;
  /** When the search began, and how many calls were served until then. */
  #began: { served: number; at: number } | undefined;
  #windowAt: number;
  #scarce = false;
  /** Refusals since then that came too soon to tell anything. */
  #hasty = 0;
  #step = 0;
  #epoch = 0;
  #pauseMs = 0;
  #heldUntil = 0;
  #cancel: (() => void) | undefined;
  #calls = 0;
  #throttled = 0;

  constructor(options: RateLimitOptions) {
    this.#ceiling = options.ceiling ?? Number.POSITIVE_INFINITY;
    this.#floor = Math.min(options.floor, this.#ceiling);
    this.#rate = Math.min(options.start, this.#ceiling);
    this.#tokens = options.saved ?? 1;
    this.#clock = options.clock ?? systemClock;
    this.#at = this.#clock.now();
    this.#windowAt = this.#at;
  }

  report(): RateReport {
    const { calls, throttled, rate } = { calls: this.#calls, throttled: this.#throttled, rate: this.#rate };
    return { rate, calls, throttled, ...(this.#learned === undefined ? {} : { learned: this.#learned }) };
  }

  /** Resolves when a call may be made. @throws the signal's reason */
  take(signal?: AbortSignal): Promise<Permit> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    this.#refill();
    if (this.#waiters.length === 0 && this.#mayGo()) return Promise.resolve(this.#spend());
    this.#scarce = true;
    return new Promise((resolve, reject) => {
      const waiter = {
        grant: (permit: Permit) => {
          signal?.removeEventListener("abort", abort);
          resolve(permit);
        },
      };
      const abort = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(signal?.reason as Error);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiters.push(waiter);
      this.#schedule();
    });
  }

  /** Tells that a call was answered, whatever else became of it. */
  answered(permit: Permit): void {
    this.#served++;
    if (permit.epoch === this.#epoch) this.#pauseMs = 0;
  }

  /** Tells that a call was refused for asking too much. */
  refused(permit: Permit): void {
    this.#throttled++;
    if (permit.epoch !== this.#epoch) return;
    this.#refill();
    this.#epoch++;
    const isStorm = this.#rate <= this.#floor;
    if (isStorm) {
      this.#pauseMs = Math.min(longestPauseMs, Math.max(windowMs, this.#pauseMs * 2));
      this.#heldUntil = this.#clock.now() + this.#pauseMs;
      // Who refuses even the lowest rate has told nothing of the quota: when that is over the search begins anew.
      this.#learned = this.#empty = this.#began = undefined;
    } else this.#learn();
    this.#step = 0;
    this.#tokens = Math.min(this.#tokens, 0);
    this.#windowAt = this.#clock.now();
    this.#scarce = false;
  }

  #learn(): void {
    const before = this.#empty;
    const now = { served: this.#served, at: this.#clock.now() };
    if (before === undefined) {
      // Besides what flowed in, a full bucket may have been used up; or it was never full, and refuses much too early.
      const { served, at } = this.#began ?? now;
      const flowed = (now.served - served) / ((now.at - at) / 1000 + bucketSeconds);
      this.#set(Math.min(this.#rate / 2, Math.max(this.#rate / 6, flowed)));
      this.#guess = this.#rate;
      this.#empty = now;
    } else if (now.at - before.at >= tellingMs) {
      const flowed = ((now.served - before.served) / (now.at - before.at)) * 1000;
      const known = this.#learned ?? this.#guess;
      this.#learned = Math.max(known * (1 - mostNews), Math.min(known * (1 + mostNews), flowed));
      this.#set(Math.min(this.#rate, this.#learned));
      this.#empty = now;
      this.#hasty = 0;
    } else {
      this.#hasty++;
      this.#set(this.#rate * Math.max(0.75, 1 - 0.03 * 2 ** (this.#hasty - 1)));
    }
  }

  #mayGo(): boolean {
    return this.#tokens >= 1 && this.#clock.now() >= this.#heldUntil;
  }

  #spend(): Permit {
    this.#tokens--;
    this.#calls++;
    this.#began ??= { served: this.#served, at: this.#at };
    return { epoch: this.#epoch };
  }

  #refill(): void {
    const now = this.#clock.now();
    this.#tokens = Math.min(
      Math.max(1, this.#rate * burstSeconds),
      this.#tokens + ((now - this.#at) / 1000) * this.#rate,
    );
    this.#at = now;
    if (now - this.#windowAt < (this.#isFirst ? firstWindowMs : windowMs)) return;
    // Only a rate that held somebody up is known to be borne; an idle one proves nothing.
    if (this.#scarce && now >= this.#heldUntil) this.#grow();
    this.#windowAt = now;
    this.#scarce = this.#waiters.length > 0;
  }

  /** Whether nothing is known yet: no call was refused, or the last storm is over. */
  get #isFirst(): boolean {
    return this.#empty === undefined;
  }

  #grow(): void {
    const rate = this.#rate;
    if (this.#isFirst) this.#set(rate * 1.5);
    else if (this.#learned === undefined) this.#set(rate * 1.25);
    else if (rate < this.#learned * 0.98) this.#set(Math.min(this.#learned, rate + (this.#learned - rate) / 2));
    else {
      // Steps double as long as nothing is refused, so that a raised quota is found, but stay small enough to miss little.
      this.#step = Math.min(rate * 0.25, Math.max(rate * 0.0025, this.#step * 2));
      this.#set(rate + this.#step);
    }
  }

  #set(rate: number): void {
    this.#rate = Math.max(this.#floor, Math.min(this.#ceiling, rate));
  }

  #schedule(): void {
    if (this.#cancel !== undefined || this.#waiters.length === 0) return;
    const now = this.#clock.now();
    const waitMs = Math.max(((1 - this.#tokens) / this.#rate) * 1000, this.#heldUntil - now, 1);
    this.#cancel = this.#clock.after(waitMs, () => {
      this.#cancel = undefined;
      this.#refill();
      while (this.#waiters.length > 0 && this.#mayGo()) this.#waiters.shift()!.grant(this.#spend());
      this.#schedule();
    });
  }
}
