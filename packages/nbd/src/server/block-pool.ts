/** Bytes kept free before the data of a block, so that a reply's header and its data go out as one write. */
export const blockHeadroom = 64;

/** No block is smaller than this, in bytes. */
const smallestBlock = 4096;

/** A block on loan. Whoever holds it gives it back exactly once; a second `release` does nothing. */
export interface BlockLease {
  /** Headroom, data and unused rest. */
  readonly whole: Buffer;
  /** The part asked for, right after the headroom. Content is whatever was there before. */
  readonly data: Buffer;
  release(): void;
}

interface Waiter {
  readonly length: number;
  readonly resolve: (lease: BlockLease) => void;
  readonly reject: (reason: unknown) => void;
  readonly signal: AbortSignal;
  readonly onAbort: () => void;
}

/**
 * Blocks of memory for payloads, shared by all connections of a server. What is on loan never exceeds the budget: who
 * asks beyond it waits in line, and so stops reading from its socket.
 */
export class BlockPool {
  readonly #budget: number;
  readonly #retained: number;
  readonly #idle = new Map<number, Buffer[]>();
  readonly #waiters: Waiter[] = [];
  #idleBytes = 0;
  #lentBytes = 0;

  /** @param limits `budget`: most bytes on loan. `retained`: most bytes kept for the next loan. */
  constructor(limits: { budget: number; retained: number }) {
    this.#budget = limits.budget;
    this.#retained = limits.retained;
  }

  /** Bytes on loan now. */
  get lentBytes(): number {
    return this.#lentBytes;
  }

  /** A block of at least `length` bytes, at once or as soon as the budget allows. @throws the signal's reason. */
  acquire(length: number, signal: AbortSignal): BlockLease | Promise<BlockLease> {
    if (this.#waiters.length === 0 && this.#fits(length)) return this.#lend(length);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(signal.reason as Error);
        this.#serveWaiters();
      };
      const waiter: Waiter = { length, resolve, reject, signal, onAbort };
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  #fits(length: number): boolean {
    return this.#lentBytes === 0 || this.#lentBytes + capacityFor(length) <= this.#budget;
  }

  #lend(length: number): BlockLease {
    const capacity = capacityFor(length);
    const idle = this.#idle.get(capacity)?.pop();
    if (idle !== undefined) this.#idleBytes -= capacity;
    const whole = idle ?? Buffer.allocUnsafeSlow(blockHeadroom + capacity);
    this.#lentBytes += capacity;
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      this.#lentBytes -= capacity;
      this.#keep(capacity, whole);
      this.#serveWaiters();
    };
    return { whole, data: whole.subarray(blockHeadroom, blockHeadroom + length), release };
  }

  #keep(capacity: number, whole: Buffer): void {
    if (this.#idleBytes + capacity > this.#retained) return;
    this.#idleBytes += capacity;
    const idle = this.#idle.get(capacity);
    if (idle === undefined) this.#idle.set(capacity, [whole]);
    else idle.push(whole);
  }

  #serveWaiters(): void {
    for (let first = this.#waiters[0]; first !== undefined && this.#fits(first.length); first = this.#waiters[0]) {
      this.#waiters.shift();
      first.signal.removeEventListener("abort", first.onAbort);
      first.resolve(this.#lend(first.length));
    }
  }
}

function capacityFor(length: number): number {
  return Math.max(smallestBlock, 2 ** Math.ceil(Math.log2(Math.max(length, 1))));
}
