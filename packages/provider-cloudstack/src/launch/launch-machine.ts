import {
  type LaunchDisk,
  type LaunchRequest,
  type LaunchedMachine,
  type MachineSpec,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { readOwnName } from "../names.ts";
import { launchTemplate, removeTemplate } from "./boot-template.ts";
import { bootSnapshot } from "./by-snapshot.ts";
import { bootTemplate } from "./by-template.ts";
import { complete, deploy, removeDummy, standInTemplate, startMachine, swapRoot } from "./deploy-machine.ts";
import {
  type LaunchScope,
  isOfLaunch,
  launchName,
  launchScope,
  launchVolumes,
  launchedMachine,
} from "./launch-scope.ts";
import { type MachineShape, shapeMachine } from "./machine-shape.ts";
import { type Replicas, cloned, freed } from "./take-replica.ts";
import { endGone, terminateMachine } from "./terminate-machine.ts";

/** From this version on a machine is deployed from a volume (pull request 10503), on KVM and zone-wide pools. */
const DEPLOYS_FROM_VOLUME = "4.21";

/** How the root volume gets into the machine. */
export type LaunchMethod = "volume" | "swap" | "template";

/** All that a launch is about. */
export interface Launch {
  cloud: Cloud;
  scope: LaunchScope;
  spec: MachineSpec;
  shape: MachineShape;
  purpose: "test" | "cutover";
  /** The disks, with the volumes of their replicas. */
  disks: { disk: string; isBoot: boolean; replica: CloudVolume }[];
  /** The machine that an earlier call began. */
  known: CloudMachine | undefined;
  wait: Wait;
}

/**
 * Starts a machine from committed volumes: from clones for a test, from the replicas themselves for a cutover. What the
 * platform has tells which step is next, so a call that was killed anywhere goes on where it was; what cannot be gone on with
 * is undone, and the replicas stay.
 */
export async function launchMachine(
  cloud: Cloud,
  replicas: Replicas,
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
  const found: Launch["disks"] = [];
  for (const each of disks) {
    const replica = await replicas.find(each.volume.id, wait);
    found.push({ disk: each.disk, isBoot: each === boot, replica });
  }
  const ids = disks.map(({ volume }) => volume.id);
  const isReplica = (volume: CloudVolume): boolean => replicas.isOne(volume, ids);
  const known = await launchedMachine(cloud, scope, wait);
  const describe = (machine: CloudMachine | undefined, isCopy: boolean, notes: string[]): LaunchedMachine => ({
    id: machine?.id ?? "",
    name: machine?.displayName ?? "",
    purpose,
    // A template's machine has a copy of its root; its other volumes are the replicas themselves.
    consumed: purpose === "cutover" && !(isCopy && disks.length === 1),
    notes: [...notes, ...(isCopy && purpose === "cutover" ? [COPIED] : []), ...addressesOf(machine)],
    data: { ...scope, replicas: ids },
  });
  if (known?.state === "Running") {
    // It is complete, for it is started last but for the stand-ins' end; a machine at work is never touched again.
    const isCopy = await hasCopiedRoot(cloud, scope, wait);
    await removeStandIns(cloud, scope, wait);
    return describe(known, isCopy, []);
  }
  const shape = await shapeMachine(cloud, spec, purpose, wait);
  const launch: Launch = { cloud, scope, spec, shape, purpose, disks: found, known, wait };
  const methods = await methodsFor(launch);
  for (const [index, method] of methods.entries()) {
    try {
      const machine = method === "template" ? await bootTemplate(launch) : await bootVolume(launch, method);
      if (cloud.options.launch?.start !== false) await startMachine(cloud, machine.id, wait);
      await removeStandIns(cloud, scope, wait);
      const now = (await cloud.machine(machine.id, wait)) ?? machine;
      return describe(now, method === "template", shape.notes);
    } catch (error) {
      const next = methods[index + 1];
      if (next !== undefined && isRefusal(error)) {
        cloud.notice(`The platform does not launch by ${method}; it is done by ${next}. ${error.message}`);
        await clear(launch, (volume) => isReplica(volume) || isClone(volume, scope));
        launch.known = undefined;
        continue;
      }
      // What may work when asked again stays as it is, and so does what an earlier call began. What cannot is undone.
      if (known === undefined && isProviderError(error) && !error.retryable && !(signal?.aborted ?? false))
        await undo(launch, isReplica, error);
      throw error;
    }
  }
  throw new TypeError("there is no method to launch by");
}

const COPIED =
  "Its root volume is a copy that a template was made for: the replica of the boot disk stays as it is, and nothing that the " +
  "machine writes to its root reaches it.";

/** Refusals of a method, after which the next may do. */
const refused = new WeakSet<Error>();

function isRefusal(error: unknown): error is Error {
  return error instanceof Error && (refused.has(error) || (isProviderError(error) && error.code === "UNSUPPORTED"));
}

/** The methods to try, the best first. A launch that a template was made for is not begun another way. */
async function methodsFor({ cloud, scope, disks, wait }: Launch): Promise<LaunchMethod[]> {
  const { method = "auto" } = cloud.options.launch ?? {};
  if (method === "import") throw new TypeError("a launch by import has its own way");
  if (method !== "auto") return [method];
  if ((await launchTemplate(cloud, scope, wait)) !== undefined || (await hasCopiedRoot(cloud, scope, wait)))
    return ["template"];
  const root = disks.find(({ isBoot }) => isBoot)?.replica;
  const can =
    (await cloud.reaches(DEPLOYS_FROM_VOLUME, wait)) && root?.templateId !== undefined && root.hypervisor !== "None";
  const makes = (await cloud.commands(wait)).has("createtemplate");
  return [...(can ? (["volume"] as const) : []), "swap", ...(makes ? (["template"] as const) : [])];
}

/** The machine with the volumes themselves, its root deployed from or swapped in. */
async function bootVolume(launch: Launch, method: "volume" | "swap"): Promise<CloudMachine> {
  const { cloud, scope, spec, shape, disks, purpose, known, wait } = launch;
  if (method === "volume" && purpose === "test") {
    const machine = await bootSnapshot(launch, refused);
    if (machine !== undefined) return machine;
  }
  let root: CloudVolume | undefined;
  const data: CloudVolume[] = [];
  for (const { disk, isBoot, replica } of disks) {
    const volume =
      purpose === "test" ? await cloned(cloud, scope, replica, disk, wait) : await freed(cloud, replica, known, wait);
    if (isBoot) root = volume;
    else data.push(volume);
  }
  if (root === undefined) throw new TypeError("the boot disk has no volume");
  let machine: CloudMachine;
  if (method === "swap") machine = await deploy(cloud, scope, spec, shape, await standInTemplate(cloud, wait), wait);
  else {
    try {
      machine = await deploy(cloud, scope, spec, shape, { volumeid: root.id }, wait);
    } catch (error) {
      if (isProviderError(error) && !error.retryable) refused.add(error);
      throw error;
    }
  }
  await swapRoot(cloud, scope, machine, root, wait);
  await complete(cloud, machine, data, shape, wait);
  return machine;
}

/** Whether a launch's machine has a root that a template was made for; it bears the launch's name. */
async function hasCopiedRoot(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<boolean> {
  return (await launchVolumes(cloud, scope, wait)).some(({ name }) => name === launchName(scope, "root"));
}

async function removeStandIns(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<void> {
  await endGone(cloud, scope, wait);
  await removeDummy(cloud, scope, wait);
  if (cloud.options.launch?.keepTemplate !== true) await removeTemplate(cloud, scope, wait);
}

function isClone({ name }: CloudVolume, scope: LaunchScope): boolean {
  return isOfLaunch(name, scope) && readOwnName(name)?.note?.startsWith("clone") === true;
}

/** Ends the machine of a launch and what was made for it, but what is kept. */
async function clear({ cloud, scope, wait }: Launch, isKept: (volume: CloudVolume) => boolean): Promise<void> {
  const machine = await launchedMachine(cloud, scope, wait);
  await terminateMachine(cloud, { scope, machineId: machine?.id, purpose: "test" }, isKept, wait);
}

async function undo(launch: Launch, isReplica: (volume: CloudVolume) => boolean, error: Error): Promise<void> {
  try {
    await clear(launch, isReplica);
  } catch (failure) {
    launch.cloud.notice(
      `What the launch made could not all be removed after it failed (${error.message}): ${String(failure)}`,
    );
  }
}

function addressesOf(machine: CloudMachine | undefined): string[] {
  return (machine?.cards ?? []).map(
    ({ network, address, mac }) => `${network ?? "network"}: ${address ?? "no address"} (${mac ?? "?"})`,
  );
}
