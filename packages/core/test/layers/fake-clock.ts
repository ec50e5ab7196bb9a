import type { Clock } from "../../src/layers/clock.ts";

interface Timer {
  at: number;
  action: () => void;
}

/** A clock that stands still until told to go on; `now` starts at 0. */
export class FakeClock implements Clock {
  readonly #timers = new Set<Timer>();
  readonly #startDate: number;
  #now = 0;

  constructor(startDate: string | number = 0) {
    this.#startDate = typeof startDate === "string" ? Date.parse(startDate) : startDate;
  }

  now(): number {
    return this.#now;
  }

  date(): number {
    return this.#startDate + this.#now;
  }

  after(delayMs: number, action: () => void): () => void {
    const timer = { at: this.#now + Math.max(0, delayMs), action };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  /** How many timers wait; a layer at rest leaves none. */
  get timers(): number {
    return this.#timers.size;
  }

  /** Lets `durationMs` pass: fires what comes due in order, and lets promises settle after each. */
  async advance(durationMs: number): Promise<void> {
    const until = this.#now + durationMs;
    await settle();
    for (let next = this.#next(until); next !== undefined; next = this.#next(until)) {
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.action();
      await settle();
    }
    this.#now = until;
  }

  /** Fires timers until `promise` settles. */
  async finish<Result>(promise: Promise<Result>, mostMs = 1e9): Promise<Result> {
    let over = false;
    const done = (): void => {
      over = true;
    };
    promise.then(done, done);
    await settle();
    for (let next = this.#next(mostMs); !over && next !== undefined; next = this.#next(mostMs)) {
      await this.advance(Math.max(0, next.at - this.#now));
    }
    if (!over) throw new Error(`nothing is left to wait for at ${this.#now} ms, and the promise has not settled`);
    return promise;
  }

  #next(until: number): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers)
      if (timer.at <= until && (first === undefined || timer.at < first.at)) first = timer;
    return first;
  }
}

/** Lets every promise that can settle do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
