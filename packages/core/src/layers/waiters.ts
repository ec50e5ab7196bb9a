import type { Wait } from "../provider/wait.ts";

interface Waiter {
  amount: number;
  resolve: () => void;
}

/** Those who wait for their turn, first come first served. Bounded by its callers: each waits for one thing at a time. */
export class Waiters {
  readonly #queue = new Set<Waiter>();

  get count(): number {
    return this.#queue.size;
  }

  /** What the first in the queue asked for. */
  get first(): number | undefined {
    for (const waiter of this.#queue) return waiter.amount;
    return undefined;
  }

  /** Joins the end of the queue; resolves when let through. `onLeave` is called when an abort takes it out of it. */
  join(amount: number, wait: Wait | undefined, onLeave: () => void): Promise<void> {
    const signal = wait?.signal;
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      const waiter: Waiter = {
        amount,
        resolve: () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        },
      };
      const abort = (): void => {
        if (!this.#queue.delete(waiter)) return;
        reject(signal?.reason as Error);
        onLeave();
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#queue.add(waiter);
    });
  }

  /** Lets the first one through. */
  release(): void {
    for (const waiter of this.#queue) {
      this.#queue.delete(waiter);
      waiter.resolve();
      return;
    }
  }
}
