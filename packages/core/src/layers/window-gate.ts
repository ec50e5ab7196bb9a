import type { Wait } from "../provider/wait.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { PauseGate } from "./gate.ts";
import type { Gate } from "./gate.ts";
import type { BackupWindow } from "./window.ts";

/** How long at most until the time of day is looked at again: it may be set, or the machine may have slept. */
const lookAgainMs = 60_000;

/**
 * A gate that is open while a backup window is. The window can be changed or taken away while calls wait. Disposing
 * ends its timer, which keeps the process alive only while somebody waits.
 */
export class WindowGate implements Gate, Disposable {
  readonly phase = "waiting";
  readonly #clock: Clock;
  readonly #gate = new PauseGate();
  #window: BackupWindow | undefined;
  #watching = 0;
  #waiting = 0;
  #cancelTimer: (() => void) | undefined;
  #lookedAtSecond: number | undefined;

  constructor(window?: BackupWindow, options: { clock?: Clock | undefined } = {}) {
    this.#clock = options.clock ?? systemClock;
    this.set(window);
  }

  get window(): BackupWindow | undefined {
    return this.#window;
  }

  get open(): boolean {
    this.#look();
    return this.#gate.open;
  }

  /** When it opens or closes next, in milliseconds since 1970 UTC; Infinity when never. */
  get nextChange(): number {
    if (this.#window === undefined) return Number.POSITIVE_INFINITY;
    const now = this.#clock.date();
    return this.#window.isOpen(now) ? this.#window.nextClose(now) : this.#window.nextOpen(now);
  }

  /** Puts another window in force; without one the gate is open. */
  set(window: BackupWindow | undefined): void {
    this.#window = window;
    this.#lookedAtSecond = undefined;
    this.#look();
    this.#arm();
  }

  async wait(wait?: Wait): Promise<void> {
    if (this.open) return;
    this.#waiting++;
    this.#arm();
    try {
      await this.#gate.wait(wait);
    } finally {
      this.#waiting--;
      this.#arm();
    }
  }

  listen(listener: (open: boolean) => void): () => void {
    const stop = this.#gate.listen(listener);
    this.#watching++;
    this.#arm();
    let listening = true;
    return () => {
      if (!listening) return;
      listening = false;
      stop();
      this.#watching--;
      this.#arm();
    };
  }

  [Symbol.dispose](): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #look(): void {
    // Every call asks, and time zones are slow to compute; windows change on whole seconds only.
    const second = Math.floor(this.#clock.date() / 1000);
    if (second === this.#lookedAtSecond) return;
    this.#lookedAtSecond = second;
    if (this.#window === undefined || this.#window.isOpen(this.#clock.date())) this.#gate.resume();
    else this.#gate.pause();
  }

  #arm(): void {
    this[Symbol.dispose]();
    if (this.#window === undefined || this.#waiting + this.#watching === 0) return;
    const delayMs = Math.min(lookAgainMs, this.nextChange - this.#clock.date());
    const keepAlive = this.#waiting > 0;
    this.#cancelTimer = this.#clock.after(
      delayMs,
      () => {
        this.#look();
        this.#arm();
      },
      keepAlive,
    );
  }
}
