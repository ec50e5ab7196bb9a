import type { FileHandle } from "node:fs/promises";
import type {
  BlockWriter,
  CreateRequest,
  OpenRequest,
  OwnedResource,
  TargetProvider,
  Volume,
  Wait,
} from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { jobMark, readOwnName, readableName } from "../names.ts";
import { uploadPreflight } from "../preflight/upload-preflight.ts";
import { deleteVolume, inUse } from "../target/attachment.ts";
import { Spool, type SpoolState, refuseOlder } from "./spool.ts";
import { uploadVolume } from "./upload-volume.ts";

const SECTOR = 512;
const CONCURRENCY = 4;
const PREFERRED = 1024 * 1024;

/**
 * Volumes that are uploaded once, as a whole, to the secondary storage machine. Each disk is gathered in a file of this
 * machine; its commit is the upload, which makes a new volume each time.
 */
export function uploadTarget(cloud: Cloud, folder: string): TargetProvider {
  const spool = new Spool(folder);
  let closed = false;
  return {
    async create({ key, size, name, job, signal }: CreateRequest): Promise<Volume> {
      signal?.throwIfAborted();
      if (!Number.isSafeInteger(size) || size <= 0 || size % SECTOR !== 0)
        throw new RangeError(`a volume of ${size} bytes: the size is a positive multiple of ${SECTOR}`);
      const state = await spool.create(key, job, name, size);
      return { id: `spool:${state.key}`, size: state.size, data: { key: state.key } };
    },
    async open(volume: Volume, { run, base, epoch, signal }: OpenRequest): Promise<BlockWriter> {
      signal?.throwIfAborted();
      const { state, file } = await spool.open(markOf(volume), { run, epoch, base: base?.id });
      return spoolWriter(cloud, spool, state, file);
    },
    async remove(volume: Volume, wait: Wait = {}) {
      wait.signal?.throwIfAborted();
      const found = volume.id.startsWith("spool:") ? undefined : await cloud.volume(volume.id, wait);
      if (found?.machineId !== undefined) throw inUse(found);
      if (found !== undefined && readOwnName(found.name) !== undefined) await deleteVolume(cloud, found.id, wait);
      // An earlier version has no bytes here any more; those of the last one may be what the next run starts from.
      const state = await spool.find(markOf(volume));
      if (volume.id.startsWith("spool:") || state?.uploaded?.id === volume.id) await spool.remove(markOf(volume));
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

function markOf(volume: Volume): string {
  const mark = volume.data?.["key"];
  if (typeof mark === "string") return mark;
  throw cloudstackError("NOT_FOUND", `Volume ${volume.id} is none that was gathered for an upload.`);
}

function spoolWriter(cloud: Cloud, spool: Spool, state: SpoolState, file: FileHandle): BlockWriter {
  const { size, key, write } = state;
  const { generation = "", epoch = 0 } = write ?? {};
  let closed = false;
  const check = async (): Promise<SpoolState> => {
    const now = await spool.reread(state);
    refuseOlder(now, epoch);
    if (now.write?.generation === generation) return now;
    throw cloudstackError("FENCED", `Disk ${key} is written by another run; this one must stop.`, {
      operation: "flush",
    });
  };
  const volumeOf = (uploaded: { id: string; size: number }): Volume => ({
    id: uploaded.id,
    size: uploaded.size,
    data: { key },
  });
  const inside = (offset: number, length: number): void => {
    if (offset < 0 || offset % SECTOR !== 0 || length % SECTOR !== 0 || offset + length > size)
      throw new RangeError(`${offset}+${length} does not fit a disk of ${size} bytes`);
  };
  return {
    size,
    blockSize: SECTOR,
    concurrency: CONCURRENCY,
    preferredLength: PREFERRED,
    generation,
    // Every generation has a file of its own, which begins as a hole unless it starts from an upload.
    ...(write?.based === true ? {} : { blank: true }),
    async write(offset, data, { signal } = {}) {
      signal?.throwIfAborted();
      inside(offset, data.byteLength);
      await check();
      for (let done = 0; done < data.byteLength;)
        done += (await file.write(data, done, data.byteLength - done, offset + done)).bytesWritten;
    },
    async read(offset, into, { signal } = {}) {
      signal?.throwIfAborted();
      inside(offset, into.byteLength);
      for (let done = 0; done < into.byteLength;) {
        const { bytesRead } = await file.read(into, done, into.byteLength - done, offset + done);
        if (bytesRead === 0) throw cloudstackError("CORRUPT", `The spooled disk ${key} ends at ${offset + done}.`);
        done += bytesRead;
      }
    },
    async flush({ signal } = {}) {
      signal?.throwIfAborted();
      await file.datasync();
      await check();
    },
    async commit({ written, signal }) {
      signal?.throwIfAborted();
      for await (const { offset, length } of written) inside(offset, length);
      await file.datasync();
      const now = await check();
      if (now.uploaded?.generation === generation) return volumeOf(now.uploaded);
      const uploaded = { ...(await upload(cloud, now, file, { signal })), generation };
      await spool.save({ ...(await check()), uploaded });
      return volumeOf(uploaded);
    },
    async abandon({ signal } = {}) {
      signal?.throwIfAborted();
      await spool.renew(state);
    },
    async [Symbol.asyncDispose]() {
      if (closed) return;
      closed = true;
      await file.close();
    },
  };
}

/** The run is in the volume's name: the same run finds what it uploaded, whatever became of the answer. */
async function upload(
  cloud: Cloud,
  { base, label, size, write }: SpoolState,
  file: FileHandle,
  wait: Wait,
): Promise<{ id: string; size: number }> {
  const name = readableName(label, `${base}-${write?.generation ?? ""}`);
  const volume = await uploadVolume(cloud, name, { file, size }, wait);
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
  for (const { key, base, size } of await spool.list()) {
    if (readOwnName(base)?.job !== mark) continue;
    const id = `spool:${key}`;
    yield { kind: "spool", id, description: `${base}, ${size} bytes`, volume: { id, size, data: { key } } };
  }
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
