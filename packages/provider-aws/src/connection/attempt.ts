import { awsError } from "../errors.ts";

/**
 * Runs one attempt of a call under its own deadline, its answer's body included: AWS may accept a request and never
 * answer, and no layer of the SDK notices.
 * @throws ProviderError UNAVAILABLE, retryable, after `ms`; the outer signal's reason when that one aborts.
 */
export async function attempt<Result>(
  request: { operation: string; object: string; ms: number; signal: AbortSignal | undefined },
  run: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const { operation, object, ms, signal } = request;
  signal?.throwIfAborted();
  const controller = new AbortController();
  let abort: (() => void) | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  // Raced, because the SDK has swallowed aborts while a body was read.
  const ended = new Promise<never>((_, reject) => {
    const end = (reason: unknown): void => {
      controller.abort(reason);
      reject(reason);
    };
    abort = () => end(signal?.reason);
    timer = setTimeout(() => {
      const message = `${operation} of ${object} had no whole answer after ${ms} ms. AWS or the network hangs; it is tried again.`;
      end(awsError("UNAVAILABLE", message, { operation }));
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
  const running = run(controller.signal);
  try {
    return await Promise.race([running, ended]);
  } finally {
    clearTimeout(timer);
    if (abort !== undefined) signal?.removeEventListener("abort", abort);
    running.catch(() => {});
  }
}
