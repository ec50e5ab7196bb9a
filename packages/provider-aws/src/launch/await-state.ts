import type { Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { awsError } from "../errors.ts";
import { sleep } from "../limits/clock.ts";

/**
 * Looks again and again until `look` finds something.
 * @throws ProviderError UNAVAILABLE after `ms`, retryable: what is under way goes on, and is taken up when asked again
 */
export async function awaitState<Result>(
  connection: AwsConnection,
  { what, ms, operation, signal }: Wait & { what: string; ms: number; operation: string },
  look: () => Promise<Result | undefined>,
): Promise<Result> {
  const end = performance.now() + ms;
  for (;;) {
    signal?.throwIfAborted();
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() >= end)
      throw awsError(
        "UNAVAILABLE",
        `${what} did not come about within ${ms} ms. It may still: ask again, and it is taken up.`,
        {
          operation,
        },
      );
    await sleep(connection.settings.timeouts.pollMs, signal);
  }
}
