import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { LatencyHistogram } from "./histogram.ts";
import type { LatencySummary } from "./histogram.ts";
import { codeOf } from "./layer.ts";
import type { Call, CallMethod, Layer } from "./layer.ts";

/** What one kind of call did so far. Plain JSON. */
export interface CallMetrics {
  side: Call["side"];
  method: CallMethod;
  /** Attempts that ended, well or not. */
  calls: number;
  /** Attempts under way. */
  inFlight: number;
  /** Bytes of attempts that succeeded. */
  bytes: number;
  errors: number;
  /** The same by ProviderError code; `ABORTED` and `UNEXPECTED` stand for what has none. */
  errorsByCode: Record<string, number>;
  /** Attempts after the first. */
  retries: number;
  /** Milliseconds of attempts that succeeded. */
  latency: LatencySummary;
  /** Bytes over the time from the first attempt's start to the last one's end. */
  mibPerSecond: number;
}

/** Everything a metrics layer counted. Plain JSON. */
export interface MetricsSnapshot {
  /** Milliseconds since counting began. */
  elapsedMs: number;
  calls: CallMetrics[];
}

/** What is counted of an attempt that did not pass through the layer, because it happened in another thread. */
export interface CountedAttempt {
  side: Call["side"];
  method: CallMethod;
  bytes: number;
  elapsedMs: number;
  attempt: number;
  /** Absent: it succeeded. */
  code?: string | undefined;
}

/** Counts calls, bytes, errors, retries and latencies by side and method; inside the retry layer, so that each attempt counts. */
export class Metrics {
  readonly #clock: Clock;
  readonly #startedAt: number;
  readonly #counts = new Map<string, Counts>();

  constructor(options: { clock?: Clock | undefined } = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#startedAt = this.#clock.now();
  }

  readonly layer: Layer = async (call, run) => {
    const counts = this.#countsOf(call.side, call.method);
    const startedAt = this.#clock.now();
    counts.inFlight++;
    try {
      await run(call);
      counts.add(startedAt, this.#clock.now(), call.length ?? 0, call.attempt, undefined);
    } catch (error) {
      counts.add(startedAt, this.#clock.now(), 0, call.attempt, codeOf(error));
      throw error;
    } finally {
      counts.inFlight--;
    }
  };

  /** Counts an attempt that ended just now elsewhere. */
  record(attempt: CountedAttempt): void {
    const now = this.#clock.now();
    const counts = this.#countsOf(attempt.side, attempt.method);
    counts.add(now - attempt.elapsedMs, now, attempt.bytes, attempt.attempt, attempt.code);
  }

  snapshot(): MetricsSnapshot {
    return {
      elapsedMs: this.#clock.now() - this.#startedAt,
      calls: [...this.#counts.values()].map((counts) => counts.toMetrics()),
    };
  }

  #countsOf(side: Call["side"], method: CallMethod): Counts {
    const key = `${side} ${method}`;
    let counts = this.#counts.get(key);
    if (counts === undefined) this.#counts.set(key, (counts = new Counts(side, method)));
    return counts;
  }
}

class Counts {
  inFlight = 0;
  readonly #side: Call["side"];
  readonly #method: CallMethod;
  readonly #latency = new LatencyHistogram();
  readonly #errorsByCode = new Map<string, number>();
  #calls = 0;
  #bytes = 0;
  #errors = 0;
  #retries = 0;
  #firstStart = Number.POSITIVE_INFINITY;
  #lastEnd = 0;

  constructor(side: Call["side"], method: CallMethod) {
    this.#side = side;
    this.#method = method;
  }

  add(startedAt: number, endedAt: number, bytes: number, attempt: number, code: string | undefined): void {
    this.#calls++;
    if (attempt > 1) this.#retries++;
    this.#firstStart = Math.min(this.#firstStart, startedAt);
    this.#lastEnd = Math.max(this.#lastEnd, endedAt);
    if (code === undefined) {
      this.#bytes += bytes;
      this.#latency.record(endedAt - startedAt);
    } else {
      this.#errors++;
      this.#errorsByCode.set(code, (this.#errorsByCode.get(code) ?? 0) + 1);
    }
  }

  toMetrics(): CallMetrics {
    const seconds = (this.#lastEnd - this.#firstStart) / 1000;
    return {
      side: this.#side,
      method: this.#method,
      calls: this.#calls,
      inFlight: this.inFlight,
      bytes: this.#bytes,
      errors: this.#errors,
      errorsByCode: Object.fromEntries(this.#errorsByCode),
      retries: this.#retries,
      latency: this.#latency.summary(),
      mibPerSecond: seconds > 0 ? this.#bytes / 1048576 / seconds : 0,
    };
  }
}
