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
  if (call.signal.aborted) return Promise.reject(call.signal.reason as Error);
  return new Attempt(call, graceMs, clock).run(run, arm);
}

/** A call under way. One object and few functions, since there is one for every MiB read and another for its write. */
class Attempt {
  readonly #call: Call;
  readonly #outer: AbortSignal;
  readonly #graceMs: number;
  readonly #clock: Clock;
  readonly #controller = new AbortController();
  #failure: ProviderError | undefined;
  #disarm: (() => void) | undefined;
  #cancelGrace: (() => void) | undefined;
  /** Whether the caller was answered. */
  #over = false;
  /** Told when a call settles that outlived its grace. */
  #letGo: (() => void) | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  #onAbort: (() => void) | undefined;

  constructor(call: Call, graceMs: number, clock: Clock) {
    this.#call = call;
    this.#outer = call.signal;
    this.#graceMs = graceMs;
    this.#clock = clock;
  }

  run(run: Run, arm: (giveUp: (error: ProviderError) => void) => () => void): Promise<void> {
    this.#disarm = arm((error) => {
      if (this.#over || this.#controller.signal.aborted) return;
      this.#failure = error;
      this.#stop(error);
    });
    // Neither an object nor written where it is assigned: Node for the one and V8 for the other take it for something that
    // stays, make it in the old generation, and it keeps all of this call alive until the next full collection.
    const onAbort = (): void => this.#stop(this.#outer.reason);
    this.#onAbort = onAbort;
    this.#outer.addEventListener("abort", onAbort, ONCE);
    this.#call.signal = this.#controller.signal;
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      run(this.#call).then(
        () => {
          if (this.#finish()) resolve();
        },
        (error: unknown) => {
          if (!this.#finish()) return;
          const failure = this.#failure;
          reject(failure === undefined || error === failure ? error : withCause(failure, error));
        },
      );
    });
  }

  /** Ends the wait of the call itself. False: the caller was answered before. */
  #finish(): boolean {
    this.#letGo?.();
    if (this.#over) return false;
    this.#answer();
    this.#cancelGrace?.();
    this.#call.signal = this.#outer;
    return true;
  }

  #answer(): void {
    this.#over = true;
    this.#disarm?.();
    if (this.#onAbort !== undefined) this.#outer.removeEventListener("abort", this.#onAbort);
  }

  #stop(reason: unknown): void {
    if (this.#over || this.#controller.signal.aborted) return;
    this.#controller.abort(reason);
    this.#cancelGrace = this.#clock.after(this.#graceMs, () => {
      if (this.#over) return;
      this.#call.unsettled = new Promise((resolve) => (this.#letGo = resolve));
      this.#answer();
      this.#reject?.(this.#failure === undefined ? this.#outer.reason : ignoredAbort(this.#call, this.#failure));
    });
  }
}

const ONCE = { once: true };

function withCause(failure: ProviderError, cause: unknown): ProviderError {
  const { code, message, retryable, operation } = failure;
  return new ProviderError(code, message, { retryable, operation, cause });
}

function ignoredAbort(call: Call, failure: ProviderError): ProviderError {
  const message = `${failure.message}; ${describeCall(call)} does not stop when asked to, so its connection counts as dead`;
  return new ProviderError(failure.code, message, { retryable: false, operation: failure.operation, cause: failure });
}
