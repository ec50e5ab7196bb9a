import { isProviderError } from "../provider/error.ts";
import type { Wait } from "../provider/wait.ts";
import { sleep } from "../layers/clock.ts";
import type { Lease } from "../state/state-store.ts";
import type { Job } from "./job.ts";
import type { Settings } from "./settings.ts";

/** Fails with FENCED where a newer worker is why something failed: it committed the run, or released its snapshot. */
export async function toldAsFenced(error: unknown, check: () => Promise<void>): Promise<never> {
  try {
    await check();
  } catch (fenced) {
    if (isProviderError(fenced) && fenced.code === "FENCED") throw fenced;
  }
  throw error;
}

/** Takes a job over, and waits until a worker that may still be alive has finished what it began. */
export async function acquire(job: Job, settings: Settings, wait: Wait): Promise<Lease> {
  const lease = await job.store.acquire(job.id, wait);
  const { previous } = lease;
  if (previous === undefined || previous.released || previous.alive === false || job.target.fences === true)
    return lease;
  // The older worker finds out at its next look, and what it began before that ends within one request.
  const waitMs = longestTakeover(settings);
  settings.notice(
    `Another worker (epoch ${previous.epoch}) may still write for job ${job.id}; waiting ${waitMs / 1000} s, as long ` +
      `as it may take to find out and to end what it began.`,
  );
  try {
    await sleep(waitMs, wait);
  } catch (error) {
    await lease.release();
    throw error;
  }
  return lease;
}

/** How long a worker that was superseded may still write to a target that cuts nobody off, in milliseconds. */
export function longestTakeover({ attempts }: Pick<Settings, "attempts">): number {
  return attempts.leaseMs + attempts.perAttemptMs;
}

/** Looks again and again whether a lease still holds, until it is disposed. */
export interface LeaseWatch extends Disposable {
  /** Aborts with FENCED once somebody else holds the job. */
  readonly signal: AbortSignal;
}

/**
 * Looks every `everyMs` whether a worker still holds its job. Without it, a worker that was superseded while it waited, for a
 * backup window or a slow target, would begin writes long after its successor waited them out.
 */
export function watchLease(check: () => Promise<void>, everyMs: number): LeaseWatch {
  const lost = new AbortController();
  let looking = false;
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    check().then(
      () => (looking = false),
      (error: unknown) => {
        looking = false;
        // State that cannot be read now is read again at the next look, and before every flush.
        if (isProviderError(error) && error.code === "FENCED") lost.abort(error);
      },
    );
  }, everyMs);
  timer.unref();
  return { signal: lost.signal, [Symbol.dispose]: () => clearInterval(timer) };
}
