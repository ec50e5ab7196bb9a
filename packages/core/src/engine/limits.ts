import { allOpen, type Gate, PauseGate } from "../layers/gate.ts";
import { Limit, type Rates } from "../layers/throttle.ts";
import type { Wait } from "../provider/wait.ts";

/**
 * What holds a run back: rates, a pause, a backup window. One object may be shared by any number of runs and changed
 * while they go on.
 */
export class Limits {
  readonly rates: Limit;
  readonly pause: PauseGate = new PauseGate();
  /** Aborted when the window they wait for is replaced. */
  readonly #waiting = new Set<AbortController>();
  #window: Gate | undefined;

  constructor(options: Rates & { window?: Gate | undefined } = {}) {
    this.rates = new Limit(options);
    this.#window = options.window;
  }

  /** The backup window; replace it at any time, also by none: what waits for the old one looks at the new one at once. */
  get window(): Gate | undefined {
    return this.#window;
  }

  set window(window: Gate | undefined) {
    this.#window = window;
    for (const waiting of this.#waiting) waiting.abort();
  }

  /** Resolves when `bytes` more may be moved. */
  async pass(bytes: number, wait?: Wait): Promise<void> {
    while (this.held !== undefined) await this.#untilOpenOrReplaced(wait?.signal);
    await this.rates.take(bytes, wait);
  }

  async #untilOpenOrReplaced(signal: AbortSignal | undefined): Promise<void> {
    const replaced = new AbortController();
    this.#waiting.add(replaced);
    try {
      await allOpen(this.#window === undefined ? [this.pause] : [this.pause, this.#window], {
        signal: signal === undefined ? replaced.signal : AbortSignal.any([signal, replaced.signal]),
      });
    } catch (error) {
      if (!replaced.signal.aborted || signal?.aborted === true) throw error;
    } finally {
      this.#waiting.delete(replaced);
    }
  }

  /** What a held run says of itself; undefined while nothing holds it. */
  get held(): "paused" | "waiting" | undefined {
    if (!this.pause.open) return "paused";
    return this.window?.open === false ? "waiting" : undefined;
  }
}
