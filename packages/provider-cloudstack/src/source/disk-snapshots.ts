import type { Consistency, DiskSnapshot, Machine, Snapshot, SnapshotRequest, Wait } from "@diskferry/core/provider";
import { isProviderError } from "@diskferry/core/provider";
import { type CloudMachineSnapshot, type CloudSnapshot, machineSnapshotOf } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError, isMissing } from "../errors.ts";
import { deleteSnapshot, takeSnapshot } from "../launch/clone-volume.ts";
import { keyMark, ownName, readOwnName } from "../names.ts";

/** Words in a snapshot's name: how good its point in time is among the machine's disks. */
const notes = { crash: "crash", disk: "disk" } as const;

/** A snapshot's id: of which machine, by which key. */
function idOf(machine: string, mark: string): string {
  return `${machine}/${mark}`;
}

/**
 * One point in time of a machine's disks. One disk, or a stopped machine: snapshots of the volumes, which is as after a power
 * cut. Several disks of a running machine: a VM snapshot with memory, which all volumes' snapshots are taken from and which
 * is deleted then; where the platform has none for this machine, one volume after the other, and the result says `disk`.
 */
export async function snapshotMachine(cloud: Cloud, machine: Machine, request: SnapshotRequest): Promise<Snapshot> {
  const { key, signal, job } = request;
  const wait = { signal };
  signal?.throwIfAborted();
  const chosen = machine.disks.filter(
    ({ key: disk, ineligible }) => request.disks?.includes(disk) ?? ineligible === undefined,
  );
  for (const wanted of request.disks ?? []) {
    if (!chosen.some(({ key: disk }) => disk === wanted))
      throw cloudstackError("NOT_FOUND", `Machine ${machine.name} has no disk ${wanted}.`, { operation: "snapshot" });
  }
  const mark = keyMark("snapshot", machine.id, key);
  const found = new Map<string, CloudSnapshot>();
  for (const { key: disk } of chosen) {
    const known = await snapshotOfKey(cloud, disk, mark, wait);
    if (known !== undefined) found.set(disk, known);
  }
  const isComplete = chosen.every(({ key: disk }) => found.get(disk)?.state === "BackedUp");
  const taken = isComplete ? found : await take(cloud, machine, chosen, { mark, job, found, request }, wait);
  await removeMachineSnapshot(cloud, machine.id, mark, wait);
  return describe(machine, key, mark, chosen, taken);
}

interface Taking {
  mark: string;
  job: string | undefined;
  found: ReadonlyMap<string, CloudSnapshot>;
  request: SnapshotRequest;
}

async function take(
  cloud: Cloud,
  machine: Machine,
  chosen: readonly { key: string }[],
  { mark, job, found }: Taking,
  wait: Wait,
): Promise<Map<string, CloudSnapshot>> {
  const now = await cloud.machine(machine.id, wait);
  if (now === undefined) throw cloudstackError("NOT_FOUND", `There is no machine ${machine.name} (${machine.id}).`);
  const isStill = now.state === "Stopped";
  const begun = [...found.values()].map(({ name }) => readOwnName(name)?.note);
  const wanted = cloud.options.source?.snapshots ?? "auto";
  const isAlone = chosen.length === 1 || isStill;
  // A point in time that was begun one way is not finished the other way.
  const asMachine = !isAlone && wanted !== "volumes" && !begun.includes(notes.disk);
  const from = asMachine
    ? await machineSnapshot(cloud, machine, mark, begun.length > 0, wanted === "machine", wait)
    : undefined;
  const note = isAlone || from !== undefined ? notes.crash : notes.disk;
  const taken = new Map<string, CloudSnapshot>();
  for (const { key: disk } of chosen) {
    const known = found.get(disk);
    const name = known?.name ?? ownName(job, mark, note);
    taken.set(disk, await takeSnapshot(cloud, disk, name, wait, from));
  }
  if (isStill && chosen.length > 1 && (await cloud.machine(machine.id, wait))?.state !== "Stopped") {
    // Their names say that they are of one point in time.
    for (const { id } of taken.values()) await deleteSnapshot(cloud, id, wait);
    throw cloudstackError(
      "UNAVAILABLE",
      `${machine.name} was started while its disks were snapshotted one after the other, which is no common point in time. The ` +
        `snapshots were deleted; they are taken anew.`,
      { operation: "snapshot" },
    );
  }
  return taken;
}

/** The VM snapshot that all volumes' snapshots come from; undefined: the platform has none for this machine. */
async function machineSnapshot(
  cloud: Cloud,
  machine: Machine,
  mark: string,
  hasBegun: boolean,
  isRequired: boolean,
  wait: Wait,
): Promise<{ machineSnapshotId: string } | undefined> {
  const name = `df-${mark}`;
  const known = await machineSnapshotNamed(cloud, machine.id, name, wait);
  if (known === undefined && hasBegun) {
    throw cloudstackError(
      "UNAVAILABLE",
      `The VM snapshot that the disks of ${machine.name} were being snapshotted from is gone; release this point in time and ` +
        `take another.`,
      { operation: "snapshot", retryable: false },
    );
  }
  try {
    const taken = await ensure(
      cloud.client,
      {
        object: `VM snapshot ${name} of machine ${machine.id}`,
        look: () => machineSnapshotNamed(cloud, machine.id, name, wait),
        jobOf: (state) => state?.jobId,
        done: (state) => state?.state === "Ready",
        command: () => ({
          command: "createVMSnapshot",
          parameters: { virtualmachineid: machine.id, name, snapshotmemory: true },
        }),
        creates: true,
      },
      wait,
    );
    return taken === undefined ? undefined : { machineSnapshotId: taken.id };
  } catch (error) {
    if (isRequired || !isProviderError(error) || error.retryable) throw error;
    cloud.notice(
      `The disks of ${machine.name} are snapshotted one after the other, which is no common point in time: CloudStack makes no ` +
        `VM snapshot of it. ${error.message}`,
    );
    await removeMachineSnapshot(cloud, machine.id, mark, wait);
    return undefined;
  }
}

async function machineSnapshotNamed(
  cloud: Cloud,
  machineId: string,
  name: string,
  wait: Wait,
): Promise<CloudMachineSnapshot | undefined> {
  const filter = { virtualmachineid: machineId, ...(await cloud.scope(wait)) };
  for await (const item of cloud.client.list("listVMSnapshot", filter, wait)) {
    const snapshot = machineSnapshotOf(item);
    if (snapshot.displayName === name) return snapshot;
  }
  return undefined;
}

/** While a VM snapshot exists no volume of the machine can be attached or detached, so it does not stay. */
async function removeMachineSnapshot(cloud: Cloud, machineId: string, mark: string, wait: Wait): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `VM snapshot df-${mark}`,
      look: () => machineSnapshotNamed(cloud, machineId, `df-${mark}`, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state === undefined,
      command: (state) => ({ command: "deleteVMSnapshot", parameters: { vmsnapshotid: state?.id } }),
    },
    wait,
  );
}

async function snapshotOfKey(
  cloud: Cloud,
  volumeId: string,
  mark: string,
  wait: Wait,
): Promise<CloudSnapshot | undefined> {
  return (await snapshotsOfKey(cloud, volumeId, mark, wait))[0];
}

/** All that bear the mark; none where the volume is gone. */
async function snapshotsOfKey(cloud: Cloud, volumeId: string, mark: string, wait: Wait): Promise<CloudSnapshot[]> {
  const found: CloudSnapshot[] = [];
  try {
    for await (const snapshot of cloud.snapshots({ volumeid: volumeId }, wait))
      if (readOwnName(snapshot.name)?.key === mark) found.push(snapshot);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  return found;
}

function describe(
  machine: Machine,
  key: string,
  mark: string,
  chosen: readonly { key: string; size: number }[],
  taken: ReadonlyMap<string, CloudSnapshot>,
): Snapshot {
  const disks: DiskSnapshot[] = [];
  let takenAt = new Date().toISOString();
  let consistency: Consistency = "crash";
  for (const { key: disk, size } of chosen) {
    const snapshot = taken.get(disk);
    if (snapshot === undefined) continue;
    if (readOwnName(snapshot.name)?.note === notes.disk && chosen.length > 1) consistency = "disk";
    takenAt = snapshot.created ?? takenAt;
    disks.push({ id: snapshot.id, machine: machine.id, disk, size: snapshot.size ?? size });
  }
  return { id: idOf(machine.id, mark), key, machine: machine.id, consistency, takenAt, disks };
}

/** Gives up what {@link snapshotMachine} made, and the volumes that were made to read it. Idempotent. */
export async function releaseSnapshot(cloud: Cloud, snapshot: Snapshot, wait: Wait): Promise<string[]> {
  const released: string[] = [];
  const mark = snapshot.id.split("/")[1];
  for (const { id, disk } of snapshot.disks) {
    const found = await cloud.snapshot(id, wait);
    // Somebody else's point in time is left alone; only the volumes that we made to read it go.
    released.push(id);
    if (found !== undefined && readOwnName(found.name) !== undefined) await deleteSnapshot(cloud, id, wait);
    // A request that came late may have made it twice.
    for (const twin of mark === undefined || disk === "" ? [] : await snapshotsOfKey(cloud, disk, mark, wait))
      await deleteSnapshot(cloud, twin.id, wait);
  }
  if (mark !== undefined) await removeMachineSnapshot(cloud, snapshot.machine, mark, wait);
  return released;
}
