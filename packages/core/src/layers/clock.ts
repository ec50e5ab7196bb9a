import type { Wait } from "../provider/wait.ts";

/** Time as the layers see it; tests put their own in its place. */
export interface Clock {
  /** Milliseconds that only grow, from an unspecified start. */
  now(): number;
  /** Milliseconds since 1970 UTC; may jump. */
  date(): number;
  /**
   * Calls `action` once, `delayMs` later; the result cancels it. A timer that is not `keepAlive` does not keep the
   * process from ending.
   */
  after(delayMs: number, action: () => void, keepAlive?: boolean): () => void;
}

/** The longest delay `setTimeout` takes; a longer one would fire at once. */
const longestDelayMs = 2_147_483_647;

/** The machine's own time. */
export const systemClock: Clock = {
  now: () => performance.now(),
  date: () => Date.now(),
  after(delayMs, action, keepAlive = true) {
    const timer = setTimeout(action, Math.min(Math.max(0, delayMs), longestDelayMs));
    if (!keepAlive) timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delayMs`; rejects with the signal's reason as soon as that is aborted. */
export function sleep(delayMs: number, wait: Wait = {}, clock: Clock = systemClock): Promise<void> {
  const { signal } = wait;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error);
      return;
    }
    const abort = (): void => {
      cancel();
      reject(signal?.reason as Error);
    };
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener("abort", abort);
      resolve();
    });
    signal?.addEventListener("abort", abort, { once: true });
  });
}
