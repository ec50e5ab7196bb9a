/** What went wrong, in the few kinds a caller acts on differently. */
export type ProviderErrorCode =
  | "CONFIG_INVALID"
  | "AUTH"
  | "DENIED"
  | "NOT_FOUND"
  | "EXISTS"
  | "IN_USE"
  | "UNSUPPORTED"
  | "TRACKING_LOST"
  | "FENCED"
  | "CORRUPT"
  | "THROTTLED"
  | "UNAVAILABLE"
  | "UNEXPECTED";

export interface ProviderErrorOptions {
  /** Name of the provider that failed, for example `local`; absent when core itself failed. */
  provider?: string | undefined;
  /** What was being done, for example `GetSnapshotBlock` or `nbd read`. */
  operation?: string | undefined;
  /** Whether the same call may succeed later. Default: true for THROTTLED and UNAVAILABLE alone. */
  retryable?: boolean | undefined;
  /** How long the far side asked to wait, in milliseconds. */
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

const brand = Symbol.for("diskferry.ProviderError");

/**
 * The one error class for anything a user can meet. The message says what failed, on which object and what to do,
 * and never holds a secret. Recognise it with {@link isProviderError}, never with `instanceof`: two copies of core
 * may live in one process.
 */
export class ProviderError extends Error {
  readonly code: ProviderErrorCode;
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly provider: string | undefined;
  readonly operation: string | undefined;

  constructor(code: ProviderErrorCode, message: string, options: ProviderErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ProviderError";
    this.code = code;
    this.retryable = options.retryable ?? (code === "THROTTLED" || code === "UNAVAILABLE");
    this.retryAfterMs = options.retryAfterMs;
    this.provider = options.provider;
    this.operation = options.operation;
    Object.defineProperty(this, brand, { value: true });
  }
}

/** Whether `error` is a {@link ProviderError}, made by this copy of core or by another. */
export function isProviderError(error: unknown): error is ProviderError {
  return typeof error === "object" && error !== null && brand in error;
}

/** Whether `error` is the rejection of an aborted signal, which is no failure of the disk. */
export function isAbort(error: unknown, signal?: AbortSignal): boolean {
  if (signal?.aborted === true && error === signal.reason) return true;
  return error instanceof Error && (error.name === "AbortError" || (error as { code?: unknown }).code === "ABORT_ERR");
}
