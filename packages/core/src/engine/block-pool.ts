/** The bytes before a block's data that a writer may use for a header, so that header and data go out in one piece. */
export const HEADROOM = 64;

/** One reusable buffer. `data` is a view of what was asked for; disposing returns the buffer to its pool. */
export interface PooledBlock extends Disposable {
  readonly data: Uint8Array;
  /** Gives the buffer up for good: something outside may still write into it. */
  forsake(): void;
}

/**
 * A bounded set of equal buffers in shared memory, so that other threads can hash them without a copy. Taking one
 * when all are out waits: this is the back-pressure of a transfer and the bound on its memory.
 */
export class BlockPool {
  readonly #length: number;
  readonly #free: SharedArrayBuffer[] = [];
  readonly #waiting: { resolve: (buffer: SharedArrayBuffer) => void }[] = [];
  #unmade: number;

  /** `count` buffers of `length` bytes; each is made when first needed. */
  constructor(count: number, length: number) {
    this.#unmade = count;
    this.#length = length;
  }

  /** A block of `length` bytes, at most the pool's. @throws the signal's reason when it aborts first. */
  async take(length: number, signal?: AbortSignal): Promise<PooledBlock> {
    if (length > this.#length) throw new RangeError(`a block of ${length} bytes from a pool of ${this.#length}`);
    signal?.throwIfAborted();
    const free = this.#free.pop();
    if (free !== undefined) return this.#lend(free, length);
    if (this.#unmade > 0) {
      this.#unmade--;
      return this.#lend(new SharedArrayBuffer(HEADROOM + this.#length + HEADROOM), length);
    }
    const buffer = await new Promise<SharedArrayBuffer>((resolve, reject) => {
      const waiter = { resolve: take };
      const waiting = this.#waiting;
      function take(given: SharedArrayBuffer): void {
        signal?.removeEventListener("abort", leave);
        resolve(given);
      }
      function leave(): void {
        const at = waiting.indexOf(waiter);
        if (at >= 0) waiting.splice(at, 1);
        reject(signal?.reason as Error);
      }
      waiting.push(waiter);
      signal?.addEventListener("abort", leave, { once: true });
    });
    return this.#lend(buffer, length);
  }

  #lend(buffer: SharedArrayBuffer, length: number): PooledBlock {
    let out = true;
    const giveBack = (returned: SharedArrayBuffer): void => {
      if (!out) return;
      out = false;
      const next = this.#waiting.shift();
      if (next !== undefined) next.resolve(returned);
      else this.#free.push(returned);
    };
    return {
      data: new Uint8Array(buffer, HEADROOM, length),
      forsake: () => giveBack(new SharedArrayBuffer(HEADROOM + this.#length + HEADROOM)),
      [Symbol.dispose]: () => giveBack(buffer),
    };
  }
}
