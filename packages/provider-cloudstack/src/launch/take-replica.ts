import type { Wait } from "@diskferry/core/provider";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import type { Cloud } from "../cloud.ts";
import { awaitStragglers, deleteVolume, inUse, knownVolume } from "../target/attachment.ts";
import { letGo } from "../target/holdings.ts";
import { cloneSnapshot, deleteSnapshot, snapshotNamed, takeSnapshot, volumeNamed } from "./clone-volume.ts";
import { type LaunchScope, diskNote, launchName, launchVolumes } from "./launch-scope.ts";

/** How a launch finds the replicas that it is given, and knows them among a machine's volumes. */
export interface Replicas {
  /** @throws ProviderError NOT_FOUND */
  find(id: string, wait: Wait): Promise<CloudVolume>;
  /** Whether a volume is one of the replicas of these ids. */
  isOne(volume: CloudVolume, ids: readonly string[]): boolean;
}

/** Replicas whose ids are their volumes'. */
export function volumesById(cloud: Cloud): Replicas {
  return {
    find: (id, wait) => knownVolume(cloud, id, wait),
    isOne: (volume, ids) => ids.includes(volume.id),
  };
}

/** A clone of a replica, through a snapshot that is deleted as soon as the clone has its bytes. */
export async function cloned(
  cloud: Cloud,
  scope: LaunchScope,
  replica: CloudVolume,
  disk: string,
  wait: Wait,
): Promise<CloudVolume> {
  const name = launchName(scope, diskNote("clone", disk));
  const shot = launchName(scope, diskNote("snapshot", disk));
  const existing = await volumeNamed(cloud, name, wait);
  let clone = existing?.state === "Ready" ? existing : undefined;
  if (clone === undefined) {
    await freed(cloud, replica, undefined, wait);
    const snapshot = await takeSnapshot(cloud, replica.id, shot, wait);
    clone = await cloneSnapshot(cloud, snapshot.id, name, wait);
  }
  const left = await snapshotNamed(cloud, replica.id, shot, wait);
  if (left !== undefined) await deleteSnapshot(cloud, left.id, wait);
  return clone;
}

/** A replica that no writer holds any more. @throws ProviderError IN_USE where another machine has it */
export async function freed(
  cloud: Cloud,
  replica: CloudVolume,
  machine: CloudMachine | undefined,
  wait: Wait,
): Promise<CloudVolume> {
  const settled = await awaitStragglers(cloud, replica.id, wait);
  if (settled.machineId !== undefined && settled.machineId === machine?.id) return settled;
  await letGo(cloud, replica.id, wait);
  const now = await knownVolume(cloud, replica.id, wait);
  if (now.machineId !== undefined) throw inUse(now);
  return now;
}

/** Deletes clones of disks that the launch has no use for. */
export async function removeClone(cloud: Cloud, scope: LaunchScope, note: string, wait: Wait): Promise<void> {
  for (const volume of await launchVolumes(cloud, scope, wait))
    if (volume.name === launchName(scope, note) && volume.machineId === undefined)
      await deleteVolume(cloud, volume.id, wait);
}
