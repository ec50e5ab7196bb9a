import { ProviderError, isProviderError } from "../provider/error.ts";
import { sleep, systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { describeCall } from "./layer.ts";
import type { Call, CallMethod, Layer } from "./layer.ts";

export interface RetryOptions {
  /** How often a call is tried at most, the first attempt included. Default 8. */
  attempts?: number | undefined;
  /** Upper bound of the first wait, doubled with every further one. Default 200. */
  baseMs?: number | undefined;
  /** Upper bound of every wait but those the far side asks for. Default 20 000. */
  maxMs?: number | undefined;
  /** After this no further attempt starts, and the timeout layer shortens the last. Time held by gates is not counted. Default 120 000. */
  totalMs?: number | undefined;
  /** Numbers in [0, 1). */
  random?: (() => number) | undefined;
  /** Methods tried once only, besides `flush` and `commit`: `read` where a reader's order is ascending. */
  except?: readonly CallMethod[] | undefined;
  /** Told before every wait. */
  onRetry?: ((call: Call, error: ProviderError, delayMs: number) => void) | undefined;
  clock?: Clock | undefined;
}

/**
 * Repeats a call that failed with a retryable ProviderError, after a wait that is random between 0 and an exponentially
 * growing bound (full jitter), on top of what the far side asked for. Nothing else is repeated: no other error, no call
 * that was given up while the far side still holds its buffer, and never `flush` or `commit`, whose repetition on a new
 * session would claim more than it did.
 * @throws ProviderError of the last attempt's code, telling how often it was tried, with that attempt's error as cause.
 */
export function retry(options: RetryOptions = {}): Layer {
  const { attempts = 8, baseMs = 200, maxMs = 20_000, totalMs = 120_000, clock = systemClock } = options;
  const { random = Math.random, onRetry } = options;
  if (!Number.isInteger(attempts) || attempts < 1) throw new RangeError(`attempts is ${attempts}; 1 or more is needed`);
  for (const [name, value] of Object.entries({ baseMs, maxMs, totalMs })) {
    if (!(value >= 0)) throw new RangeError(`${name} is ${value}; 0 or more is needed`);
  }
  const once = new Set<CallMethod>(["flush", "commit", ...(options.except ?? [])]);

  return async (call, run) => {
    if (once.has(call.method)) return run(call);
    const startedAt = clock.now();
    call.deadlineAt = startedAt + totalMs;
    for (let attempt = 1; ; attempt++) {
      call.attempt = attempt;
      try {
        return await run(call);
      } catch (error) {
        if (call.signal.aborted || !isProviderError(error)) throw error;
        if (!error.retryable || call.unsettled !== undefined) throw told(call, error, attempt, clock.now() - startedAt);
        // The random part comes on top of what the far side asks for, lest all that it refused come back at once.
        const delayMs = (error.retryAfterMs ?? 0) + random() * Math.min(maxMs, baseMs * 2 ** (attempt - 1));
        if (attempt >= attempts || clock.now() + delayMs >= call.deadlineAt) {
          throw told(call, error, attempt, clock.now() - startedAt);
        }
        onRetry?.(call, error, delayMs);
        await sleep(delayMs, { signal: call.signal }, clock);
      }
    }
  };
}

function told(call: Call, error: ProviderError, attempts: number, elapsedMs: number): ProviderError {
  if (attempts === 1) return error;
  const seconds = (elapsedMs / 1000).toFixed(1);
  return new ProviderError(
    error.code,
    `${describeCall(call)} failed ${attempts} times in ${seconds} s, at last with: ${error.message}`,
    {
      provider: error.provider,
      operation: error.operation,
      retryable: error.retryable,
      retryAfterMs: error.retryAfterMs,
      cause: error,
    },
  );
}
