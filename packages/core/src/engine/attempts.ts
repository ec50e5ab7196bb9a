import { compose, type Layer } from "../layers/layer.ts";
import { retry, type RetryOptions } from "../layers/retry.ts";
import { timeout } from "../layers/timeout.ts";
import { callMessage, publish, traceCalls } from "../telemetry/channels.ts";

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
  /** How long one flush may take. Default 600 000. */
  flushMs: number;
  /**
   * How long a call that is no transfer may take with all its tries: a snapshot, a release, a commit, creating and opening.
   * Platforms take hours for some of them and providers bound their own waits; this ends what hangs all the same. Default
   * 86 400 000, a day.
   */
  controlMs: number;
  /**
   * How often a worker looks whether it still holds its job; what it began before it found out ends within one request.
   * Default 5 000.
   */
  leaseMs: number;
  /** How often in a row a lost reader or writer is opened again without anything getting durable in between. Default 5. */
  reopens: number;
}

export const DEFAULT_ATTEMPTS: AttemptPolicy = {
  attempts: 8,
  baseMs: 200,
  maxMs: 20_000,
  totalMs: 120_000,
  perAttemptMs: 60_000,
  flushMs: 600_000,
  controlMs: 86_400_000,
  leaseMs: 5_000,
  reopens: 5,
};

/** The same for calls that are no transfers; of several tries of one call each may take what is left of the whole. */
export function controlLayer(policy: AttemptPolicy): Layer {
  const { attempts, baseMs, maxMs, controlMs, flushMs, perAttemptMs } = policy;
  const bounds = timeout({ perAttemptMs, perMethodMs: { flush: flushMs, commit: controlMs } });
  return compose([retry({ attempts, baseMs, maxMs, totalMs: controlMs, onRetry }), traceCalls(), bounds]);
}

/** The layers that own retries and deadlines; nothing below them repeats anything. */
export function attemptLayer(policy: AttemptPolicy): Layer {
  const { attempts, baseMs, maxMs, totalMs, perAttemptMs } = policy;
  return compose([retry({ attempts, baseMs, maxMs, totalMs, onRetry }), traceCalls(), timeout({ perAttemptMs })]);
}

const onRetry: RetryOptions["onRetry"] = (call, { code, message }, delayMs) =>
  publish("diskferry:call-retry", () => ({ ...callMessage(call), code, message, delayMs }));
