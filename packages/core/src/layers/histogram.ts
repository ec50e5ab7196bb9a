/** Milliseconds. Quantiles are at most 12.5 % above the true value; all are 0 where nothing was recorded. Plain JSON. */
export interface LatencySummary {
  count: number;
  mean: number;
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

/** Each power of two of microseconds is cut into 2^3 buckets. */
const cutBits = 3;
const cuts = 1 << cutBits;
/** 2^32 µs are 71 minutes; what takes longer counts in the last bucket. */
const mostMicroseconds = 2 ** 32 - 1;

/** Counts durations in fixed buckets of 1 µs to 71 minutes, in 2 KiB of memory whatever their number. */
export class LatencyHistogram {
  readonly #buckets = new Float64Array(32 * cuts);
  #count = 0;
  #sumMs = 0;
  #maxMs = 0;

  /** Counts one duration in milliseconds. */
  record(durationMs: number): void {
    this.#buckets[bucketOf(durationMs * 1000)]! += 1;
    this.#count++;
    this.#sumMs += durationMs;
    this.#maxMs = Math.max(this.#maxMs, durationMs);
  }

  summary(): LatencySummary {
    return {
      count: this.#count,
      mean: this.#count === 0 ? 0 : this.#sumMs / this.#count,
      p50: this.#quantile(0.5),
      p90: this.#quantile(0.9),
      p99: this.#quantile(0.99),
      max: this.#maxMs,
    };
  }

  #quantile(share: number): number {
    let left = Math.ceil(this.#count * share);
    if (left === 0) return 0;
    for (const [index, count] of this.#buckets.entries()) {
      left -= count;
      if (left <= 0) return Math.min(this.#maxMs, upperBound(index) / 1000);
    }
    return this.#maxMs;
  }
}

function bucketOf(microseconds: number): number {
  const value = Math.min(mostMicroseconds, Math.max(0, Math.ceil(microseconds))) >>> 0;
  if (value < cuts) return value;
  const exponent = 31 - Math.clz32(value);
  return (exponent - cutBits + 1) * cuts + ((value >>> (exponent - cutBits)) & (cuts - 1));
}

function upperBound(index: number): number {
  if (index < cuts) return index;
  const exponent = Math.floor(index / cuts) + cutBits - 1;
  return (cuts + (index % cuts) + 1) * 2 ** (exponent - cutBits) - 1;
}
