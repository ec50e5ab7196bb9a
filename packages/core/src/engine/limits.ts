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
  /** The backup window; replace it at any time. */
  window: Gate | undefined;

  constructor(options: Rates & { window?: Gate | undefined } = {}) {
    this.rates = new Limit(options);
    this.window = options.window;
  }

  /** Resolves when `bytes` more may be moved. */
  async pass(bytes: number, wait?: Wait): Promise<void> {
    if (!this.pause.open || this.window?.open === false) {
      // The window may have been replaced while it was waited for.
      do await allOpen(this.window === undefined ? [this.pause] : [this.pause, this.window], wait);
      while (!this.pause.open || this.window?.open === false);
    }
    await this.rates.take(bytes, wait);
  }

  /** What a held run says of itself; undefined while nothing holds it. */
  get held(): "paused" | "waiting" | undefined {
    if (!this.pause.open) return "paused";
    return this.window?.open === false ? "waiting" : undefined;
  }
}
