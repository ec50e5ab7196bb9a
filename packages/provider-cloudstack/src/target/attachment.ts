import type { Wait } from "@diskferry/core/provider";
import type { CloudVolume } from "../client/entities.ts";
import { ensure, finishQuietly } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";

/** A volume that has to be there. @throws ProviderError NOT_FOUND */
export async function knownVolume(cloud: Cloud, id: string, wait: Wait = {}): Promise<CloudVolume> {
  const volume = await cloud.volume(id, wait);
  if (volume !== undefined) return volume;
  throw cloudstackError("NOT_FOUND", `There is no volume ${id}: it was deleted, or is of another account or project.`);
}

/** Waits for jobs that an earlier process left at work on a volume: one that detaches must not strike later. */
export async function awaitStragglers(cloud: Cloud, id: string, wait: Wait = {}): Promise<CloudVolume> {
  for (let round = 1; ; round++) {
    const volume = await knownVolume(cloud, id, wait);
    const job = volume.jobId ?? (await cloud.client.pendingJobOf(id, wait));
    if (job === undefined || round > 5) return volume;
    cloud.notice(`Volume ${id} has a job at work (${job}); waiting for its end.`);
    await finishQuietly(cloud.client, job, `volume ${id}`, wait);
  }
}

/** Attaches a volume to a machine, as root volume with device id 0. Idempotent. @throws ProviderError IN_USE */
export async function attach(
  cloud: Cloud,
  volumeId: string,
  machineId: string,
  deviceId: 0 | undefined,
  wait: Wait = {},
): Promise<CloudVolume> {
  return ensure(
    cloud.client,
    {
      object: `volume ${volumeId} to machine ${machineId}`,
      look: () => knownVolume(cloud, volumeId, wait),
      jobOf: (volume) => volume.jobId,
      done: (volume) => volume.machineId === machineId && (deviceId === undefined || volume.deviceId === deviceId),
      command: (volume) => {
        if (volume.machineId !== undefined) throw inUse(volume);
        return {
          command: "attachVolume",
          parameters: { id: volumeId, virtualmachineid: machineId, deviceid: deviceId },
        };
      },
    },
    wait,
  );
}

/** Detaches a volume from a machine; one that is not attached there is left as it is. */
export async function detach(cloud: Cloud, volumeId: string, machineId: string, wait: Wait = {}): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `volume ${volumeId} from machine ${machineId}`,
      look: () => cloud.volume(volumeId, wait),
      jobOf: (volume) => volume?.jobId,
      done: (volume) => volume?.machineId !== machineId,
      command: () => ({ command: "detachVolume", parameters: { id: volumeId } }),
    },
    wait,
  );
}

/** Deletes a volume that is attached to nothing. Idempotent. */
export async function deleteVolume(cloud: Cloud, volumeId: string, wait: Wait = {}): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `volume ${volumeId}`,
      look: () => cloud.volume(volumeId, wait),
      jobOf: (volume) => volume?.jobId,
      done: (volume) => volume === undefined,
      command: (volume) => {
        if (volume?.machineId !== undefined) throw inUse(volume);
        return { command: "deleteVolume", parameters: { id: volumeId } };
      },
    },
    wait,
  );
}

/** A machine that is none of ours has the volume. */
export function inUse(volume: CloudVolume): Error {
  const name = volume.machineName === undefined ? "" : ` (${volume.machineName}, ${volume.machineState})`;
  return cloudstackError(
    "IN_USE",
    `Volume ${volume.id} (${volume.name}) is attached to machine ${volume.machineId}${name}, which may write to it. Detach it ` +
      `there, or terminate what was launched from it, and run again. Nothing was written.`,
    { operation: "open" },
  );
}
