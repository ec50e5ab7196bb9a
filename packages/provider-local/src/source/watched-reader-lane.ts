import type { BlockReader, ReaderLaneModule, Wait } from "@diskferry/core/provider";
import { type WatchedLaneData, watchedReader } from "./watched-reader.ts";

/** Opens, in a worker thread, a reader that watches its files as the one that named this module does. */
export async function open(data: unknown, wait?: Wait): Promise<BlockReader> {
  const { label, files, inner } = data as WatchedLaneData;
  const module = (await import(inner.module)) as ReaderLaneModule;
  return watchedReader(await module.open(inner.data, wait), label, files);
}
