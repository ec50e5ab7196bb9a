import { createHash } from "node:crypto";
import { readFile, rename, rm } from "node:fs/promises";
import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import {
  type BlockReader,
  type BlockWriter,
  type CreateRequest,
  type OpenRequest,
  type OwnedResource,
  type ProviderContext,
  type TargetProvider,
  type Volume,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import { takeFence } from "../fence/fence.ts";
import { gatedWriter } from "../fence/gated-writer.ts";
import { claimPlace, noteReading } from "../open-places.ts";
import type { LocalOptions } from "../options.ts";
import { createQcow2 } from "../qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../qcow2/qcow2-reader.ts";
import { openQcow2Writer } from "../qcow2/qcow2-writer.ts";
import { syncFolder } from "../raw/raw-writer.ts";
import { withRelease } from "../source/raw-disk.ts";
import { checkDiskSize, fileNameOf, holdsOther, listOf, makeFolder } from "./in-place.ts";
import { looked } from "./qcow2-target.ts";
import {
  type RecoveryPoint,
  expired,
  nextName,
  pointOfRun,
  recoveryPoints,
  removePoint,
  writeNote,
} from "./recovery-points.ts";
import { writeDurably } from "./target-state.ts";

/** What is remembered of a chain, in `replica.json` in its folder. */
interface Replica {
  key: string;
  job?: string | undefined;
  /** Bytes of the disk as it was last asked for. */
  size: number;
}

const replicaFile = "replica.json";

/**
 * A target of qcow2 chains: in a folder for each disk, every run makes one recovery point, an overlay on the one it
 * started from. A point is under way as `pending-…`, and gets its lasting name when it is committed. Nothing that was
 * committed is written to again, but by merging when a point is removed.
 */
export function qcow2ChainTarget(
  options: LocalOptions & { directory: string },
  context: ProviderContext = {},
): TargetProvider {
  const directory = resolve(options.directory);
  const compress = options.compression !== undefined && options.compression !== "none";

  async function create(request: CreateRequest): Promise<Volume> {
    checkDiskSize(request.size);
    const folder = join(directory, fileNameOf(request.key));
    makeFolder(folder);
    const known = await readReplica(folder);
    if (known !== undefined && known.key !== request.key) throw holdsOther(folder, known.key);
    // A draft of the note is what a power cut leaves of an earlier try.
    if (known === undefined && listOf(folder).some((name) => !name.endsWith(".new"))) {
      throw localError("EXISTS", `${folder} holds files that are not ours; move them away or choose another directory`);
    }
    // A chain does not shrink: its earlier points keep their size.
    const size = Math.max(request.size, known?.size ?? 0);
    if (known?.size !== size) {
      const replica: Replica = { job: request.job, ...known, key: request.key, size };
      await writeDurably(join(folder, replicaFile), JSON.stringify(replica));
    }
    return volumeOf(folder, request.key, size);
  }

  async function open(volume: Volume, request: OpenRequest): Promise<BlockWriter> {
    const folder = folderIn(volume);
    const replica = await readReplica(folder);
    if (replica === undefined)
      throw localError("NOT_FOUND", `${folder} is no chain of ours any more; create the volume anew`);
    const fence = await takeFence(join(folder, ".fence"), folder, request.epoch, {
      exclusive: true,
      signal: request.signal,
    });
    try {
      const written = await pointOfRun(folder, request.run);
      const isCommitted = written !== undefined && exists(join(folder, written.file));
      const path = isCommitted ? join(folder, written.file) : await pendingImage(folder, replica, request);
      const release = claimPlace({ place: looked(path).place, label: path }, "target");
      try {
        const inner = await openQcow2Writer(path, { run: request.run, compress, signal: request.signal });
        const writer = isCommitted ? await sealed(inner, folder, written) : inner;
        const base = fileIn(request.base);
        const point = { run: request.run, ...(base === undefined ? {} : { base }) };
        const committing = Object.assign(writer, {
          commit: commitOf(inner, folder, path, replica, point),
          abandon: async (): Promise<void> => {
            if (isCommitted) return;
            await rm(path, { force: true });
            await syncFolder(folder);
          },
        });
        return gatedWriter(committing, fence, path, async () => {
          release();
          await fence.release();
        });
      } catch (error) {
        release();
        throw error;
      }
    } catch (error) {
      await fence.release();
      throw error;
    }
  }

  /** The image this run writes; one that it began before is found again. */
  async function pendingImage(folder: string, replica: Replica, request: OpenRequest): Promise<string> {
    const path = join(folder, `pending-${createHash("sha256").update(request.run).digest("hex").slice(0, 16)}.qcow2`);
    if (exists(path)) return path;
    const base = fileIn(request.base);
    if (base !== undefined && !exists(join(folder, base))) {
      throw localError(
        "NOT_FOUND",
        `the recovery point ${base}, which this run starts from, is gone from ${folder}; put it back or begin with a full copy`,
      );
    }
    await createQcow2({
      path,
      size: Math.max(replica.size, request.base?.size ?? 0),
      clusterSize: options.clusterSize,
      compression: options.compression === "zstd" ? "zstd" : "zlib",
      ...(base === undefined ? {} : { backing: { path: base, format: "qcow2" as const } }),
      signal: request.signal,
    });
    return path;
  }

  function commitOf(
    writer: BlockWriter,
    folder: string,
    path: string,
    replica: Replica,
    about: Pick<RecoveryPoint, "run" | "base">,
  ): BlockWriter["commit"] {
    const commit = writer.commit.bind(writer);
    return async (request) => {
      const { size } = await commit(request);
      const known = await pointOfRun(folder, about.run);
      const now = new Date();
      const point: RecoveryPoint = known ?? {
        ...about,
        file: nextName(folder, now),
        size,
        committedAt: now.toISOString(),
      };
      // The note comes first: whoever finds the image under its lasting name finds what it is.
      if (known === undefined) await writeNote(folder, point);
      const lasting = join(folder, point.file);
      if (path !== lasting && exists(path)) {
        await rename(path, lasting);
        await syncFolder(folder);
      }
      await tidy(folder, new Set([point.file, ...(about.base === undefined ? [] : [about.base])]), request);
      return volumeOf(folder, replica.key, point.size, point.file);
    };
  }

  /** Lets go what retention no longer asks for. What cannot be removed now is tried again after the next run. */
  async function tidy(folder: string, kept: ReadonlySet<string>, wait: Wait): Promise<void> {
    // The fence lets one run in at a time, so whatever is still pending was left by a run that will not come back.
    for (const name of listOf(folder)) {
      if (name.startsWith("pending-")) await rm(join(folder, name), { force: true });
    }
    const points = await recoveryPoints(folder);
    const unfinished = points.filter((point) => point.removing === true);
    for (const point of [...unfinished, ...expired(points, options.retention, kept, new Date())]) {
      try {
        await removePoint(folder, point, compress, wait);
      } catch (error) {
        if (!isProviderError(error)) throw error;
        context.notice?.(`retention left ${point.file}: ${error.message}`);
      }
    }
  }

  async function remove(volume: Volume, wait: Wait = {}): Promise<void> {
    const folder = folderIn(volume);
    const replica = await readReplica(folder);
    if (replica === undefined || replica.key !== volume.data?.["key"]) return;
    const file = fileIn(volume);
    if (file !== undefined) {
      const point = (await recoveryPoints(folder)).find((each) => each.file === file);
      if (point !== undefined) await removePoint(folder, point, compress, wait);
      const isLeft = listOf(folder).some((name) => name.startsWith("pending-") || name.endsWith(".qcow2"));
      if (point === undefined || isLeft) return;
    }
    const points = await recoveryPoints(folder);
    // From the newest down nothing stands on anything that is removed.
    for (const point of points.toReversed()) await removeWhole(folder, point);
    for (const name of listOf(folder)) {
      const isOurs =
        name === replicaFile || name === ".fence" || name.startsWith("pending-") || name.endsWith(".qcow2.json");
      if (isOurs) await rm(join(folder, name), { recursive: true, force: true });
    }
    if (listOf(folder).length === 0) await rm(folder, { recursive: true, force: true });
  }

  return {
    create,
    open,
    remove,
    async read(volume: Volume, wait?: Wait): Promise<BlockReader> {
      const file = fileIn(volume);
      const folder = folderIn(volume);
      if (file === undefined) throw localError("NOT_FOUND", `${folder} holds no recovery point of this volume yet`);
      const reader = await openQcow2Reader(join(folder, file), { signal: wait?.signal });
      return withRelease(reader, noteReading(reader.chain.map((layer) => looked(layer.path).place)));
    },
    async *owned(job: string, wait: Wait = {}): AsyncIterable<OwnedResource & { volume?: Volume }> {
      for (const name of listOf(directory)) {
        wait.signal?.throwIfAborted();
        const folder = join(directory, name);
        const replica = await readReplica(folder);
        if (replica?.job !== job) continue;
        // Point by point, the newest first: a record names points, and what it names must not go with the folder.
        const points = await recoveryPoints(folder);
        for (const point of points.toReversed()) {
          const volume = volumeOf(folder, replica.key, point.size, point.file);
          const description = `recovery point ${point.file} of replica ${replica.key} in ${folder}`;
          yield { kind: "recovery point", id: volume.id, description, volume };
        }
        if (points.length > 0) continue;
        const volume = volumeOf(folder, replica.key, replica.size);
        yield { kind: "chain", id: volume.id, description: `empty replica ${replica.key} in ${folder}`, volume };
      }
    },
    async [Symbol.asyncDispose](): Promise<void> {},
  };
}

/** A committed point that others stand on reads and commits as before, and takes no more writes. */
async function sealed(writer: BlockWriter, folder: string, point: RecoveryPoint): Promise<BlockWriter> {
  const points = await recoveryPoints(folder);
  const isUnderOthers = points.some((each) => each.base === point.file) || points.at(-1)?.file !== point.file;
  if (!isUnderOthers) return writer;
  const refuse = (): Promise<never> =>
    Promise.reject(
      localError("IN_USE", `the recovery point ${join(folder, point.file)} is committed and others stand on it`),
    );
  return Object.assign(writer, { write: refuse, zero: refuse, lane: undefined });
}

/** Removes a point on which nothing stands. */
async function removeWhole(folder: string, point: RecoveryPoint): Promise<void> {
  await rm(join(folder, point.file), { force: true });
  await rm(join(folder, `${point.file}.json`), { force: true });
}

async function readReplica(folder: string): Promise<Replica | undefined> {
  const path = join(folder, replicaFile);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw translate(error, "reading", path);
  }
  try {
    const replica = JSON.parse(text) as Partial<Replica> | null;
    if (typeof replica?.key === "string" && typeof replica.size === "number") return replica as Replica;
  } catch {
    // Judged below, with whatever else is not what we wrote.
  }
  throw localError("CORRUPT", `${path} is not what this provider wrote; put it back, or choose another directory`);
}

function volumeOf(folder: string, key: string, size: number, file?: string): Volume {
  const id = file === undefined ? `qcow2-chain:${folder}` : `qcow2-chain:${join(folder, file)}`;
  return { id, size, data: { format: "qcow2-chain", folder, key, ...(file === undefined ? {} : { file }) } };
}

function folderIn(volume: Volume): string {
  const folder = volume.data?.["folder"];
  if (typeof folder === "string") return folder;
  throw localError("CONFIG_INVALID", `the volume ${volume.id} is none of qcow2 chains: it names no folder`);
}

function fileIn(volume: Volume | undefined): string | undefined {
  const file = volume?.data?.["file"];
  return typeof file === "string" ? file : undefined;
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
