import { ProviderError } from "../provider/error.ts";
import { describeCall } from "./layer.ts";
import type { Clock } from "./clock.ts";
import type { Call, Run } from "./layer.ts";

/**
 * Runs a call that can be given up: `arm` gets the function that does so and returns the one that disarms it. Giving
 * up aborts the call's signal and then waits until the far side lets go of the buffer, `graceMs` at most. What
 * completes in that time counts as done. What still runs after it is rejected as not retryable and leaves its promise in
 * `call.unsettled`. An abort from outside is bounded by the same grace.
 */
export function runUntilGivenUp(
  call: Call,
  run: Run,
  arm: (giveUp: (error: ProviderError) => void) => () => void,
  graceMs: number,
  clock: Clock,
): Promise<void> {
  const outer = call.signal;
  if (outer.aborted) return Promise.reject(outer.reason as Error);
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    let failure: ProviderError | undefined;
    let cancelGrace: (() => void) | undefined;
    let over = false;
    const running = Promise.withResolvers<void>();

    const finish = (): boolean => {
      running.resolve();
      if (over) return false;
      over = true;
      disarm();
      cancelGrace?.();
      outer.removeEventListener("abort", abortedOutside);
      return true;
    };
    const stop = (reason: unknown): void => {
      if (over || controller.signal.aborted) return;
      controller.abort(reason);
      cancelGrace = clock.after(graceMs, () => {
        if (over) return;
        call.unsettled = running.promise;
        over = true;
        disarm();
        outer.removeEventListener("abort", abortedOutside);
        reject(failure === undefined ? (outer.reason as Error) : ignoredAbort(call, failure));
      });
    };
    const abortedOutside = (): void => stop(outer.reason);
    const disarm = arm((error) => {
      if (over || controller.signal.aborted) return;
      failure = error;
      stop(error);
    });
    outer.addEventListener("abort", abortedOutside, { once: true });
    call.signal = controller.signal;

    run(call).then(
      () => {
        if (!finish()) return;
        call.signal = outer;
        resolve();
      },
      (error: Error) => {
        if (!finish()) return;
        call.signal = outer;
        reject(failure === undefined || error === failure ? error : withCause(failure, error));
      },
    );
  });
}

function withCause(failure: ProviderError, cause: unknown): ProviderError {
  const { code, message, retryable, operation } = failure;
  return new ProviderError(code, message, { retryable, operation, cause });
}

function ignoredAbort(call: Call, failure: ProviderError): ProviderError {
  const message = `${failure.message}; ${describeCall(call)} does not stop when asked to, so its connection counts as dead`;
  return new ProviderError(failure.code, message, { retryable: false, operation: failure.operation, cause: failure });
}
