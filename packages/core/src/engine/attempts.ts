import { compose, type Layer } from "../layers/layer.ts";
import { retry } from "../layers/retry.ts";
import { timeout } from "../layers/timeout.ts";

/** How often and how patiently every request is tried. Plain data: it crosses to worker threads. */
export interface AttemptPolicy {
  /** Tries of one request, the first included. Default 8. */
  attempts: number;
  /** Upper bound of the first wait between tries, doubled with each. Default 200. */
  baseMs: number;
  /** Upper bound of every wait. Default 20 000. */
  maxMs: number;
  /** After this no further try begins. Default 120 000. */
  totalMs: number;
  /** How long one try may take. Default 60 000. */
  perAttemptMs: number;
  /** How often in a row a lost reader or writer is opened again without anything getting durable in between. Default 5. */
  reopens: number;
}

export const DEFAULT_ATTEMPTS: AttemptPolicy = {
  attempts: 8,
  baseMs: 200,
  maxMs: 20_000,
  totalMs: 120_000,
  perAttemptMs: 60_000,
  reopens: 5,
};

/** The layers that own retries and deadlines; nothing below them repeats anything. */
export function attemptLayer(policy: AttemptPolicy): Layer {
  const { attempts, baseMs, maxMs, totalMs, perAttemptMs } = policy;
  return compose([retry({ attempts, baseMs, maxMs, totalMs }), timeout({ perAttemptMs })]);
}
