import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Consistency } from "../provider/source.ts";
import { ProviderError } from "../provider/error.ts";
import type { Layer } from "../layers/layer.ts";
import { DEFAULT_ATTEMPTS, type AttemptPolicy } from "./attempts.ts";
import type { JobOptions, TrackingLostPolicy, VerifyMode } from "./job.ts";
import type { Limits } from "./limits.ts";

/** A job's options with every default filled in. */
export interface Settings {
  consistency: Consistency;
  mode: "auto" | "full" | "rescan";
  onTrackingLost: TrackingLostPolicy;
  verify: VerifyMode;
  canary: number;
  digest: DigestAlgorithm | "none" | undefined;
  leaf: number | undefined;
  parallelDisks: number;
  workers: number | undefined;
  memory: number;
  attempts: AttemptPolicy;
  limits: Limits | undefined;
  layers: readonly Layer[];
  groupBytes: number;
  groupMs: number;
  loadIntervalMs: number;
  receiptKey: string | undefined;
  notice: (message: string) => void;
}

/** Consistencies from worst to best. */
export const CONSISTENCIES: readonly Consistency[] = ["none", "disk", "crash", "filesystem", "application"];

/** Fills in defaults and refuses what cannot work. @throws ProviderError CONFIG_INVALID naming the option. */
export function settingsOf(options: JobOptions = {}): Settings {
  const { leaf } = options;
  if (leaf !== undefined && (leaf < 64 << 10 || leaf > 1 << 20 || (leaf & (leaf - 1)) !== 0)) {
    throw invalid("leaf", leaf, "a power of two from 65536 to 1048576");
  }
  for (const name of ["parallelDisks", "memory"] as const) {
    const value = options[name];
    if (value !== undefined && !(Number.isInteger(value) && value > 0))
      throw invalid(name, value, "a whole number above 0");
  }
  if (options.workers !== undefined && !(Number.isInteger(options.workers) && options.workers >= 0)) {
    throw invalid("workers", options.workers, "a whole number, 0 for none");
  }
  const { canary = 0, loadIntervalMs = 30_000 } = options;
  if (!(Number.isFinite(loadIntervalMs) && loadIntervalMs >= 0)) {
    throw invalid("loadIntervalMs", loadIntervalMs, "milliseconds, 0 for never");
  }
  if (!(Number.isSafeInteger(canary) && canary >= 0)) {
    throw invalid("canary", canary, "a whole number of leaves, 0 for none");
  }
  if (canary > 0 && options.digest === "none") {
    throw new ProviderError(
      "CONFIG_INVALID",
      "Option canary compares digests, and digest is none: let one of them go.",
    );
  }
  return {
    consistency: options.consistency ?? "none",
    mode: options.mode ?? "auto",
    onTrackingLost: options.onTrackingLost ?? "rescan",
    verify: options.verify ?? "written",
    canary,
    digest: options.digest,
    leaf,
    parallelDisks: options.parallelDisks ?? 4,
    workers: options.workers,
    memory: options.memory ?? 32 << 20,
    attempts: { ...DEFAULT_ATTEMPTS, ...options.attempts },
    limits: options.limits,
    layers: options.layers ?? [],
    groupBytes: options.journal?.bytes ?? 256 << 20,
    groupMs: options.journal?.ms ?? 5_000,
    loadIntervalMs,
    receiptKey: options.receiptKey,
    notice: options.notice ?? (() => {}),
  };
}

function invalid(option: string, value: unknown, wanted: string): ProviderError {
  return new ProviderError("CONFIG_INVALID", `Option ${option} is ${String(value)}; it has to be ${wanted}.`);
}
