/** Takes exact numbers of bytes from chunks of any size. */
export class ByteStream {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array(0);
  #taken = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** How many bytes were taken or skipped so far. */
  get position(): number {
    return this.#taken;
  }

  /** The next `length` bytes, a view that is good until the next call; undefined where the stream ends before. */
  async take(length: number): Promise<Uint8Array | undefined> {
    if (this.#held.byteLength < length) {
      const parts = [this.#held];
      let held = this.#held.byteLength;
      while (held < length) {
        const next = await this.#chunks.next();
        if (next.done === true) return undefined;
        parts.push(next.value);
        held += next.value.byteLength;
      }
      this.#held = Buffer.concat(parts, held);
    }
    const taken = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    this.#taken += length;
    return taken;
  }

  /** Passes over `length` bytes without holding them; false where the stream ends before. */
  async skip(length: number): Promise<boolean> {
    let left = length;
    while (left > this.#held.byteLength) {
      left -= this.#held.byteLength;
      const next = await this.#chunks.next();
      if (next.done === true) return false;
      this.#held = next.value;
    }
    this.#held = this.#held.subarray(left);
    this.#taken += length;
    return true;
  }

  /** Gives the chunks up. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
