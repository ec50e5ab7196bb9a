import { setTimeout as sleep } from "node:timers/promises";
import { isProviderError, type Wait } from "@diskferry/core/provider";

const attempts = 4;
const firstPauseMs = 500;

/** Repeats what looks before it acts, a few times, for what passes: a busy machine, a lost answer, a forgotten task. */
export async function patiently<Result>(wait: Wait, act: () => Promise<Result>): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await act();
    } catch (error) {
      wait.signal?.throwIfAborted();
      const passes = isProviderError(error) && (error.retryable || error.code === "NOT_FOUND");
      if (!passes || attempt === attempts) throw error;
      const pauseMs = error.retryAfterMs ?? firstPauseMs * 2 ** (attempt - 1) * (0.5 + Math.random() / 2);
      await sleep(pauseMs, undefined, { signal: wait.signal }).catch(() => wait.signal?.throwIfAborted());
    }
  }
}
