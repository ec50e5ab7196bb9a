import type {
  BlockReader,
  BlockWriter,
  OpenRequest,
  OwnedResource,
  TargetProvider,
  Volume,
  Wait,
} from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { jobMark, readOwnName } from "../names.ts";
import { madeByLaunches } from "../launch/made-by-launches.ts";
import { launchMachine } from "../launch/launch-machine.ts";
import { volumesById } from "../launch/take-replica.ts";
import { terminateLaunched } from "../launch/terminate-machine.ts";
import { targetPreflight } from "../preflight/target-preflight.ts";
import { deleteVolume, inUse, knownVolume } from "./attachment.ts";
import { type Bench, localBench } from "./bench.ts";
import { holdForReading, holdForWriting, letGo } from "./holdings.ts";
import { createReplica } from "./replica-volumes.ts";
import { volumeWriter } from "./volume-writer.ts";
import { writeStateOf } from "./write-state.ts";

/** Volumes of a CloudStack account as a target: attached to the appliance, written in place. */
export function cloudstackTarget(cloud: Cloud, bench: Bench = localBench(cloud)): TargetProvider {
  let closed = false;
  return {
    fences: true,
    create: (request) => createReplica(cloud, request),
    async adopt(disk: string, wait: Wait = {}): Promise<Volume> {
      wait.signal?.throwIfAborted();
      const volume = await knownVolume(cloud, disk, wait);
      return { id: volume.id, size: volume.size, data: { adopted: true } };
    },
    async open(volume: Volume, request: OpenRequest): Promise<BlockWriter> {
      const { run, base, epoch, signal } = request;
      signal?.throwIfAborted();
      if (base !== undefined && base.id !== volume.id) {
        throw cloudstackError(
          "UNSUPPORTED",
          `Volume ${volume.id} is written in place and cannot start from ${base.id}.`,
          { operation: "open" },
        );
      }
      const share = await holdForWriting(cloud, bench, volume.id, { run, epoch }, { signal });
      return volumeWriter(share, volume, share.state?.generation ?? "");
    },
    async read(volume: Volume, wait: Wait = {}): Promise<BlockReader> {
      wait.signal?.throwIfAborted();
      const share = await holdForReading(cloud, bench, volume.id, wait);
      const { size, blockSize, concurrency, preferredLength } = share.volume;
      return {
        size,
        blockSize,
        concurrency,
        preferredLength,
        read: (offset, into, options = {}) => share.volume.read(offset, into, options),
        [Symbol.asyncDispose]: () => share.leave(),
      };
    },
    remove: (volume, wait = {}) => remove(cloud, volume, wait),
    owned: (job, wait = {}) => ownedBy(cloud, job, wait),
    preflight: (request) => targetPreflight(cloud, request),
    launch: (spec, disks, request) => launchMachine(cloud, volumesById(cloud), spec, disks, request),
    terminate: (machine, wait = {}) => terminateLaunched(cloud, volumesById(cloud), machine, wait),
    async [Symbol.asyncDispose](): Promise<void> {
      if (closed) return;
      closed = true;
      await bench.close();
      await cloud[Symbol.asyncDispose]();
    },
  };
}

async function remove(cloud: Cloud, volume: Volume, wait: Wait): Promise<void> {
  wait.signal?.throwIfAborted();
  const found = await cloud.volume(volume.id, wait);
  if (found === undefined) return;
  if (found.machineId !== undefined) {
    const { appliance } = writeStateOf(found) ?? {};
    if (found.machineId !== appliance && found.machineId !== (await cloud.appliance(wait)).id) throw inUse(found);
    await letGo(cloud, found.id, wait);
  }
  // An adopted volume is none of ours, whatever it is called: its bytes stay.
  if (volume.data?.["adopted"] !== true && readOwnName(found.name) !== undefined)
    await deleteVolume(cloud, found.id, wait);
}

/** What a job made: by the job's mark in names, so that what was made and not tagged yet is found too. */
async function* ownedBy(cloud: Cloud, job: string, wait: Wait): AsyncGenerator<OwnedResource & { volume?: Volume }> {
  wait.signal?.throwIfAborted();
  const mark = jobMark(job);
  for await (const volume of cloud.volumes({ keyword: `df-${mark}-` }, wait)) {
    const own = readOwnName(volume.name);
    // What a source made to read its snapshots is the source's to release.
    if (own?.job !== mark || own.note === "reading") continue;
    const { id, name, size, machineId } = volume;
    const place = machineId === undefined ? "attached to nothing" : `attached to machine ${machineId}`;
    yield {
      kind: "volume",
      id,
      description: `${name}, ${size} bytes, ${place}`,
      volume: { id, size, data: { key: own.key } },
    };
  }
  yield* madeByLaunches(cloud, mark, wait);
}
