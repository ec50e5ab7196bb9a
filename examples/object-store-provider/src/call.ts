import { isProviderError, ProviderError, type ProviderErrorCode, type Wait } from "@diskferry/core/provider";

/** The one table from what the platform says to what diskferry acts on. */
const codes: Record<string, ProviderErrorCode> = {
  NoSuchLayer: "NOT_FOUND",
  EACCES: "DENIED",
  ENOSPC: "UNAVAILABLE",
};

/** Every call of the platform goes through here: an aborted one is not begun, and what it throws is translated. */
export async function call<Result>(operation: string, wait: Wait = {}, act: () => Promise<Result>): Promise<Result> {
  wait.signal?.throwIfAborted();
  try {
    return await act();
  } catch (cause) {
    if (isProviderError(cause)) throw cause;
    const { code = "", message } = cause as Error & { code?: string };
    const options = { provider: "block-store", operation, cause };
    throw new ProviderError(codes[code] ?? "UNEXPECTED", `${operation}: ${message}`, options);
  }
}
