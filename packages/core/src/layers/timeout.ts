import { ProviderError } from "../provider/error.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { runUntilGivenUp } from "./give-up.ts";
import { describeCall } from "./layer.ts";
import type { CallMethod, Layer } from "./layer.ts";

export interface TimeoutOptions {
  /** How long one attempt of `read`, `write`, `zero` and `digests` may take. */
  perAttemptMs: number;
  /** Other bounds for single methods; a method without one (`flush`, `commit` …) may take as long as it likes. */
  perMethodMs?: Partial<Record<CallMethod, number>> | undefined;
  /** How long an aborted call may take to let go of its buffer before it counts as dead. Default 5000. */
  graceMs?: number | undefined;
  clock?: Clock | undefined;
}

/**
 * Gives up an attempt that takes too long: its signal is aborted and it rejects with UNAVAILABLE, retryable, once the
 * far side let go of the buffer. A call that ignores its signal rejects after `graceMs` with UNAVAILABLE, not retryable,
 * and `call.unsettled` tells when its buffer may be used again: such a reader or writer is dead.
 */
export function timeout(options: TimeoutOptions): Layer {
  const { perAttemptMs, graceMs = 5000, clock = systemClock } = options;
  if (!(perAttemptMs > 0)) throw new RangeError(`perAttemptMs is ${perAttemptMs}; more than 0 is needed`);
  const bounds: Partial<Record<CallMethod, number>> = {
    read: perAttemptMs,
    write: perAttemptMs,
    zero: perAttemptMs,
    digests: perAttemptMs,
    ...options.perMethodMs,
  };
  return (call, run) => {
    const own = bounds[call.method] ?? Number.POSITIVE_INFINITY;
    const left = call.deadlineAt === undefined ? own : Math.min(own, call.deadlineAt - clock.now());
    if (left === Number.POSITIVE_INFINITY) return run(call);
    const boundMs = Math.max(1, left);
    return runUntilGivenUp(
      call,
      run,
      (giveUp) =>
        clock.after(boundMs, () => {
          const message = `no answer for ${Math.round(boundMs)} ms ${describeCall(call)}`;
          giveUp(new ProviderError("UNAVAILABLE", message, { operation: call.method }));
        }),
      graceMs,
      clock,
    );
  };
}
