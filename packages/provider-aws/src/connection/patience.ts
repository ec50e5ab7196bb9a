import { type Wait, isAbort, isProviderError } from "@diskferry/core/provider";
import { type Clock, sleep, systemClock } from "../limits/clock.ts";

/** The first wait between tries at most, and any wait, in milliseconds. */
const firstMs = 100;
const longestMs = 15_000;

/**
 * Repeats a call of the control plane that failed for a passing reason, with waits that are random below a growing bound
 * (full jitter), until the budget is spent. The one place of this provider where anything is repeated.
 * @throws ProviderError of the last try
 */
export async function patiently<Result>(
  budgetMs: number,
  run: () => Promise<Result>,
  wait: Wait & { clock?: Clock; random?: () => number } = {},
): Promise<Result> {
  const { signal, clock = systemClock, random = Math.random } = wait;
  const end = clock.now() + budgetMs;
  for (let turn = 0; ; turn++) {
    try {
      return await run();
    } catch (error) {
      if (signal?.aborted === true || isAbort(error, signal) || !isProviderError(error) || !error.retryable)
        throw error;
      const waitMs = (error.retryAfterMs ?? 0) + random() * Math.min(longestMs, firstMs * 2 ** turn);
      if (clock.now() + waitMs >= end) throw error;
      await sleep(waitMs, signal, clock);
    }
  }
}
