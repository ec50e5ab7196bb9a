import { ProviderError } from "@diskferry/core";

/** The error for what cannot be asked of the command: ends it with 2. */
export function usageError(message: string): ProviderError {
  return new ProviderError("CONFIG_INVALID", message, { operation: "read arguments" });
}
