import type { BlockReader, Wait } from "@diskferry/core/provider";
import { type NbdReaderLaneData, openNbdReaderLane } from "./nbd-reader.ts";

/** Opens, in a worker thread, a reader of the same export over a connection of its own. */
export async function open(data: unknown, wait?: Wait): Promise<BlockReader> {
  return openNbdReaderLane(data as NbdReaderLaneData, wait);
}
