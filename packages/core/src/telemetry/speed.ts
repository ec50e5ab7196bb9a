/** How finely the window is cut; bounds the memory. */
const slots = 20;
/** A shorter time says nothing. */
const leastMs = 500;

/** The speed over a sliding window of time. */
export class Speed {
  readonly #slotMs: number;
  readonly #bytes = new Float64Array(slots);
  #startedAt: number;
  /** The number of the slot that is being filled, counted from the start. */
  #slot = 0;

  constructor(windowMs: number, now: number) {
    if (!(windowMs > 0)) throw new RangeError(`windowMs is ${windowMs}; more than 0 is needed`);
    this.#slotMs = windowMs / slots;
    this.#startedAt = now;
  }

  add(bytes: number, now: number): void {
    this.#turn(now);
    this.#bytes[this.#slot % slots]! += bytes;
  }

  /** 0 while there is too little to say. */
  bytesPerMs(now: number): number {
    this.#turn(now);
    const elapsedMs = now - this.#startedAt;
    // The oldest slot is whole, the newest is as long as it has been filled.
    const spanMs = Math.min(elapsedMs, elapsedMs - Math.max(0, this.#slot - slots + 1) * this.#slotMs);
    if (spanMs < leastMs) return 0;
    return this.#bytes.reduce((sum, bytes) => sum + bytes, 0) / spanMs;
  }

  /** Forgets everything, as after a pause. */
  restart(now: number): void {
    this.#bytes.fill(0);
    this.#startedAt = now;
    this.#slot = 0;
  }

  #turn(now: number): void {
    const slot = Math.max(this.#slot, Math.floor((now - this.#startedAt) / this.#slotMs));
    if (slot - this.#slot >= slots) this.#bytes.fill(0);
    else for (let next = this.#slot + 1; next <= slot; next++) this.#bytes[next % slots] = 0;
    this.#slot = slot;
  }
}
