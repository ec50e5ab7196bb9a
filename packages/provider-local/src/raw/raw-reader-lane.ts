import type { BlockReader } from "@diskferry/core/provider";
import { type RawReaderLaneData, openRawReaderLane } from "./raw-reader.ts";

/** Opens, in a worker thread, a reader equal to the one that named this module as its lane. */
export async function open(data: unknown): Promise<BlockReader> {
  return openRawReaderLane(data as RawReaderLaneData);
}
