import type {
  BlockReader,
  DiskSnapshot,
  Machine,
  OwnedResource,
  Snapshot,
  SourceConnector,
  Wait,
} from "@diskferry/core/provider";
import type { CloudMachine, CloudSnapshot, CloudVolume } from "../client/entities.ts";
import type { Cloud } from "../cloud.ts";
import { openDownload } from "../download/snapshot-download.ts";
import { cloudstackError } from "../errors.ts";
import { cloneSnapshot } from "../launch/clone-volume.ts";
import { jobMark, keyMark, ownName, readOwnName } from "../names.ts";
import { sourcePreflight } from "../preflight/source-preflight.ts";
import { deleteVolume } from "../target/attachment.ts";
import { type Bench, localBench } from "../target/bench.ts";
import { holdForReading, letGo } from "../target/holdings.ts";
import { ensurePower } from "./power.ts";
import { powerOf, readMachine } from "./read-machine.ts";
import { releaseSnapshot, snapshotMachine } from "./disk-snapshots.ts";

/**
 * Machines of a CloudStack account as a source. CloudStack tells nothing of changed blocks, so every run after the first
 * compares by manifest; a snapshot is read through a volume made of it, attached to the appliance, or by download.
 */
export function cloudstackSource(cloud: Cloud, bench: Bench = localBench(cloud)): SourceConnector {
  let closed = false;
  return {
    async *machines(wait: Wait = {}) {
      wait.signal?.throwIfAborted();
      const { machine: only } = cloud.options;
      if (only !== undefined) {
        yield await withVolumes(cloud, await cloud.machineNamed(only, wait), wait);
        return;
      }
      const zone = cloud.options.zone === undefined ? {} : { zoneid: await cloud.zoneId(wait) };
      for await (const machine of cloud.machines(zone, wait)) yield await withVolumes(cloud, machine, wait);
    },
    async machine(id: string, wait: Wait = {}) {
      wait.signal?.throwIfAborted();
      return withVolumes(cloud, await cloud.machineNamed(id, wait), wait);
    },
    snapshot: (machine, request) => snapshotMachine(cloud, machine, request),
    open: (disk, wait = {}) => openSnapshot(cloud, bench, disk, wait),
    release: (snapshot, wait = {}) => release(cloud, snapshot, wait),
    owned: (job, wait = {}) => ownedBy(cloud, job, wait),
    preflight: (machine, request) => sourcePreflight(cloud, machine, request),
    power: {
      async state(machine: Machine, wait: Wait = {}) {
        wait.signal?.throwIfAborted();
        const now = await cloud.machine(machine.id, wait);
        if (now === undefined)
          throw cloudstackError("NOT_FOUND", `There is no machine ${machine.name} (${machine.id}).`);
        return powerOf(now.state);
      },
      shutdown: (machine, wait = {}) => ensurePower(cloud, machine, "shutdown", wait),
      powerOff: (machine, wait = {}) => ensurePower(cloud, machine, "off", wait),
      powerOn: (machine, wait = {}) => ensurePower(cloud, machine, "on", wait),
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (closed) return;
      closed = true;
      await bench.close();
      await cloud[Symbol.asyncDispose]();
    },
  };
}

async function withVolumes(cloud: Cloud, machine: CloudMachine, wait: Wait): Promise<Machine> {
  const volumes: CloudVolume[] = [];
  for await (const volume of cloud.volumes({ virtualmachineid: machine.id }, wait)) volumes.push(volume);
  return readMachine(machine, volumes);
}

/** The volume that a snapshot is read through. */
function readingVolume(job: string, snapshotId: string): string {
  return `df-${job}-${keyMark("reading", snapshotId)}-reading`;
}

async function openSnapshot(cloud: Cloud, bench: Bench, disk: DiskSnapshot, wait: Wait): Promise<BlockReader> {
  wait.signal?.throwIfAborted();
  const snapshot = await cloud.snapshot(disk.id, wait);
  if (snapshot === undefined) {
    throw cloudstackError("NOT_FOUND", `Snapshot ${disk.id} of disk ${disk.disk} is gone.`, { operation: "open" });
  }
  if (cloud.options.source?.read === "download") return openDownload(cloud, disk, wait);
  const name = readingVolume(readOwnName(snapshot.name)?.job ?? jobMark(undefined), snapshot.id);
  const volume = await cloneSnapshot(cloud, snapshot.id, name, wait);
  const share = await holdForReading(cloud, bench, volume.id, wait);
  if (share.volume.size < disk.size) {
    await share.leave();
    throw cloudstackError(
      "UNEXPECTED",
      `The volume made of snapshot ${disk.id} has ${share.volume.size} bytes, the disk had ${disk.size}.`,
    );
  }
  return {
    size: disk.size,
    blockSize: share.volume.blockSize,
    concurrency: share.volume.concurrency,
    preferredLength: share.volume.preferredLength,
    async read(offset, into, options = {}) {
      if (offset + into.byteLength > disk.size)
        throw new RangeError(`${offset}+${into.byteLength} is outside of the ${disk.size} bytes of disk ${disk.disk}`);
      await share.volume.read(offset, into, options);
    },
    [Symbol.asyncDispose]: () => share.leave(),
  };
}

async function release(cloud: Cloud, snapshot: Snapshot, wait: Wait): Promise<void> {
  wait.signal?.throwIfAborted();
  for (const { id } of snapshot.disks) {
    for (const volume of await readingVolumes(cloud, id, wait)) {
      await letGo(cloud, volume.id, wait);
      await deleteVolume(cloud, volume.id, wait);
    }
  }
  await releaseSnapshot(cloud, snapshot, wait);
}

/** All volumes that were made to read a snapshot: a request that came late may have made a second one. */
async function readingVolumes(cloud: Cloud, snapshotId: string, wait: Wait): Promise<CloudVolume[]> {
  const mark = keyMark("reading", snapshotId);
  const found: CloudVolume[] = [];
  for await (const volume of cloud.volumes({ keyword: mark }, wait)) {
    if (readOwnName(volume.name)?.key === mark) found.push(volume);
  }
  return found;
}

/** What a job made and has not released: snapshots, each as a point in time to release, and volumes to read them. */
async function* ownedBy(cloud: Cloud, job: string, wait: Wait): AsyncGenerator<OwnedResource> {
  wait.signal?.throwIfAborted();
  const mark = jobMark(job);
  const points = new Map<string, { machine: string; snapshots: CloudSnapshot[] }>();
  for await (const snapshot of cloud.snapshots({}, wait)) {
    const own = readOwnName(snapshot.name);
    if (own?.job !== mark || own.note?.startsWith("snapshot") === true) continue;
    const volume = snapshot.volumeId === undefined ? undefined : await cloud.volume(snapshot.volumeId, wait);
    const machine = volume?.machineId ?? "";
    const point = points.get(own.key) ?? { machine, snapshots: [] };
    points.set(own.key, { machine: point.machine || machine, snapshots: [...point.snapshots, snapshot] });
  }
  for (const [key, { machine, snapshots }] of points) {
    const id = `${machine}/${key}`;
    yield {
      kind: "snapshot",
      id,
      description: `snapshots ${snapshots.map(({ name }) => name).join(", ")}`,
      snapshot: {
        id,
        key,
        machine,
        consistency: "none",
        takenAt: snapshots[0]?.created ?? new Date(0).toISOString(),
        disks: snapshots.map((each) => ({ id: each.id, machine, disk: each.volumeId ?? "", size: each.size ?? 0 })),
      },
    };
  }
  for await (const volume of cloud.volumes({ keyword: ownName(job, "").slice(0, 16) }, wait)) {
    const own = readOwnName(volume.name);
    if (own?.job !== mark || own.note !== "reading" || volume.snapshotId === undefined) continue;
    if ([...points.values()].some(({ snapshots }) => snapshots.some(({ id }) => id === volume.snapshotId))) continue;
    yield {
      kind: "volume",
      id: volume.id,
      description: `${volume.name}, made to read snapshot ${volume.snapshotId}`,
      snapshot: {
        id: volume.snapshotId,
        key: own.key,
        machine: "",
        consistency: "none",
        takenAt: volume.created ?? new Date(0).toISOString(),
        disks: [{ id: volume.snapshotId, machine: "", disk: "", size: volume.size }],
      },
    };
  }
}
