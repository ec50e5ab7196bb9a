import type { Wait } from "@diskferry/core/provider";
import type { CloudSnapshot, CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";

/** A snapshot by its exact name; undefined: there is none. */
export async function snapshotNamed(
  cloud: Cloud,
  volumeId: string,
  name: string,
  wait: Wait,
): Promise<CloudSnapshot | undefined> {
  for await (const snapshot of cloud.snapshots({ volumeid: volumeId }, wait))
    if (snapshot.name === name) return snapshot;
  return undefined;
}

/** A volume by its exact name; undefined: there is none. */
export async function volumeNamed(cloud: Cloud, name: string, wait: Wait): Promise<CloudVolume | undefined> {
  for await (const volume of cloud.volumes({ keyword: name }, wait)) if (volume.name === name) return volume;
  return undefined;
}

/** Takes a snapshot of a volume under a name of ours, once, and waits until it can be used. */
export async function takeSnapshot(
  cloud: Cloud,
  volumeId: string,
  name: string,
  wait: Wait,
  from?: { machineSnapshotId: string },
): Promise<CloudSnapshot> {
  const failed = await snapshotNamed(cloud, volumeId, name, wait);
  if (failed?.state === "Error") await deleteSnapshot(cloud, failed.id, wait);
  const snapshot = await ensure(
    cloud.client,
    {
      object: `snapshot ${name} of volume ${volumeId}`,
      look: () => snapshotNamed(cloud, volumeId, name, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.state === "BackedUp",
      command: (state) => {
        if (state !== undefined) throw unfinished(`Snapshot ${state.id}`, state.state);
        return from === undefined
          ? { command: "createSnapshot", parameters: { volumeid: volumeId, name } }
          : {
              command: "createSnapshotFromVMSnapshot",
              parameters: { volumeid: volumeId, vmsnapshotid: from.machineSnapshotId, name },
            };
      },
      creates: true,
    },
    wait,
  );
  if (snapshot === undefined) throw unfinished(`Snapshot ${name}`, "absent");
  return snapshot;
}

/** Makes a volume of a snapshot under a name of ours, once, and waits until it has its bytes. */
export async function cloneSnapshot(cloud: Cloud, snapshotId: string, name: string, wait: Wait): Promise<CloudVolume> {
  const volume = await ensure(
    cloud.client,
    {
      object: `volume ${name} of snapshot ${snapshotId}`,
      look: () => volumeNamed(cloud, name, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.state === "Ready",
      command: (state) => {
        if (state !== undefined) throw unfinished(`Volume ${state.id}`, state.state);
        return { command: "createVolume", parameters: { snapshotid: snapshotId, name } };
      },
      prepare: () => cloud.scope(wait),
      creates: true,
    },
    wait,
  );
  if (volume === undefined) throw unfinished(`Volume ${name}`, "absent");
  return volume;
}

/** Deletes a snapshot. Idempotent. */
export async function deleteSnapshot(cloud: Cloud, id: string, wait: Wait): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `snapshot ${id}`,
      look: () => cloud.snapshot(id, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state === undefined,
      command: () => ({ command: "deleteSnapshot", parameters: { id } }),
    },
    wait,
  );
}

function unfinished(what: string, state: string): Error {
  return cloudstackError(
    "UNAVAILABLE",
    `${what} is in state ${state} and no job works on it: its job failed or is still coming. Look at CloudStack's events; ` +
      `delete it if it stays so, and run again.`,
    { retryable: false },
  );
}
