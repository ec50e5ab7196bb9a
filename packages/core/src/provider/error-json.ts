import { isProviderError, ProviderError, type ProviderErrorCode } from "./error.ts";

/** An error as plain data, to cross a thread or a file. */
export interface ErrorJson {
  code?: ProviderErrorCode;
  name: string;
  message: string;
  retryable?: boolean;
  retryAfterMs?: number | undefined;
  provider?: string | undefined;
  operation?: string | undefined;
  cause?: ErrorJson;
}

const MOST_CAUSES = 4;

/** Takes down an error and its causes. */
export function errorToJson(error: unknown, depth = 0): ErrorJson {
  if (!(error instanceof Error) && !isProviderError(error)) return { name: "Error", message: String(error) };
  const { name, message, cause } = error;
  const json: ErrorJson = isProviderError(error)
    ? {
        code: error.code,
        name,
        message,
        retryable: error.retryable,
        retryAfterMs: error.retryAfterMs,
        provider: error.provider,
        operation: error.operation,
      }
    : { name, message };
  if (cause !== undefined && depth < MOST_CAUSES) json.cause = errorToJson(cause, depth + 1);
  return json;
}

/** Brings an error back to life, brand included. */
export function errorFromJson(json: ErrorJson): Error {
  const cause = json.cause === undefined ? undefined : errorFromJson(json.cause);
  if (json.code !== undefined) return new ProviderError(json.code, json.message, { ...json, cause });
  const error = new Error(json.message, cause === undefined ? undefined : { cause });
  error.name = json.name;
  return error;
}
