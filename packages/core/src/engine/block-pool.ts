/** The bytes before a block's data that a writer may use for a header, so that header and data go out in one piece. */
export const HEADROOM = 64;
/** Bytes of a page of memory on the machines this runs on, or a part of it. */
export const PAGE = 4096;

/** One reusable buffer. `data` is a view of what was asked for; disposing returns the buffer to its pool. */
export interface PooledBlock extends Disposable {
  readonly data: Uint8Array;
  /** Gives the buffer up for good: something outside may still write into it. */
  forsake(): void;
}

/** Where a block lies: at a page's beginning, with HEADROOM bytes before it, and behind it, that are no other block's. */
interface Place {
  buffer: SharedArrayBuffer;
  start: number;
}

/**
 * A bounded set of equal buffers in shared memory, so that other threads can hash them without a copy, that begin at pages,
 * so that a file can be written from them directly. Taking one when all are out waits: this is the back-pressure of a
 * transfer and the bound on its memory.
 */
export class BlockPool {
  readonly #count: number;
  readonly #length: number;
  readonly #free: Place[] = [];
  readonly #waiting: { resolve: (place: Place) => void }[] = [];
  #memory: SharedArrayBuffer | undefined;
  #used = 0;

  /** `count` buffers of `length` bytes; the system gives each its memory when it is first used. */
  constructor(count: number, length: number) {
    this.#count = count;
    this.#length = length;
  }

  /** A block of `length` bytes, at most the pool's. @throws the signal's reason when it aborts first. */
  async take(length: number, signal?: AbortSignal): Promise<PooledBlock> {
    if (length > this.#length) throw new RangeError(`a block of ${length} bytes from a pool of ${this.#length}`);
    signal?.throwIfAborted();
    const free = this.#free.pop();
    if (free !== undefined) return this.#lend(free, length);
    if (this.#used < this.#count) {
      this.#memory ??= this.#memoryFor(this.#count);
      return this.#lend({ buffer: this.#memory, start: this.#startOf(this.#used++) }, length);
    }
    const place = await new Promise<Place>((resolve, reject) => {
      const waiter = { resolve: take };
      const waiting = this.#waiting;
      function take(given: Place): void {
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
    return this.#lend(place, length);
  }

  /** Pages lie between the blocks: the end of one is the headroom of the block behind it. */
  #startOf(index: number): number {
    return PAGE + index * (Math.ceil(this.#length / PAGE) + 1) * PAGE;
  }

  /**
   * What can grow V8 takes from whole pages (backing-store.cc, TryAllocateAndPartiallyCommitMemory), though it never does; other
   * buffers begin where malloc has room. Unlike the memory of WebAssembly it goes with its last view.
   */
  #memoryFor(count: number): SharedArrayBuffer {
    const bytes = this.#startOf(count);
    return new SharedArrayBuffer(bytes, { maxByteLength: bytes });
  }

  #lend({ buffer, start }: Place, length: number): PooledBlock {
    let out = true;
    const giveBack = (returned: Place): void => {
      if (!out) return;
      out = false;
      const next = this.#waiting.shift();
      if (next !== undefined) next.resolve(returned);
      else this.#free.push(returned);
    };
    return {
      data: new Uint8Array(buffer, start, length),
      forsake: () => giveBack({ buffer: this.#memoryFor(1), start: this.#startOf(0) }),
      [Symbol.dispose]: () => giveBack({ buffer, start }),
    };
  }
}
