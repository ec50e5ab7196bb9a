import type { Wait } from "../provider/wait.ts";
import { Waiters } from "./waiters.ts";

/** A share of a {@link Budget}; disposing gives it back, once. */
export interface Share extends Disposable {
  readonly amount: number;
}

/**
 * A bound on what is in use at once, in bytes or whatever its users count, shared by all disks of a run: concurrency ×
 * block size. First come first served, so a large request is not starved by small ones.
 */
export class Budget {
  readonly #waiters = new Waiters();
  #capacity: number;
  #used = 0;

  constructor(capacity: number) {
    this.#capacity = checked(capacity);
  }

  get capacity(): number {
    return this.#capacity;
  }

  get used(): number {
    return this.#used;
  }

  get waiting(): number {
    return this.#waiters.count;
  }

  /** Changes the bound. What is in use stays in use; a waiting request larger than it goes when it is alone. */
  resize(capacity: number): void {
    this.#capacity = checked(capacity);
    this.#letThrough();
  }

  /** A share at once, or undefined when that is not possible or others wait. */
  tryAcquire(amount: number): Share | undefined {
    this.#check(amount);
    if (this.#waiters.count > 0 || !this.#fits(amount)) return undefined;
    this.#used += amount;
    return this.#share(amount);
  }

  /** @throws RangeError when `amount` is more than the whole budget: it would wait for ever. */
  async acquire(amount: number, wait?: Wait): Promise<Share> {
    wait?.signal?.throwIfAborted();
    const share = this.tryAcquire(amount);
    if (share !== undefined) return share;
    await this.#waiters.join(amount, wait, () => this.#letThrough());
    return this.#share(amount);
  }

  #check(amount: number): void {
    if (!(amount >= 0)) throw new RangeError(`${amount} is no amount; 0 or more is needed`);
    if (amount > this.#capacity) throw new RangeError(`${amount} is more than the whole budget of ${this.#capacity}`);
  }

  #fits(amount: number): boolean {
    return this.#used === 0 || this.#used + amount <= this.#capacity;
  }

  #share(amount: number): Share {
    let held = true;
    return {
      amount,
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#used -= amount;
        this.#letThrough();
      },
    };
  }

  #letThrough(): void {
    for (let first = this.#waiters.first; first !== undefined && this.#fits(first); first = this.#waiters.first) {
      // Charged here, not when the waiter wakes: until then others would see what is promised as free.
      this.#used += first;
      this.#waiters.release();
    }
  }
}

function checked(capacity: number): number {
  if (!(capacity > 0)) throw new RangeError(`a budget of ${capacity} admits nothing; more than 0 is needed`);
  return capacity;
}
