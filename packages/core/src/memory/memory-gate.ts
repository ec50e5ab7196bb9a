import { ProviderError } from "../provider/error.ts";

/** One call that reached the memory place. */
export interface MemoryCall {
  side: "source" | "target";
  /**
   * The member called: of a connector by its name alone (`snapshot`, `create`, `remove`), of anything else with the
   * object before it (`reader.read`, `writer.commit`, `power.shutdown`); `tracker.changes` comes once per tile.
   */
  method: string;
  /** Id of the snapshot, volume or machine it acts on. */
  on?: string;
  /** Bytes. */
  offset?: number;
  /** Bytes. */
  length?: number;
}

/** Throws, rejects, waits or hangs to make the call do so. A call that hangs still ends when its signal aborts. */
export type MemoryHook = (call: MemoryCall) => Promise<void> | void;

/** How often a method was called, and over how many bytes. */
export interface MemoryTraffic {
  calls: number;
  bytes: number;
}

/** What every call of a memory place passes: cancellation, the tests' faults, and counting. */
export class MemoryGate {
  /** Called before an operation takes effect. */
  fault: MemoryHook | undefined;
  /** Called after an operation took effect and before its caller hears of it: an answer that is lost. */
  answer: MemoryHook | undefined;
  readonly #traffic: Map<string, MemoryTraffic> = new Map();

  /** Runs `act`, which is atomic because it does not wait. Only calls whose `act` succeeded are counted. */
  async pass<Result>(call: MemoryCall, signal: AbortSignal | undefined, act: () => Result): Promise<Result> {
    signal?.throwIfAborted();
    await untilAborted(this.fault?.(call), signal);
    const result = act();
    const seen = this.#traffic.get(call.method) ?? { calls: 0, bytes: 0 };
    seen.calls++;
    seen.bytes += call.length ?? 0;
    this.#traffic.set(call.method, seen);
    await untilAborted(this.answer?.(call), signal);
    return result;
  }

  traffic(method: string): MemoryTraffic {
    return { ...(this.#traffic.get(method) ?? { calls: 0, bytes: 0 }) };
  }

  clearTraffic(): void {
    this.#traffic.clear();
  }
}

/** Waits for `work` and rejects with the signal's reason as soon as it aborts, whatever `work` does. */
export async function untilAborted<Result>(
  work: Promise<Result> | Result,
  signal: AbortSignal | undefined,
): Promise<Result> {
  if (signal === undefined) return work;
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const result = await Promise.race([work, promise]);
    signal.throwIfAborted();
    return result;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** A failure of the memory place. */
export function memoryError(
  code: ConstructorParameters<typeof ProviderError>[0],
  operation: string,
  message: string,
  options: { retryable?: boolean } = {},
): ProviderError {
  return new ProviderError(code, message, { provider: "memory", operation, ...options });
}

/** Holds a caller to the offsets, lengths and concurrency that a reader or writer declared. */
export class GeometryGuard {
  readonly #what: string;
  readonly #size: number;
  readonly #blockSize: number;
  readonly #concurrency: number;
  #underWay = 0;

  constructor(what: string, geometry: { size: number; blockSize: number; concurrency?: number | undefined }) {
    this.#what = what;
    this.#size = geometry.size;
    this.#blockSize = geometry.blockSize;
    this.#concurrency = geometry.concurrency ?? 1;
  }

  /** How many calls are under way. */
  get underWay(): number {
    return this.#underWay;
  }

  /** @throws RangeError when the range breaks the geometry or one call too many is under way. */
  async during<Result>(offset: number, length: number, work: () => Promise<Result>): Promise<Result> {
    const end = offset + length;
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < 0 ||
      length <= 0 ||
      end > this.#size
    ) {
      throw new RangeError(`${this.#what}: ${offset}+${length} is not inside its ${this.#size} bytes`);
    }
    if (offset % this.#blockSize !== 0 || (length % this.#blockSize !== 0 && end !== this.#size)) {
      throw new RangeError(
        `${this.#what}: ${offset}+${length} is not aligned to its blocks of ${this.#blockSize} bytes`,
      );
    }
    if (this.#underWay >= this.#concurrency) {
      throw new RangeError(
        `${this.#what}: more than ${this.#concurrency} calls at once, which its concurrency forbids`,
      );
    }
    this.#underWay++;
    try {
      return await work();
    } finally {
      this.#underWay--;
    }
  }
}
