import {
  type LaunchDisk,
  type LaunchRequest,
  type LaunchedMachine,
  type MachineSpec,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import { numberIn } from "../client/decode.ts";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { hostName } from "../names.ts";
import { attach, awaitStragglers, deleteVolume, detach, inUse, knownVolume } from "../target/attachment.ts";
import { letGo } from "../target/holdings.ts";
import { cloneSnapshot, deleteSnapshot, snapshotNamed, takeSnapshot, volumeNamed } from "./clone-volume.ts";
import {
  type LaunchScope,
  diskNote,
  isOfLaunch,
  launchName,
  launchScope,
  launchVolumes,
  launchedMachine,
} from "./launch-scope.ts";
import { type MachineShape, shapeMachine } from "./machine-shape.ts";
import { terminateMachine } from "./terminate-machine.ts";

/** From this version on a machine is deployed from a volume (pull request 10503), on KVM and zone-wide pools. */
const DEPLOYS_FROM_VOLUME = "4.21";

/**
 * Starts a machine from committed volumes: from clones for a test, from the replicas themselves for a cutover. What the
 * platform has tells which step is next, so a call that was killed anywhere goes on where it was; what cannot be gone on with
 * is undone, and the replicas stay.
 */
export async function launchMachine(
  cloud: Cloud,
  spec: MachineSpec,
  disks: readonly LaunchDisk[],
  request: LaunchRequest,
): Promise<LaunchedMachine> {
  const { key, purpose, job, signal } = request;
  const wait = { signal };
  signal?.throwIfAborted();
  const boot = disks.find((disk) => disk.boot === true) ?? disks[0];
  if (boot === undefined) throw cloudstackError("CONFIG_INVALID", "A machine is launched from at least one disk.");
  const scope = launchScope(job, key);
  const replicas: CloudVolume[] = [];
  for (const { volume } of disks) replicas.push(await knownVolume(cloud, volume.id, wait));
  const known = await launchedMachine(cloud, scope, wait);
  const describe = (machine: CloudMachine | undefined, notes: string[]): LaunchedMachine => ({
    id: machine?.id ?? "",
    name: machine?.displayName ?? "",
    purpose,
    consumed: purpose === "cutover",
    notes: [...notes, ...addressesOf(machine)],
    data: { ...scope, replicas: replicas.map(({ id }) => id) },
  });
  if (known?.state === "Running") {
    // It is complete, for it is started last but for the stand-in's end; a machine at work is never touched again.
    await removeDummy(cloud, scope, wait);
    return describe(known, []);
  }
  const shape = await shapeMachine(cloud, spec, purpose, wait);
  try {
    const volumes = new Map<string, CloudVolume>();
    for (const [index, { disk }] of disks.entries()) {
      const replica = replicas[index];
      if (replica === undefined) continue;
      volumes.set(
        disk,
        purpose === "test" ? await cloned(cloud, scope, replica, disk, wait) : await freed(cloud, replica, known, wait),
      );
    }
    const root = volumes.get(boot.disk);
    if (root === undefined) throw new TypeError("the boot disk has no volume");
    const machine = await deployed(cloud, scope, spec, shape, root, wait);
    const data = disks.flatMap(({ disk }) => (disk === boot.disk ? [] : (volumes.get(disk) ?? [])));
    await assemble(cloud, scope, machine, root, data, shape, wait);
    if (cloud.options.launch?.start !== false) await started(cloud, machine.id, wait);
    await removeDummy(cloud, scope, wait);
    return describe((await cloud.machine(machine.id, wait)) ?? machine, shape.notes);
  } catch (error) {
    // What may work when asked again stays as it is, and so does what an earlier call began. What cannot is undone.
    if (known === undefined && isProviderError(error) && !error.retryable && !(signal?.aborted ?? false)) {
      await undo(cloud, scope, replicas, error, wait);
    }
    throw error;
  }
}

async function undo(
  cloud: Cloud,
  scope: LaunchScope,
  replicas: CloudVolume[],
  error: Error,
  wait: Wait,
): Promise<void> {
  try {
    const machine = await launchedMachine(cloud, scope, wait);
    await terminateMachine(
      cloud,
      { scope, machineId: machine?.id, purpose: "test" },
      replicas.map(({ id }) => id),
      wait,
    );
  } catch (failure) {
    cloud.notice(
      `What the launch made could not all be removed after it failed (${error.message}): ${String(failure)}`,
    );
  }
}

/** A clone of a replica, through a snapshot that is deleted as soon as the clone has its bytes. */
async function cloned(
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
async function freed(
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

/** The machine, stopped and with a root volume: the boot volume itself where the platform can, else a template's. */
async function deployed(
  cloud: Cloud,
  scope: LaunchScope,
  spec: MachineSpec,
  shape: MachineShape,
  root: CloudVolume,
  wait: Wait,
): Promise<CloudMachine> {
  const method = cloud.options.launch?.method ?? "auto";
  if (method === "swap") return deploy(cloud, scope, spec, shape, await templateParameters(cloud, wait), wait);
  const can =
    (await cloud.reaches(DEPLOYS_FROM_VOLUME, wait)) && root.templateId !== undefined && root.hypervisor !== "None";
  if (method === "volume" || can) {
    try {
      return await deploy(cloud, scope, spec, shape, { volumeid: root.id }, wait);
    } catch (error) {
      if (method === "volume" || !isProviderError(error) || error.retryable) throw error;
      cloud.notice(
        `The platform does not deploy from volume ${root.id}; its root volume is swapped in. ${error.message}`,
      );
    }
  }
  return deploy(cloud, scope, spec, shape, await templateParameters(cloud, wait), wait);
}

async function deploy(
  cloud: Cloud,
  scope: LaunchScope,
  spec: MachineSpec,
  shape: MachineShape,
  origin: Record<string, string>,
  wait: Wait,
): Promise<CloudMachine> {
  const name = hostName(spec.name, launchName(scope));
  const machine = await ensure(
    cloud.client,
    {
      object: `machine ${name}`,
      look: () => launchedMachine(cloud, scope, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.state === "Stopped" || state?.state === "Running",
      command: (state) => {
        if (state !== undefined)
          throw cloudstackError(
            "UNEXPECTED",
            `Machine ${state.id} (${name}) is in state ${state.state}; see CloudStack's events.`,
          );
        return {
          command: "deployVirtualMachine",
          parameters: { ...shape.parameters, ...origin, name, startvm: false },
        };
      },
      prepare: async () => ({
        zoneid: await cloud.zoneId(wait),
        displayname: spec.name ?? name,
        ...(await cloud.scope(wait)),
      }),
      creates: true,
    },
    wait,
  );
  if (machine === undefined) throw cloudstackError("UNEXPECTED", `Machine ${name} was deployed and is not there.`);
  return machine;
}

/** The template whose root volume is swapped out: the one named, else the smallest that is ready. */
async function templateParameters(cloud: Cloud, wait: Wait): Promise<Record<string, string>> {
  const { template } = cloud.options.launch ?? {};
  const filter = { zoneid: await cloud.zoneId(wait), templatefilter: "executable", ...(await cloud.scope(wait)) };
  if (template !== undefined)
    return { templateid: (await cloud.choice("listTemplates", template, "template", filter, wait)).id };
  let best: { id: string; size: number } | undefined;
  for await (const { id, about } of cloud.choices("listTemplates", filter, wait)) {
    const size = numberIn(about["size"]);
    const isReady = about["isready"] === true || about["isready"] === "true";
    if (isReady && size !== undefined && (best === undefined || size < best.size)) best = { id, size };
  }
  if (best !== undefined) return { templateid: best.id };
  throw cloudstackError(
    "CONFIG_INVALID",
    "No template is ready in this zone: name a small one in launch.template; its root volume is only a stand-in.",
    { operation: "launch" },
  );
}

/** Puts the volumes into the stopped machine. The template's root leaves first and is kept until the machine runs. */
async function assemble(
  cloud: Cloud,
  scope: LaunchScope,
  machine: CloudMachine,
  root: CloudVolume,
  data: readonly CloudVolume[],
  shape: MachineShape,
  wait: Wait,
): Promise<void> {
  for await (const volume of cloud.volumes({ virtualmachineid: machine.id }, wait)) {
    const isStandIn = volume.type === "ROOT" && volume.id !== root.id;
    if (!isStandIn) continue;
    await named(cloud, volume.id, launchName(scope, "dummy"), wait);
    await detach(cloud, volume.id, machine.id, wait);
  }
  await attach(cloud, root.id, machine.id, 0, wait);
  for (const volume of data) await attach(cloud, volume.id, machine.id, undefined, wait);
  const now = await cloud.machine(machine.id, wait);
  if (shape.osTypeId !== undefined && now?.state === "Stopped" && now.osTypeId !== shape.osTypeId) {
    await ensure(
      cloud.client,
      {
        object: `machine ${machine.id}`,
        look: () => cloud.machine(machine.id, wait),
        done: (state) => state?.osTypeId === shape.osTypeId,
        command: () => ({ command: "updateVirtualMachine", parameters: { id: machine.id, ostypeid: shape.osTypeId } }),
      },
      wait,
    );
  }
}

/** Gives a volume a name of ours, so that it is found whatever happens next. */
async function named(cloud: Cloud, id: string, name: string, wait: Wait): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `volume ${id}`,
      look: () => knownVolume(cloud, id, wait),
      jobOf: (volume) => volume.jobId,
      done: (volume) => volume.name === name,
      command: () => ({ command: "updateVolume", parameters: { id, name } }),
    },
    wait,
  );
}

async function started(cloud: Cloud, id: string, wait: Wait): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `machine ${id}`,
      look: () => cloud.machine(id, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.state === "Running",
      command: () => ({ command: "startVirtualMachine", parameters: { id } }),
    },
    wait,
  );
}

async function removeDummy(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<void> {
  for (const volume of await launchVolumes(cloud, scope, wait)) {
    if (volume.name === launchName(scope, "dummy") && isOfLaunch(volume.name, scope))
      await deleteVolume(cloud, volume.id, wait);
  }
}

function addressesOf(machine: CloudMachine | undefined): string[] {
  return (machine?.cards ?? []).map(
    ({ network, address, mac }) => `${network ?? "network"}: ${address ?? "no address"} (${mac ?? "?"})`,
  );
}
