import { closeSync, fsync, fsyncSync, ftruncateSync, openSync, rmSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
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
import { localError, translate } from "../errors.ts";
import { forgetEpochs, takeFence } from "../fence/fence.ts";
import { claimPlace } from "../open-places.ts";
import { dataExtents } from "../raw/data-extents.ts";
import { type RawFile, contentStamp, openRaw } from "../raw/raw-file.ts";
import { openRawReader } from "../raw/raw-reader.ts";
import { openRawWriter, syncFolder } from "../raw/raw-writer.ts";
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
import {
  type TargetState,
  beginRun,
  readTargetState,
  removeTargetState,
  stateFolderOfFile,
  writeTargetState,
} from "./target-state.ts";

/** Where raw replicas go: one file or device, or a file for each disk in a folder. */
export interface RawTargetOptions {
  path?: string | undefined;
  directory?: string | undefined;
  /** Take over what holds another job's replica. */
  overwrite?: boolean | undefined;
}

/** A target of raw files and block devices, written in place. */
export function rawTarget(options: RawTargetOptions): TargetProvider {
  function pathOf(key: string): string {
    if (options.path !== undefined) return resolve(options.path);
    return join(resolve(options.directory!), `${fileNameOf(key)}.raw`);
  }

  async function create(request: CreateRequest): Promise<Volume> {
    request.signal?.throwIfAborted();
    checkDiskSize(request.size);
    if (options.directory !== undefined) makeFolder(options.directory);
    const path = pathOf(request.key);
    const made = makeFile(path, request.size);
    const file = openRaw(path, { write: true });
    try {
      return await settle(file, made, request);
    } finally {
      closeSync(file.fd);
    }
  }

  /** Decides whether what is there is this key's volume or may become it. */
  async function settle(file: RawFile, made: boolean, request: CreateRequest): Promise<Volume> {
    const folder = stateFolderOf(file);
    const known = await readTargetState(folder, file.identity);
    if (known?.key !== undefined && known.key !== request.key && options.overwrite !== true) {
      throw holdsOther(file.path, known.key);
    }
    if (!made && known === undefined && options.directory !== undefined) {
      throw localError("EXISTS", `${file.path} was not made by this job; move it away or choose another directory`);
    }
    let { size } = file;
    // What was cut off by somebody else is not what an earlier run committed, whatever its length is made to be again.
    const wasCut = known !== undefined && size < known.size;
    if (size < request.size) {
      if (known?.created !== true || known.key !== request.key) throw tooSmall(file.path, size, request.size);
      ftruncateSync(file.fd, request.size);
      ({ size } = request);
    }
    if (known?.key !== undefined && known.key !== request.key) await forgetEpochs(folder);
    if (made || wasCut || known?.key !== request.key || known.size !== size) {
      const created = made || (known?.created ?? false);
      const stamp = made ? contentStamp(file.fd) : await stampOfHole(file, request);
      const state: TargetState = {
        ...(known?.key === request.key && !wasCut ? known : {}),
        key: request.key,
        ...(request.job === undefined ? {} : { job: request.job }),
        size,
        created,
        identity: file.identity,
        ...(stamp === undefined ? {} : { stamp }),
      };
      await writeTargetState(folder, state);
    }
    return volumeOf(file, size, request.key);
  }

  async function open(volume: Volume, request: OpenRequest): Promise<BlockWriter> {
    const path = pathIn(volume);
    const file = openRaw(path);
    closeSync(file.fd);
    const label = path;
    const release = claimPlace({ place: file.place, within: file.within, label }, "target");
    try {
      const folder = stateFolderOf(file);
      const fence = await takeFence(folder, label, request.epoch, { signal: request.signal });
      try {
        return await writerOf(file, folder, volume, request, fence, release);
      } catch (error) {
        await fence.release();
        throw error;
      }
    } catch (error) {
      release();
      throw error;
    }
  }

  async function writerOf(
    file: RawFile,
    folder: string,
    volume: Volume,
    request: OpenRequest,
    fence: Awaited<ReturnType<typeof takeFence>>,
    release: () => void,
  ): Promise<BlockWriter> {
    const found = await readTargetState(folder, file.identity);
    checkStillOurs(file.path, volume, found);
    const known = found ?? { size: file.size, created: false, identity: file.identity };
    if (file.size < volume.size) throw tooSmall(file.path, file.size, volume.size);
    const isUnwritten = known.run === undefined && known.committed === undefined;
    if (request.base !== undefined && known.key !== undefined && isUnwritten) {
      throw localError(
        "NOT_FOUND",
        `${file.path} is not the file that the last run wrote: it was removed, replaced or cut; it takes a full copy`,
      );
    }
    // Only a file that nobody touched since it was found to be blank, or only this run, is proven to be so elsewhere.
    const untouched = known.run === undefined && known.committed === undefined && known.stamp === file.stamp;
    const state = await beginRun(folder, known, request.run, untouched);
    const blank = request.base === undefined && state.firstRun === request.run;
    const current = async (): Promise<TargetState> => (await readTargetState(folder, file.identity)) ?? state;
    return openRawWriter(file.path, {
      generation: `${file.identity}:${state.generation ?? ""}`,
      blank,
      place: file.place,
      gate: fence.gate,
      checkFence: () => fence.check(),
      async committed() {
        await writeTargetState(folder, { ...(await current()), committed: request.run });
        return { ...volume, size: file.size };
      },
      async discard(fd) {
        const now = await current();
        const { run: _run, generation: _generation, firstRun, ...rest } = now;
        // What was there before this run is gone in place; only a file that began blank with it can begin again.
        if (firstRun === request.run && now.committed === undefined && now.created) {
          ftruncateSync(fd, 0);
          ftruncateSync(fd, file.size);
          await writeTargetState(folder, { ...rest, stamp: contentStamp(fd) });
          return;
        }
        await writeTargetState(folder, rest);
      },
      async closed() {
        release();
        await fence.release();
      },
    });
  }

  return {
    create,
    open,
    async adopt(disk: string): Promise<Volume> {
      const file = openRaw(disk, { write: true });
      closeSync(file.fd);
      return volumeOf(file, file.size, undefined);
    },
    read: (volume: Volume): Promise<BlockReader> => openRawReader(pathIn(volume)),
    async remove(volume: Volume): Promise<void> {
      await removeVolume(volume);
    },
    async *owned(job: string): AsyncIterable<OwnedResource & { volume?: Volume }> {
      yield* ownedFiles(options, job);
    },
    async [Symbol.asyncDispose](): Promise<void> {},
  };
}

/** Makes a new sparse file; false when something has the name. Never in /dev: a mistyped device is no new file. */
function makeFile(path: string, size: number): boolean {
  const existing = statSync(path, { throwIfNoEntry: false });
  // An empty file holds nothing that could be lost, so it counts as new.
  const isEmpty = existing?.isFile() === true && existing.size === 0;
  if (existing !== undefined && !isEmpty) return false;
  refuseNewDevice(path);
  try {
    const fd = openSync(path, isEmpty ? "r+" : "wx", 0o600);
    try {
      ftruncateSync(fd, size);
      // What it held before it was emptied must not come back with a power loss.
      if (isEmpty) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    return true;
  } catch (error) {
    throw translate(error, "creating", path);
  }
}

const fsyncOf: (fd: number) => Promise<void> = promisify(fsync);

/**
 * The content's stamp of a file that was there before us and is one hole from end to end, as `truncate` makes them: as blank as
 * one that we made. Undefined for any other, and where holes cannot be listed.
 */
async function stampOfHole(file: RawFile, wait: Wait): Promise<string | undefined> {
  if (file.kind !== "file" || file.allocated !== 0) return undefined;
  const stamp = contentStamp(file.fd);
  // What was punched out or cut off a moment ago must not come back with a power loss.
  await fsyncOf(file.fd);
  const listing = dataExtents(file.fd, file.size, wait);
  const first = await listing.next();
  if (first.done !== true) {
    await listing.return({ complete: false });
    return undefined;
  }
  return first.value.complete && contentStamp(file.fd) === stamp ? stamp : undefined;
}

function volumeOf(file: RawFile, size: number, key: string | undefined): Volume {
  const data = { format: "raw", path: file.path, ...(key === undefined ? { adopted: true } : { key }) };
  return { id: `raw:${file.path}`, size, data };
}

function pathIn(volume: Volume): string {
  const path = volume.data?.["path"];
  if (typeof path === "string") return path;
  throw localError("CONFIG_INVALID", `the volume ${volume.id} is none of raw files: it names no path`);
}

async function removeVolume(volume: Volume): Promise<void> {
  const path = pathIn(volume);
  if (statSync(path, { throwIfNoEntry: false }) === undefined) {
    await removeTargetState(stateFolderOfFile(path));
    return;
  }
  const file = openRaw(path);
  closeSync(file.fd);
  const folder = stateFolderOf(file);
  const state = await readTargetState(folder, file.identity);
  const isOurs = state?.created === true && state.key !== undefined && state.key === volume.data?.["key"];
  if (isOurs && file.kind === "file") {
    rmSync(path, { force: true });
    await syncFolder(dirname(path));
  }
  // A device, and a file that was there before us, stay: the replica in it is only no longer ours.
  if (isOurs || state?.key === volume.data?.["key"]) await removeTargetState(folder);
}

async function* ownedFiles(
  options: RawTargetOptions,
  job: string,
  wait: Wait = {},
): AsyncIterable<OwnedResource & { volume: Volume }> {
  for (const path of candidates(options)) {
    wait.signal?.throwIfAborted();
    const file = openRaw(path);
    closeSync(file.fd);
    const state = await readTargetState(stateFolderOf(file), file.identity);
    if (state?.job !== job || state.key === undefined) continue;
    const volume = volumeOf(file, file.size, state.key);
    yield { kind: file.kind, id: volume.id, description: `replica ${state.key} in ${path}`, volume };
  }
}

function candidates(options: RawTargetOptions): string[] {
  const paths =
    options.path !== undefined
      ? [resolve(options.path)]
      : listOf(resolve(options.directory!)).map((name) => join(resolve(options.directory!), name));
  return paths.filter((path) => {
    const stats = statSync(path, { throwIfNoEntry: false });
    return stats !== undefined && (stats.isBlockDevice() || (stats.isFile() && stats.size % 512 === 0));
  });
}
