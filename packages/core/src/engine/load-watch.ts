import type { Machine, SourceConnector, SourceLoad } from "../provider/source.ts";
import { sleep } from "../layers/clock.ts";

/** After so many failures in a row nobody asks any more. */
const MOST_FAILURES = 3;
/** A question that takes longer tells of the past. */
const LONGEST_QUESTION = 30_000;

/** One counter over a run, in percent. Plain JSON. */
export interface LoadCounter {
  /** When the run began. */
  first: number;
  mean: number;
  most: number;
}

/** How busy a source's host was while a run copied from it. Plain JSON. */
export interface LoadSummary {
  /** How often it was asked. */
  samples: number;
  /** The host of the last sample. */
  host: string;
  cpuPercent?: LoadCounter;
  memoryPercent?: LoadCounter;
}

export interface LoadWatchOptions {
  source: Pick<SourceConnector, "load">;
  machine: Machine;
  /** Milliseconds between two questions; 0: none is asked. */
  intervalMs: number;
  onLoad: (load: SourceLoad) => void;
  notice: (message: string) => void;
}

/** Asks a source now and then how busy a machine's host is, until it is disposed of. What it is told, or not, fails no run. */
export class LoadWatch implements AsyncDisposable {
  readonly #options: LoadWatchOptions;
  readonly #stop = new AbortController();
  readonly #over: Promise<void>;
  readonly #counters = new Map<
    "cpuPercent" | "memoryPercent",
    { first: number; sum: number; most: number; count: number }
  >();
  #samples = 0;
  #host = "";

  constructor(options: LoadWatchOptions) {
    this.#options = options;
    this.#over = options.source.load === undefined || options.intervalMs === 0 ? Promise.resolve() : this.#watch();
  }

  /** What was told so far; undefined: nothing. */
  get summary(): LoadSummary | undefined {
    if (this.#samples === 0) return undefined;
    const summary: LoadSummary = { samples: this.#samples, host: this.#host };
    for (const [name, { first, sum, most, count }] of this.#counters)
      summary[name] = { first, mean: sum / count, most };
    return summary;
  }

  async #watch(): Promise<void> {
    const { source, machine, intervalMs, onLoad, notice } = this.#options;
    const { signal } = this.#stop;
    for (let failures = 0; failures < MOST_FAILURES && !signal.aborted;) {
      try {
        const bounded = AbortSignal.any([signal, AbortSignal.timeout(LONGEST_QUESTION)]);
        // A provider that does not heed its signal must not hold up the end of a run.
        const late = Promise.withResolvers<never>();
        // Nobody listens to it where the question fails at once.
        late.promise.catch(() => {});
        bounded.addEventListener("abort", () => late.reject(bounded.reason as Error), { once: true });
        const load = await Promise.race([source.load?.(machine, { signal: bounded }), late.promise]);
        if (load !== undefined && !signal.aborted) {
          this.#count(load);
          onLoad(load);
        }
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        failures++;
        const goesOn = failures < MOST_FAILURES ? "" : "; nobody asks any more";
        notice(`How busy the host of ${machine.name} is cannot be told (${(error as Error).message})${goesOn}.`);
      }
      await sleep(intervalMs, { signal }).catch(() => {});
    }
  }

  #count(load: SourceLoad): void {
    this.#samples++;
    this.#host = load.host;
    for (const name of ["cpuPercent", "memoryPercent"] as const) {
      const value = load[name];
      if (value === undefined) continue;
      const counter = this.#counters.get(name) ?? { first: value, sum: 0, most: value, count: 0 };
      counter.sum += value;
      counter.count++;
      counter.most = Math.max(counter.most, value);
      this.#counters.set(name, counter);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new DOMException("the run has ended", "AbortError"));
    await this.#over;
  }
}
