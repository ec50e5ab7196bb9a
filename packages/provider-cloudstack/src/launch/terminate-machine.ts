import { type Wait, isProviderError } from "@diskferry/core/provider";
import { flagIn } from "../client/decode.ts";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { readOwnName } from "../names.ts";
import { deleteVolume, detach } from "../target/attachment.ts";
import { deleteSnapshot } from "./clone-volume.ts";
import { type LaunchScope, isOfLaunch, launchVolumes } from "./launch-scope.ts";

/** What is ended. */
export interface Ending {
  scope: LaunchScope;
  machineId: string | undefined;
  /** A test's clone is switched off, a machine of a cutover is asked to shut down first. */
  purpose: "test" | "cutover";
}

/**
 * Ends what a launch made: the machine, clones, the stand-in, snapshots. Volumes that the launch did not make are detached
 * before the machine is destroyed, since CloudStack deletes a machine's root volume with it.
 * @throws ProviderError UNSUPPORTED where a replica cannot be taken out; nothing is destroyed then
 */
export async function terminateMachine(
  cloud: Cloud,
  { scope, machineId, purpose }: Ending,
  replicas: readonly string[],
  wait: Wait,
): Promise<void> {
  const machine = machineId === undefined ? undefined : await cloud.machine(machineId, wait);
  if (machine !== undefined) {
    if (machine.state !== "Error") await stopMachine(cloud, machine.id, purpose === "test", wait);
    await emptied(cloud, machine, scope, replicas, wait);
    await destroyed(cloud, machine.id, wait);
  }
  for (const volume of await launchVolumes(cloud, scope, wait)) {
    if (!replicas.includes(volume.id) && volume.machineId === undefined) await deleteVolume(cloud, volume.id, wait);
  }
  for await (const snapshot of cloud.snapshots({}, wait)) {
    if (isOfLaunch(snapshot.name, scope)) await deleteSnapshot(cloud, snapshot.id, wait);
  }
}

/** Stops a machine; `forced` switches it off where it does not end by itself. Idempotent. */
export async function stopMachine(cloud: Cloud, id: string, forced: boolean, wait: Wait): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `machine ${id}`,
      look: () => cloud.machine(id, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state === undefined || state.state === "Stopped",
      command: () => ({ command: "stopVirtualMachine", parameters: { id, ...(forced ? { forced } : {}) } }),
    },
    wait,
  );
}

/** Takes every volume out that the machine's end would take with it and that is not the launch's own. */
async function emptied(
  cloud: Cloud,
  machine: CloudMachine,
  scope: LaunchScope,
  replicas: readonly string[],
  wait: Wait,
): Promise<void> {
  // The root of a template that was never swapped out is the machine's own; whatever bears one of our names is not.
  const isOwnRoot = ({ id, type, name }: CloudVolume): boolean =>
    type === "ROOT" && !replicas.includes(id) && readOwnName(name) === undefined;
  for (const volume of await volumesIn(cloud, machine, wait)) {
    if (isOwnRoot(volume)) continue;
    try {
      await detach(cloud, volume.id, machine.id, wait);
    } catch (error) {
      if (!isProviderError(error) || !isOfLaunch(volume.name, scope)) throw error;
      cloud.notice(`Clone ${volume.id} stays in machine ${machine.id} and is deleted with it. ${error.message}`);
    }
  }
  for (const volume of await volumesIn(cloud, machine, wait)) {
    if (isOwnRoot(volume) || isOfLaunch(volume.name, scope)) continue;
    throw cloudstackError(
      "UNSUPPORTED",
      `Volume ${volume.id} (${volume.name}) cannot be taken out of machine ${machine.id}, whose end would delete it. Detach it ` +
        `by hand, and terminate again. Nothing was destroyed.`,
      { operation: "terminate" },
    );
  }
}

async function volumesIn(cloud: Cloud, machine: CloudMachine, wait: Wait): Promise<CloudVolume[]> {
  const volumes: CloudVolume[] = [];
  for await (const volume of cloud.volumes({ virtualmachineid: machine.id }, wait)) volumes.push(volume);
  return volumes;
}

/** Destroys a machine, for good where the account may (`allow.user.expunge.recover.vm`). */
async function destroyed(cloud: Cloud, id: string, wait: Wait): Promise<void> {
  const expunge = flagIn((await cloud.capabilities(wait))["allowuserexpungerecovervm"]) ?? false;
  await ensure(
    cloud.client,
    {
      object: `machine ${id}`,
      look: () => cloud.machine(id, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state === undefined,
      command: () => ({ command: "destroyVirtualMachine", parameters: { id, ...(expunge ? { expunge } : {}) } }),
    },
    wait,
  );
}
