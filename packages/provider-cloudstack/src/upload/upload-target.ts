import type { FileHandle } from "node:fs/promises";
import type { OwnedResource, TargetProvider, Volume, Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { jobMark, readOwnName, readableName } from "../names.ts";
import { uploadPreflight } from "../preflight/upload-preflight.ts";
import { deleteVolume, inUse } from "../target/attachment.ts";
import { gather, gatheredBy, markOf } from "./gather.ts";
import { Spool, type SpoolState } from "./spool.ts";
import { removeUnfinished, uploadVolume } from "./upload-volume.ts";

/**
 * Volumes that are uploaded once, as a whole, to the secondary storage machine. Each disk is gathered in a file of this
 * machine; its commit is the upload, which makes a new volume each time.
 */
export function uploadTarget(cloud: Cloud, folder: string): TargetProvider {
  const spool = new Spool(folder);
  let closed = false;
  return {
    ...gather(spool, (state, file, wait) => upload(cloud, state, file, wait)),
    async remove(volume: Volume, wait: Wait = {}) {
      wait.signal?.throwIfAborted();
      const mark = markOf(volume);
      const found = volume.id.startsWith("spool:") ? undefined : await cloud.volume(volume.id, wait);
      if (found?.machineId !== undefined) throw inUse(found);
      if (found !== undefined && readOwnName(found.name) !== undefined) await deleteVolume(cloud, found.id, wait);
      // An earlier version has no bytes here any more; those of the last one may be what the next run starts from.
      const state = await spool.find(mark);
      if (volume.id.startsWith("spool:") || state?.uploaded?.id === volume.id) {
        await removeUnfinished(cloud, mark, "the disk is removed", wait);
        await spool.remove(mark);
      }
    },
    owned: (job, wait = {}) => ownedBy(cloud, spool, job, wait),
    preflight: (request) => uploadPreflight(cloud, folder, request),
    async [Symbol.asyncDispose](): Promise<void> {
      if (closed) return;
      closed = true;
      await cloud[Symbol.asyncDispose]();
    },
  };
}

/** The run is in the volume's name: the same run finds what it uploaded, whatever became of the answer. */
async function upload(
  cloud: Cloud,
  { base, key, label, size, write }: SpoolState,
  file: FileHandle,
  wait: Wait,
): Promise<{ id: string; size: number }> {
  const name = readableName(label, `${base}-${write?.generation ?? ""}`);
  const volume = await uploadVolume(cloud, { name, mark: key }, { file, size }, wait);
  if (volume.size >= size) return { id: volume.id, size: volume.size };
  throw cloudstackError("CORRUPT", `Volume ${volume.id} was uploaded with ${size} bytes and has ${volume.size}.`, {
    operation: "commit",
  });
}

async function* ownedBy(
  cloud: Cloud,
  spool: Spool,
  job: string,
  wait: Wait,
): AsyncGenerator<OwnedResource & { volume?: Volume }> {
  wait.signal?.throwIfAborted();
  const mark = jobMark(job);
  yield* gatheredBy(spool, mark);
  for await (const { id, name, size, state } of cloud.volumes({ keyword: `df-${mark}-` }, wait)) {
    const own = readOwnName(name);
    if (own?.job !== mark || own.note === "reading") continue;
    yield {
      kind: "volume",
      id,
      description: `${name}, ${size} bytes, ${state}`,
      volume: { id, size, data: { key: own.key } },
    };
  }
}
