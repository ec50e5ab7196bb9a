import { isProviderError, ProviderError } from "../provider/error.ts";
import type { BlockReader, ReadOptions } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";

/**
 * A reader that is opened again when it died. A read that fails with UNAVAILABLE, or is given up by a timeout, retires
 * the reader behind it and rejects as retryable; the next read opens a new one. An ascending reader is thereby
 * restarted at the failed offset, never retried in place.
 */
export class ReopeningReader implements BlockReader {
  readonly #open: (wait: Wait) => Promise<BlockReader>;
  readonly #first: BlockReader;
  #live: Promise<BlockReader> | undefined;
  /** The live one, once it is open. */
  #ready: BlockReader | undefined;
  #closed = false;
  readonly #retired = new WeakSet<BlockReader>();
  /** How often a reader had to be opened again. */
  reopened = 0;
  readonly digests?: NonNullable<BlockReader["digests"]>;

  constructor(first: BlockReader, open: (wait: Wait) => Promise<BlockReader>) {
    this.#first = first;
    this.#open = open;
    this.#live = Promise.resolve(first);
    this.#ready = first;
    if (first.digests !== undefined) {
      this.digests = async (offset, length, options) => {
        const reader = this.#ready ?? (await this.#current(options));
        if (reader.digests === undefined) throw new ProviderError("UNSUPPORTED", "the reopened reader has no digests");
        try {
          return await reader.digests(offset, length, options);
        } catch (error) {
          throw this.#judged(reader, error, options.signal);
        }
      };
    }
  }

  get size(): number {
    return this.#first.size;
  }
  get blockSize(): number {
    return this.#first.blockSize;
  }
  get concurrency(): number {
    return this.#first.concurrency ?? 1;
  }
  get order(): "any" | "ascending" {
    return this.#first.order ?? "any";
  }

  async read(offset: number, into: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const reader = this.#ready ?? (await this.#current(options));
    try {
      await reader.read(offset, into, options);
    } catch (error) {
      throw this.#judged(reader, error, options.signal);
    }
  }

  /** What a call's failure is to its caller; a reader that died of it is retired. */
  #judged(reader: BlockReader, error: unknown, signal: AbortSignal | undefined): unknown {
    const timedOut = signal?.aborted === true && isProviderError(signal.reason);
    // A stream that failed in any way does not stand where it stood: it cannot be asked for the same again.
    const restarted = this.order === "ascending" && isProviderError(error) && error.retryable;
    const died = isProviderError(error) && (error.code === "UNAVAILABLE" || restarted);
    // A call that shared the reader with one that died fails because the reader was closed under it.
    const shared = this.#retired.has(reader) && signal?.aborted !== true;
    if (!timedOut && !died && !shared) return error;
    this.#retire(reader);
    if (timedOut || (died && error.retryable)) return error;
    return new ProviderError("UNAVAILABLE", (error as Error).message, {
      operation: "read",
      retryable: true,
      cause: error,
    });
  }

  #retire(dead: BlockReader): void {
    this.#retired.add(dead);
    if (this.#ready !== dead) return;
    this.#live = undefined;
    this.#ready = undefined;
    // A reader that died may be unable to say goodbye; its replacement must not wait for that.
    void dead[Symbol.asyncDispose]().catch(() => {});
  }

  async #current(wait: Wait): Promise<BlockReader> {
    if (this.#closed) throw new TypeError("this reader is closed");
    if (this.#live === undefined) {
      this.reopened++;
      const opening = this.#reopen(wait);
      this.#live = opening;
      opening.then(
        (reader) => {
          if (this.#live === opening) this.#ready = reader;
        },
        () => {
          if (this.#live === opening) this.#live = undefined;
        },
      );
    }
    return this.#live;
  }

  async #reopen(wait: Wait): Promise<BlockReader> {
    const reader = await this.#open(wait);
    if (reader.size === this.#first.size) return reader;
    await reader[Symbol.asyncDispose]();
    throw new ProviderError(
      "CORRUPT",
      `The disk was ${this.#first.size} bytes and is ${reader.size} bytes after it was opened again: this is not the ` +
        `snapshot the run began with. Start a new run.`,
      { operation: "open" },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const live = this.#live;
    this.#live = undefined;
    this.#ready = undefined;
    const reader = await live?.catch(() => undefined);
    await reader?.[Symbol.asyncDispose]();
  }
}
