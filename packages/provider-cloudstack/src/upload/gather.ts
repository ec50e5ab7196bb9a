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
import { cloudstackError } from "../errors.ts";
import { readOwnName } from "../names.ts";
import { type Spool, type SpoolState, refuseOlder } from "./spool.ts";

const SECTOR = 512;
const CONCURRENCY = 4;
const PREFERRED = 1024 * 1024;

/** Makes a volume of what was gathered, once for each generation: what a dead process made of it is found again. */
export type Send = (state: SpoolState, file: FileHandle, wait: Wait) => Promise<{ id: string; size: number }>;

/** The part of a target that gathers disks in files of this machine; `send` is their commit. */
export function gather(spool: Spool, send: Send): Pick<TargetProvider, "create" | "open"> {
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
      return spoolWriter(spool, state, file, send);
    },
  };
}

/** What a job has gathered here. */
export async function* gatheredBy(spool: Spool, job: string): AsyncGenerator<OwnedResource & { volume: Volume }> {
  for (const { key, base, size } of await spool.list()) {
    if (readOwnName(base)?.job !== job) continue;
    const id = `spool:${key}`;
    yield { kind: "spool", id, description: `${base}, ${size} bytes`, volume: { id, size, data: { key } } };
  }
}

/** The key's mark in a volume that was gathered. @throws ProviderError NOT_FOUND */
export function markOf(volume: Volume): string {
  const mark = volume.data?.["key"];
  if (typeof mark === "string") return mark;
  throw cloudstackError("NOT_FOUND", `Volume ${volume.id} is none that was gathered here.`);
}

function spoolWriter(spool: Spool, state: SpoolState, file: FileHandle, send: Send): BlockWriter {
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
      const uploaded = { ...(await send(now, file, { signal })), generation };
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
