import type { LaneWriter, Wait } from "@diskferry/core/provider";
import { type NbdWriterLaneData, openNbdWriterLane } from "./nbd-writer.ts";

/** Opens, in a worker thread, a writer of the same export over a connection of its own. */
export async function open(data: unknown, wait?: Wait): Promise<LaneWriter> {
  return openNbdWriterLane(data as NbdWriterLaneData, wait);
}
