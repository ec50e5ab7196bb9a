import type { FileHandle } from "node:fs/promises";
import {
  type OwnedResource,
  type TargetProvider,
  type Volume,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import type { CloudVolume } from "../client/entities.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { launchMachine } from "../launch/launch-machine.ts";
import { madeByLaunches } from "../launch/made-by-launches.ts";
import { terminateLaunched } from "../launch/terminate-machine.ts";
import { jobMark, readOwnName, readableName } from "../names.ts";
import type { ImportOptions } from "../options.ts";
import { importPreflight } from "../preflight/import-preflight.ts";
import { deleteVolume, inUse } from "../target/attachment.ts";
import { gather, gatheredBy, markOf } from "../upload/gather.ts";
import { Spool, type SpoolState } from "../upload/spool.ts";
import { adoptFile, adoptedVolume, awaitImports, importPool, settledVolume } from "./adopt-file.ts";
import { launchByImport, removeCopies } from "./launch-by-import.ts";
import { type ImportPlace, filesAsReplicas, nameFor } from "./import-place.ts";
import { ENDING, PoolFolder, ownNameOf } from "./pool-folder.ts";

/**
 * Volumes that a root administrator has CloudStack adopt: each disk is gathered in a file of this machine; its commit writes a
 * qcow2 image into the pool's folder, which is mounted here, and imports it. A volume's id is its file's name, for CloudStack
 * gives a file another id each time it is adopted.
 */
export function importTarget(cloud: Cloud, folder: string, options: ImportOptions): TargetProvider {
  const spool = new Spool(folder);
  const place: ImportPlace = {
    cloud,
    folder: new PoolFolder(options.folder),
    pool: (wait) => cloud.once("pool", wait, (own) => importPool(cloud, own)),
  };
  const replicas = filesAsReplicas(place);
  let closed = false;
  return {
    ...gather(spool, (state, file, wait) => publish(place, state, file, wait)),
    remove: (volume, wait = {}) => remove(place, spool, volume, wait),
    owned: (job, wait = {}) => ownedBy(place, spool, job, wait),
    preflight: (request) => importPreflight(cloud, folder, options, request),
    launch: (spec, disks, request) =>
      cloud.options.launch?.method === "import"
        ? launchByImport(place, spec, disks, request)
        : launchMachine(cloud, replicas, spec, disks, request),
    async terminate(machine, wait = {}) {
      wait.signal?.throwIfAborted();
      await awaitImports(cloud, wait);
      await terminateLaunched(cloud, replicas, machine, wait);
      await removeCopies(place, machine, wait);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (closed) return;
      closed = true;
      await cloud[Symbol.asyncDispose]();
    },
  };
}

/** The commit. The run is in the file's name; an image that was adopted is never written again. */
async function publish(
  { cloud, folder, pool }: ImportPlace,
  { base, label, size, write }: SpoolState,
  source: FileHandle,
  wait: Wait,
): Promise<{ id: string; size: number }> {
  const file = `${base}-${write?.generation ?? ""}${ENDING}`;
  const where = await pool(wait);
  await awaitImports(cloud, wait);
  if ((await adoptedVolume(cloud, where, file, wait)) === undefined)
    await folder.write(file, { file: source, size }, wait);
  let volume: CloudVolume;
  try {
    volume = await adoptFile(cloud, where, file, readableName(label, nameFor(file)), wait);
  } catch (error) {
    // What CloudStack does not take is not left lying on its pool, or in a folder that is none.
    const stays =
      !isProviderError(error) || error.retryable || (await adoptedVolume(cloud, where, file, wait)) !== undefined;
    if (!stays) await folder.remove(file);
    throw error;
  }
  if (volume.size >= size) return { id: file, size: volume.size };
  throw cloudstackError("CORRUPT", `Volume ${volume.id} was adopted from ${size} bytes and has ${volume.size}.`, {
    operation: "commit",
  });
}

async function remove({ cloud, folder, pool }: ImportPlace, spool: Spool, volume: Volume, wait: Wait): Promise<void> {
  wait.signal?.throwIfAborted();
  const mark = markOf(volume);
  const isSpool = volume.id.startsWith("spool:");
  const state = await spool.find(mark);
  const isLast = state?.uploaded?.id === volume.id;
  await awaitImports(cloud, wait);
  const files = isSpool || isLast ? await imagesOf(folder, mark) : [volume.id];
  const where = await pool(wait);
  for (const file of new Set(isSpool ? files : [volume.id, ...files])) {
    if (ownNameOf(file)?.key !== mark) continue;
    const found = await settledVolume(cloud, where, file, wait);
    // Other versions of the disk are volumes of their own; what no volume has is left over from a dead run.
    if (found !== undefined && file !== volume.id) continue;
    if (found?.machineId !== undefined) throw inUse(found);
    if (found !== undefined) {
      await deleteVolume(cloud, found.id, wait);
      // One that is not seen in this scope is not deleted either.
      if ((await adoptedVolume(cloud, where, file, wait)) !== undefined) throw othersVolume(found, file);
    }
    await folder.remove(file);
  }
  // An earlier version has no bytes here any more; those of the last one may be what the next run starts from.
  if (isSpool || isLast) await spool.remove(mark);
}

function othersVolume({ id, name }: CloudVolume, file: string): Error {
  return cloudstackError(
    "IN_USE",
    `File ${file} is volume ${id} (${name}) of another account or project by now. Nothing was removed: delete it there.`,
    { operation: "remove" },
  );
}

/** Images of a disk in the pool's folder, without what is not whole. */
async function imagesOf(folder: PoolFolder, mark: string): Promise<string[]> {
  const names = (await folder.list()).map((name) => name.replace(/\.part$/, ""));
  return [...new Set(names)].filter((name) => ownNameOf(name)?.key === mark);
}

async function* ownedBy(
  { cloud, folder, pool }: ImportPlace,
  spool: Spool,
  job: string,
  wait: Wait,
): AsyncGenerator<OwnedResource & { volume?: Volume }> {
  wait.signal?.throwIfAborted();
  const mark = jobMark(job);
  yield* gatheredBy(spool, mark);
  const files = new Set((await folder.list()).map((name) => name.replace(/\.part$/, "")));
  const where = await pool(wait);
  const seen = new Set<string>();
  for await (const { path = "" } of cloud.everybodysVolumes({ storageid: where.id }, wait)) files.delete(path);
  for await (const found of cloud.volumes({ storageid: where.id, listall: true }, wait)) {
    const { id, path = "", name, size } = found;
    const own = ownNameOf(path);
    if (own?.job !== mark) continue;
    seen.add(id);
    const volume = own.note?.startsWith("clone") === true ? {} : { volume: { id: path, size, data: { key: own.key } } };
    yield { kind: "volume", id, description: `${name}, file ${path}, ${size} bytes, ${whereIs(found)}`, ...volume };
  }
  // A launch's clones and stand-ins are no files of ours.
  for await (const found of cloud.volumes({ keyword: `df-${mark}-` }, wait)) {
    if (seen.has(found.id) || readOwnName(found.name)?.job !== mark) continue;
    yield {
      kind: "volume",
      id: found.id,
      description: `${found.name}, ${found.size} bytes, ${whereIs(found)}`,
    };
  }
  for (const name of files) {
    const own = ownNameOf(name);
    if (own?.job !== mark) continue;
    const bytes = (await folder.sizeOf(name)) ?? 0;
    yield {
      kind: "file",
      id: name,
      description: `${name} on pool ${where.name}, which no volume has, ${bytes} bytes`,
      volume: { id: name, size: bytes, data: { key: own.key } },
    };
  }
  yield* madeByLaunches(cloud, mark, wait);
}

function whereIs({ machineId }: CloudVolume): string {
  return machineId === undefined ? "attached to nothing" : `attached to machine ${machineId}`;
}
