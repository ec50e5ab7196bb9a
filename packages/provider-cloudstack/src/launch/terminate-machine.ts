import { type LaunchedMachine, type Wait, isProviderError } from "@diskferry/core/provider";
import { flagIn } from "../client/decode.ts";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { readOwnName } from "../names.ts";
import { deleteVolume, detach } from "../target/attachment.ts";
import { removeTemplate } from "./boot-template.ts";
import { deleteSnapshot } from "./clone-volume.ts";
import type { Replicas } from "./take-replica.ts";
import {
  type LaunchScope,
  goneMachines,
  goneName,
  isGone,
  isOfLaunch,
  launchVolumes,
  launchedMachine,
} from "./launch-scope.ts";

/** How often a machine is looked at for volumes that are still to be taken out. */
const mostLooks = 5;

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
  isReplica: (volume: CloudVolume) => boolean,
  wait: Wait,
): Promise<void> {
  // A launch that never told of its machine may have made one all the same.
  const isKnown = machineId !== undefined && machineId !== "";
  const machine = isKnown ? await cloud.machine(machineId, wait) : await launchedMachine(cloud, scope, wait);
  if (machine !== undefined) {
    demandLaunched(machine, scope);
    if (machine.state !== "Error") await stopMachine(cloud, machine.id, purpose === "test", wait);
    await emptied(cloud, machine, scope, isReplica, wait);
    await destroyed(cloud, scope, machine, wait);
  }
  await endGone(cloud, scope, wait);
  for (const volume of await launchVolumes(cloud, scope, wait)) {
    if (!isReplica(volume) && volume.machineId === undefined) await deleteVolume(cloud, volume.id, wait);
  }
  for await (const snapshot of cloud.snapshots({}, wait)) {
    if (isOfLaunch(snapshot.name, scope)) await deleteSnapshot(cloud, snapshot.id, wait);
  }
  if (cloud.options.launch?.keepTemplate !== true) await removeTemplate(cloud, scope, wait);
}

/** Ends a launched machine, by what its launch left in it. */
export async function terminateLaunched(
  cloud: Cloud,
  replicas: Replicas,
  machine: LaunchedMachine,
  wait: Wait,
): Promise<void> {
  wait.signal?.throwIfAborted();
  const { job, key, replicas: given } = machine.data ?? {};
  if (typeof job !== "string" || typeof key !== "string")
    throw cloudstackError("CONFIG_INVALID", `Machine ${machine.id} was not launched by this provider.`);
  const ids = Array.isArray(given) ? given.filter((id) => typeof id === "string") : [];
  const ending = { scope: { job, key }, machineId: machine.id, purpose: machine.purpose };
  await terminateMachine(cloud, ending, (volume) => replicas.isOne(volume, ids), wait);
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
  isReplica: (volume: CloudVolume) => boolean,
  wait: Wait,
): Promise<void> {
  // The root of a template that was never swapped out is the machine's own, and may be called after it; whatever bears another
  // of our names is not.
  const isOwnRoot = (volume: CloudVolume): boolean => {
    const own = readOwnName(volume.name);
    const isItsOwn = own === undefined || (own.key === scope.key && own.note === undefined);
    return volume.type === "ROOT" && isItsOwn && !isReplica(volume);
  };
  // An attachment that was under way when its process died is there only after the first look.
  const tried = new Set<string>();
  for (let look = 0; look < mostLooks; look++) {
    const found = await volumesIn(cloud, machine, wait);
    const foreign = found.filter((volume) => !isOwnRoot(volume) && !tried.has(volume.id));
    if (foreign.length === 0) break;
    for (const volume of foreign) {
      tried.add(volume.id);
      try {
        await detach(cloud, volume.id, machine.id, wait);
      } catch (error) {
        if (!isProviderError(error) || !isOfLaunch(volume.name, scope)) throw error;
        cloud.notice(`Clone ${volume.id} stays in machine ${machine.id} and is deleted with it. ${error.message}`);
      }
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

/** A machine is known by its launch's mark; whatever else an id leads to is somebody's. */
function demandLaunched({ id, name }: CloudMachine, scope: LaunchScope): void {
  if (readOwnName(name)?.key === scope.key) return;
  throw cloudstackError(
    "UNSUPPORTED",
    `Machine ${id} (${name}) does not bear the name that its launch gave it: it is another one, or was renamed. Destroy it by ` +
      `hand, its volumes taken out before. Nothing was changed.`,
    { operation: "terminate" },
  );
}

/** Destroys what an earlier call had begun to end. Its volumes were taken out before. */
export async function endGone(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<void> {
  for (const machine of await goneMachines(cloud, scope, wait)) await destroyed(cloud, scope, machine, wait);
}

/**
 * Destroys a machine, for good where the account may (`allow.user.expunge.recover.vm`). Elsewhere it keeps its host name until
 * the platform expunges it (`expunge.delay`), and no other machine of the launch could have it: so it gives it up first.
 */
async function destroyed(cloud: Cloud, scope: LaunchScope, machine: CloudMachine, wait: Wait): Promise<void> {
  const { id } = machine;
  const expunge = flagIn((await cloud.capabilities(wait))["allowuserexpungerecovervm"]) ?? false;
  if (!expunge && !isGone(machine) && machine.state !== "Error") {
    const name = goneName(scope);
    await ensure(
      cloud.client,
      {
        object: `machine ${id}`,
        look: () => cloud.machine(id, wait),
        jobOf: (state) => state?.jobId,
        done: (state) => state === undefined || isGone(state),
        command: () => ({ command: "updateVirtualMachine", parameters: { id, name } }),
      },
      wait,
    );
  }
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
