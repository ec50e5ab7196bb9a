import { closeSync } from "node:fs";
import type { BlockReader, Lane } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { contentStamp, openRaw } from "../raw/raw-file.ts";

/** A file whose content must stay as it was. */
export interface WatchedFile {
  path: string;
  stamp: string;
}

/** What the lane of a watched reader is opened with. */
export interface WatchedLaneData {
  /** Name for people. */
  label: string;
  files: readonly WatchedFile[];
  /** The reader's own lane. */
  inner: Lane;
}

const laneModule = new URL(
  import.meta.url.endsWith(".ts") ? "./watched-reader-lane.ts" : "./watched-reader-lane.js",
  import.meta.url,
).href;

/**
 * Reads like `reader`, which it takes over, and rejects once one of the files was written to: a disk that was stated to
 * be frozen is held to it, in every lane.
 */
export function watchedReader(reader: BlockReader, label: string, files: readonly WatchedFile[]): BlockReader {
  const open = files.map(({ path, stamp }) => ({ stamp, file: openRaw(path, { anySize: true }) }));
  const inner = reader.lane;
  return {
    size: reader.size,
    blockSize: reader.blockSize,
    concurrency: reader.concurrency ?? 1,
    ...(reader.preferredLength === undefined ? {} : { preferredLength: reader.preferredLength }),
    ...(inner === undefined
      ? {}
      : { lane: { ...inner, module: laneModule, data: { label, files, inner } satisfies WatchedLaneData } }),
    async read(offset, into, options): Promise<void> {
      await reader.read(offset, into, options);
      if (open.every(({ file, stamp }) => contentStamp(file.fd) === stamp)) return;
      throw localError(
        "CORRUPT",
        `${label} was written to while it was copied, so the copy is no single point in time; ` +
          "stop what writes to it and copy again, or do not state that it is frozen",
        { operation: "read" },
      );
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await reader[Symbol.asyncDispose]();
      for (const { file } of open.splice(0)) closeSync(file.fd);
    },
  };
}
