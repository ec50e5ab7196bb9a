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

/** Where blocks are given back. */
interface Home {
  accept(place: Place): void;
  /** What takes the place of a block that is never used again. */
  replacement(): Place;
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
  readonly #home: Home = {
    accept: (place) => {
      const next = this.#waiting.shift();
      if (next !== undefined) next.resolve(place);
      else this.#free.push(place);
    },
    replacement: () => ({ buffer: this.#memoryFor(1), start: this.#startOf(0) }),
  };
  #memory: SharedArrayBuffer | undefined;
  #used = 0;

  /** `count` buffers of `length` bytes; the system gives each its memory when it is first used. */
  constructor(count: number, length: number) {
    this.#count = count;
    this.#length = length;
  }

  /** A block of `length` bytes, at most the pool's; at once where one is free. @throws the signal's reason when it aborts first. */
  take(length: number, signal?: AbortSignal): PooledBlock | Promise<PooledBlock> {
    if (length > this.#length) throw new RangeError(`a block of ${length} bytes from a pool of ${this.#length}`);
    signal?.throwIfAborted();
    const free = this.#free.pop();
    if (free !== undefined) return new LentBlock(free, length, this.#home);
    if (this.#used < this.#count) {
      this.#memory ??= this.#memoryFor(this.#count);
      return new LentBlock({ buffer: this.#memory, start: this.#startOf(this.#used++) }, length, this.#home);
    }
    return this.#wait(length, signal);
  }

  async #wait(length: number, signal: AbortSignal | undefined): Promise<PooledBlock> {
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
    return new LentBlock(place, length, this.#home);
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
}

/** A block that is out; once it was given back, giving it back again does nothing. */
class LentBlock implements PooledBlock {
  readonly data: Uint8Array;
  readonly #home: Home;
  #place: Place | undefined;

  constructor(place: Place, length: number, home: Home) {
    this.data = new Uint8Array(place.buffer, place.start, length);
    this.#place = place;
    this.#home = home;
  }

  forsake(): void {
    if (this.#place !== undefined) this.#home.accept(this.#home.replacement());
    this.#place = undefined;
  }

  [Symbol.dispose](): void {
    if (this.#place !== undefined) this.#home.accept(this.#place);
    this.#place = undefined;
  }
}
