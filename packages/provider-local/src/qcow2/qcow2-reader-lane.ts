import type { BlockReader, Wait } from "@diskferry/core/provider";
import { openReaderLane } from "./qcow2-reader.ts";

/** Opens, in a worker thread, a reader equal to the one that named this module as its lane. */
export async function open(data: unknown, wait?: Wait): Promise<BlockReader> {
  return openReaderLane(data, wait);
}
