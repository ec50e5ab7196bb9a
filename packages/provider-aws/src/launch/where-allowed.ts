import { isProviderError } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";

/**
 * What a job made of a kind, where these credentials may look: a job that only replicates need not be allowed to look at
 * instances and volumes, and then made none. A notice says what could not be listed.
 */
export async function* whereAllowed<Item>(
  connection: AwsConnection,
  job: string,
  items: AsyncIterable<Item>,
): AsyncGenerator<Item> {
  try {
    yield* items;
  } catch (error) {
    if (!isProviderError(error) || error.code !== "DENIED") throw error;
    connection.notice(`What job ${job} made could not all be listed: ${error.message}`);
  }
}
