import { closeSync, rmSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type {
  BlockReader,
  BlockWriter,
  CreateRequest,
  OpenRequest,
  OwnedResource,
  TargetProvider,
  Volume,
  Wait,
} from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { forgetEpochs, takeFence } from "../fence/fence.ts";
import { gatedWriter } from "../fence/gated-writer.ts";
import { claimPlace } from "../open-places.ts";
import type { LocalOptions } from "../options.ts";
import { createQcow2 } from "../qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../qcow2/qcow2-reader.ts";
import { openQcow2Writer } from "../qcow2/qcow2-writer.ts";
import { findChildren } from "../qcow2/qcow2-chain.ts";
import { type RawFile, openRaw } from "../raw/raw-file.ts";
import { syncFolder } from "../raw/raw-writer.ts";
import {
  checkDiskSize,
  checkStillOurs,
  fileNameOf,
  holdsOther,
  listOf,
  makeFolder,
  refuseNewDevice,
  stateFolderOf,
  tooSmall,
} from "./in-place.ts";
import { readTargetState, removeTargetState, stateFolderOfFile, writeTargetState } from "./target-state.ts";

/**
 * A target of qcow2 images written in place: one image, or one for each disk in a folder. The image itself holds whose
 * half-written state it is in, so it may be moved between two runs.
 */
export function qcow2Target(options: LocalOptions): TargetProvider {
  const compress = options.compression !== undefined && options.compression !== "none";

  function pathOf(key: string): string {
    if (options.path !== undefined) return resolve(options.path);
    return join(resolve(options.directory!), `${fileNameOf(key)}.qcow2`);
  }

  /** Makes the image where there is none; an empty file counts as none. */
  async function makeImage(path: string, request: CreateRequest): Promise<boolean> {
    const existing = statSync(path, { throwIfNoEntry: false });
    if (existing !== undefined && !(existing.isFile() && existing.size === 0)) return false;
    refuseNewDevice(path);
    if (existing !== undefined) rmSync(path);
    const compression = options.compression === "zstd" ? "zstd" : "zlib";
    await createQcow2({
      path,
      size: request.size,
      clusterSize: options.clusterSize,
      compression,
      signal: request.signal,
    });
    return true;
  }

  async function create(request: CreateRequest): Promise<Volume> {
    checkDiskSize(request.size);
    if (options.directory !== undefined) makeFolder(options.directory);
    const path = pathOf(request.key);
    const made = await makeImage(path, request);
    const file = looked(path);
    const folder = stateFolderOf(file);
    const known = await readTargetState(folder, file.identity);
    if (known?.key !== undefined && known.key !== request.key && options.overwrite !== true)
      throw holdsOther(path, known.key);
    if (!made && known === undefined && options.directory !== undefined) {
      throw localError("EXISTS", `${path} was not made by this job; move it away or choose another directory`);
    }
    const size = await sizeOf(path, request);
    if (size < request.size) {
      if (known?.key !== request.key) throw tooSmall(path, size, request.size);
      throw localError(
        "UNSUPPORTED",
        `${path} has ${size} bytes and its disk ${request.size} now: a qcow2 image in place is not enlarged by this ` +
          `provider; do it with qemu-img resize ${path} ${request.size}, or copy to a chain of recovery points`,
      );
    }
    if (made || known?.key !== request.key) {
      if (known !== undefined && known.key !== request.key) await forgetEpochs(folder);
      const job = request.job === undefined ? {} : { job: request.job };
      const created = made || (known?.created ?? false);
      await writeTargetState(folder, { key: request.key, ...job, size, created, identity: file.identity });
    }
    return volumeOf(file.path, size, request.key);
  }

  async function open(volume: Volume, request: OpenRequest): Promise<BlockWriter> {
    const path = pathIn(volume);
    const file = looked(path);
    const release = claimPlace({ place: file.place, within: file.within, label: path }, "target");
    try {
      const fence = await takeFence(stateFolderOf(file), path, request.epoch, {
        exclusive: true,
        signal: request.signal,
      });
      try {
        await refuseStoodOn(path, request);
        const folder = stateFolderOf(file);
        const known = await readTargetState(folder, file.identity);
        checkStillOurs(path, volume, known);
        if (request.base !== undefined && known?.key !== undefined && known.committed === undefined) {
          throw localError(
            "NOT_FOUND",
            `${path} is not the image that the last run wrote: it was removed or replaced; it takes a full copy`,
          );
        }
        const { abandoned = 0 } = known ?? {};
        const run = abandoned === 0 ? request.run : `${request.run} after ${abandoned}`;
        const writer = await openQcow2Writer(path, { run, compress, signal: request.signal });
        const forget = writer.abandon.bind(writer);
        const named = Object.assign(writer, {
          commit: commitAs(writer, volume, async () => {
            const state = await readTargetState(folder, file.identity);
            if (state?.key !== undefined) await writeTargetState(folder, { ...state, committed: request.run });
          }),
          abandon: async (): Promise<void> => {
            await forget();
            // What was flushed stays in the image, so nobody may resume on it or take it for blank.
            const state = known ?? { size: volume.size, created: false, identity: file.identity };
            await writeTargetState(folder, { ...state, abandoned: abandoned + 1 });
          },
        });
        return gatedWriter(named, fence, path, async () => {
          release();
          await fence.release();
        });
      } catch (error) {
        await fence.release();
        throw error;
      }
    } catch (error) {
      release();
      throw error;
    }
  }

  return {
    create,
    open,
    async adopt(disk: string, wait: Wait = {}): Promise<Volume> {
      const path = looked(resolve(disk)).path;
      return volumeOf(path, await sizeOf(path, wait), undefined);
    },
    read: (volume: Volume, wait?: Wait): Promise<BlockReader> =>
      openQcow2Reader(pathIn(volume), { signal: wait?.signal }),
    remove: removeVolume,
    async *owned(job: string, wait: Wait = {}): AsyncIterable<OwnedResource & { volume?: Volume }> {
      const folder = options.directory === undefined ? undefined : resolve(options.directory);
      const paths = folder === undefined ? [resolve(options.path!)] : listOf(folder).map((name) => join(folder, name));
      for (const path of paths) {
        wait.signal?.throwIfAborted();
        if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) continue;
        const file = looked(path);
        const state = await readTargetState(stateFolderOf(file), file.identity);
        if (state?.job !== job || state.key === undefined) continue;
        const volume = volumeOf(file.path, state.size, state.key);
        yield { kind: "image", id: volume.id, description: `replica ${state.key} in ${path}`, volume };
      }
    },
    async [Symbol.asyncDispose](): Promise<void> {},
  };
}

/** The writer's own commit, whose volume is the one of this target; `committed` is awaited before anybody hears of it. */
export function commitAs(writer: BlockWriter, volume: Volume, committed?: () => Promise<void>): BlockWriter["commit"] {
  const commit = writer.commit.bind(writer);
  return async (request) => {
    const { size } = await commit(request);
    await committed?.();
    return { ...volume, size };
  };
}

/** Looks at an image file without judging its content. */
export function looked(path: string): RawFile {
  const file = openRaw(path, { anySize: true });
  closeSync(file.fd);
  return file;
}

async function sizeOf(path: string, wait: Wait): Promise<number> {
  const reader = await openQcow2Reader(path, { signal: wait.signal });
  await reader[Symbol.asyncDispose]();
  return reader.size;
}

/** Writing to an image that others stand on changes what they all read. */
async function refuseStoodOn(path: string, wait: Wait): Promise<void> {
  const children = await findChildren(path, { signal: wait.signal });
  if (children.length === 0) return;
  throw localError(
    "IN_USE",
    `${path} is the backing file of ${children.join(", ")}; writing to it would change them: name another target`,
  );
}

function volumeOf(path: string, size: number, key: string | undefined): Volume {
  return {
    id: `qcow2:${path}`,
    size,
    data: { format: "qcow2", path, ...(key === undefined ? { adopted: true } : { key }) },
  };
}

function pathIn(volume: Volume): string {
  const path = volume.data?.["path"];
  if (typeof path === "string") return path;
  throw localError("CONFIG_INVALID", `the volume ${volume.id} is none of qcow2 images: it names no path`);
}

async function removeVolume(volume: Volume, wait: Wait = {}): Promise<void> {
  const path = pathIn(volume);
  if (statSync(path, { throwIfNoEntry: false }) === undefined) {
    await removeTargetState(stateFolderOfFile(path));
    return;
  }
  const file = looked(path);
  const folder = stateFolderOf(file);
  const state = await readTargetState(folder, file.identity);
  const isTheirs = state?.key === undefined || state.key !== volume.data?.["key"];
  if (isTheirs) return;
  if (state.created) {
    await refuseStoodOn(path, wait);
    rmSync(path, { force: true });
    await syncFolder(dirname(path));
  }
  await removeTargetState(folder);
}
