import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import { isProviderError } from "@diskferry/core/provider";
import { deleteSnapshot, snapshotNamed, takeSnapshot } from "./clone-volume.ts";
import { complete, deploy, renameVolume } from "./deploy-machine.ts";
import type { Launch } from "./launch-machine.ts";
import { diskNote, launchName } from "./launch-scope.ts";
import { cloned, freed, removeClone } from "./take-replica.ts";

/**
 * A test's machine that is deployed from a snapshot of the boot disk's replica (4.21, KVM, zone-wide pools), with clones of the
 * others: one copy less than by a clone of the boot disk. Once its root bears the name of that clone the launch is told by it.
 * @returns undefined where a machine is there that was not begun so
 */
export async function bootSnapshot(launch: Launch, refused: WeakSet<Error>): Promise<CloudMachine | undefined> {
  const { cloud, scope, spec, shape, disks, known, wait } = launch;
  const boot = disks.find(({ isBoot }) => isBoot);
  if (boot === undefined) throw new TypeError("the boot disk has no volume");
  const shot = launchName(scope, diskNote("snapshot", boot.disk));
  const name = launchName(scope, diskNote("clone", boot.disk));
  const left = await snapshotNamed(cloud, boot.replica.id, shot, wait);
  if (known !== undefined) {
    const isOwn = async (): Promise<boolean> => {
      for await (const volume of cloud.volumes({ virtualmachineid: known.id }, wait))
        if (volume.type === "ROOT" && (volume.name === name || (left !== undefined && volume.snapshotId === left.id)))
          return true;
      return false;
    };
    if (!(await isOwn())) return undefined;
  }
  const data: CloudVolume[] = [];
  for (const { disk, isBoot, replica } of disks)
    if (!isBoot) data.push(await cloned(cloud, scope, replica, disk, wait));
  let snapshotid = left?.id ?? "";
  if (known === undefined) {
    await removeClone(cloud, scope, diskNote("clone", boot.disk), wait);
    await freed(cloud, boot.replica, undefined, wait);
    snapshotid = (await takeSnapshot(cloud, boot.replica.id, shot, wait)).id;
  }
  let machine: CloudMachine;
  try {
    machine = await deploy(cloud, scope, spec, shape, { snapshotid }, wait);
  } catch (error) {
    if (isProviderError(error) && !error.retryable) refused.add(error);
    throw error;
  }
  for await (const volume of cloud.volumes({ virtualmachineid: machine.id }, wait))
    if (volume.type === "ROOT") await renameVolume(cloud, volume.id, name, wait);
  const spent = await snapshotNamed(cloud, boot.replica.id, shot, wait);
  if (spent !== undefined) await deleteSnapshot(cloud, spent.id, wait);
  await complete(cloud, machine, data, shape, wait);
  return machine;
}
