import * as path from "node:path";
import { randomBytes } from "node:crypto";
import type { Wait } from "@diskferry/core/provider";
import { errnoOf, localError } from "../errors.ts";
import { type Qcow2Compression, hasZstd } from "./compression.ts";
import { type ImageFile, type ImageFiles, localFiles } from "./image-file.ts";
import { SECTOR, encodeHeader, newFixedHeader } from "./qcow2-header.ts";
import { planRefcounts, writeRefcounts } from "./refcounts.ts";

export interface CreateQcow2Options extends Wait {
  /** Where the image goes; must not exist. */
  path: string;
  /** Bytes; a multiple of 512. */
  size: number;
  /** Bytes; a power of two from 512 to 2 MiB. Default 64 KiB. */
  clusterSize?: number | undefined;
  /** What the image stands on: a path, relative to the image's folder or absolute, and its format. */
  backing?: { path: string; format: "qcow2" | "raw" } | undefined;
  /** How clusters are packed when a writer is told to. Default zlib, which every reader knows. */
  compression?: Qcow2Compression | undefined;
  files?: ImageFiles | undefined;
}

const DEFAULT_CLUSTER = 65536;

/** Whether a file is one that a creation or a merge was stopped in the middle of: nothing stands on it or needs it. */
export function isUnfinished(name: string): boolean {
  return /\.(?:[0-9a-f]{12}\.new|merging)$/.test(name);
}

/**
 * Makes an empty qcow2 image of version 3. It appears under its name whole and durable, or not at all.
 * @throws ProviderError EXISTS, DENIED, UNSUPPORTED (too large for its clusters, a backing name without room),
 * UNAVAILABLE (no space). RangeError for sizes that no image can have.
 */
export async function createQcow2(options: CreateQcow2Options): Promise<void> {
  const files = options.files ?? localFiles();
  const clusterSize = options.clusterSize ?? DEFAULT_CLUSTER;
  const clusterBits = Math.log2(clusterSize);
  if (!Number.isInteger(clusterBits) || clusterBits < 9 || clusterBits > 21) {
    throw new RangeError(`clusters of ${clusterSize} bytes are not possible: a power of two from 512 to 2097152`);
  }
  if (!Number.isSafeInteger(options.size) || options.size < 0 || options.size % SECTOR !== 0) {
    throw new RangeError(`a disk of ${options.size} bytes is not possible: a multiple of ${SECTOR}`);
  }
  if (options.compression === "zstd" && !hasZstd()) {
    throw localError("UNSUPPORTED", `zstd needs Node 22.15 or later; use zlib for ${options.path}`, {
      operation: "create",
    });
  }
  await refuseExisting(files, options.path);
  const bytes = layOut(options, clusterSize, clusterBits);
  const temporary = `${options.path}.${randomBytes(6).toString("hex")}.new`;
  const file = await files.open(temporary, "create");
  try {
    try {
      await bytes.write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    options.signal?.throwIfAborted();
    await refuseExisting(files, options.path);
    await files.rename(temporary, options.path);
  } catch (error) {
    await files.remove(temporary);
    throw error;
  }
  await files.syncFolder(path.dirname(options.path));
}

async function refuseExisting(files: ImageFiles, at: string): Promise<void> {
  let file: ImageFile;
  try {
    file = await files.open(at, "read");
  } catch (error) {
    if ((error as { code?: unknown }).code === "NOT_FOUND" || errnoOf(error) === "ENOENT") return;
    throw error;
  }
  await file.close();
  throw localError("EXISTS", `${at} exists already: choose another name or remove it`, { operation: "create" });
}

function layOut(
  options: CreateQcow2Options,
  clusterSize: number,
  clusterBits: number,
): { write(file: ImageFile): Promise<void> } {
  const l1Size = Math.ceil(options.size / (clusterSize * (clusterSize / 8)));
  if (l1Size * 8 > 32 * 1024 * 1024) {
    throw localError(
      "UNSUPPORTED",
      `${options.path}: ${options.size} bytes are too many for clusters of ${clusterSize}; use larger ones`,
      {
        operation: "create",
      },
    );
  }
  const l1Clusters = Math.ceil((l1Size * 8) / clusterSize);
  const place = planRefcounts(1 + l1Clusters, clusterSize, 1, true);
  const l1Offset = (1 + place.tableClusters + place.blocks) * clusterSize;
  const fixed = newFixedHeader({
    clusterBits,
    size: options.size,
    l1Size,
    l1Offset,
    refcountOffset: place.first * clusterSize,
    refcountClusters: place.tableClusters,
    compression: options.compression ?? "zlib",
  });
  const backing = options.backing === undefined ? null : { name: options.backing.path, format: options.backing.format };
  const { sector, name } = encodeHeader(
    options.path,
    { fixed, extensions: [], backing: undefined, backingAt: undefined, clusterSize },
    { backing },
  );
  return {
    async write(file) {
      await file.truncate(place.clusters * clusterSize);
      await writeRefcounts(file, clusterSize, place, async (first, into) => {
        for (let index = 0; index < into.length; index++) into[index] = first + index < place.clusters ? 1 : 0;
      });
      if (name !== undefined) await file.write(name.bytes, name.offset);
      await file.write(sector, 0);
    },
  };
}
