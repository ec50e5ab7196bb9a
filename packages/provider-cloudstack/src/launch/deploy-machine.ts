import { type MachineSpec, type Wait } from "@diskferry/core/provider";
import { numberIn } from "../client/decode.ts";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { hostName, jobOfTemplate } from "../names.ts";
import { attach, deleteVolume, detach, knownVolume } from "../target/attachment.ts";
import { type LaunchScope, isOfLaunch, launchName, launchVolumes, launchedMachine } from "./launch-scope.ts";
import type { MachineShape } from "./machine-shape.ts";

/** What a machine's root volume is made of. */
export type RootOrigin = { volumeid: string } | { snapshotid: string } | { templateid: string };

/** The machine of a launch, stopped. What was deployed before is taken as it is. */
export async function deploy(
  cloud: Cloud,
  scope: LaunchScope,
  spec: MachineSpec,
  shape: MachineShape,
  origin: RootOrigin,
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
export async function standInTemplate(cloud: Cloud, wait: Wait): Promise<{ templateid: string }> {
  const { template } = cloud.options.launch ?? {};
  const filter = { zoneid: await cloud.zoneId(wait), templatefilter: "executable", ...(await cloud.scope(wait)) };
  if (template !== undefined)
    return { templateid: (await cloud.choice("listTemplates", template, "template", filter, wait)).id };
  let best: { id: string; size: number } | undefined;
  for await (const { id, name, about } of cloud.choices("listTemplates", filter, wait)) {
    const size = numberIn(about["size"]);
    const isReady = about["isready"] === true || about["isready"] === "true";
    // A template of a launch is no stand-in: it is large, and goes away.
    if (jobOfTemplate(name) !== undefined) continue;
    if (isReady && size !== undefined && (best === undefined || size < best.size)) best = { id, size };
  }
  if (best !== undefined) return { templateid: best.id };
  throw cloudstackError(
    "UNSUPPORTED",
    "No template is ready in this zone: name a small one in launch.template; its root volume is only a stand-in.",
    { operation: "launch" },
  );
}

/** Takes the root volume of the template out, under a name that it is found by, and puts another in its place. */
export async function swapRoot(
  cloud: Cloud,
  scope: LaunchScope,
  machine: CloudMachine,
  root: CloudVolume,
  wait: Wait,
): Promise<void> {
  for await (const volume of cloud.volumes({ virtualmachineid: machine.id }, wait)) {
    const isStandIn = volume.type === "ROOT" && volume.id !== root.id;
    if (!isStandIn) continue;
    await renameVolume(cloud, volume.id, launchName(scope, "dummy"), wait);
    await detach(cloud, volume.id, machine.id, wait);
  }
  await attach(cloud, root.id, machine.id, 0, wait);
}

/** Attaches the other volumes to a machine that has its root, and sets its operating system. */
export async function complete(
  cloud: Cloud,
  machine: CloudMachine,
  data: readonly CloudVolume[],
  shape: MachineShape,
  wait: Wait,
): Promise<void> {
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
export async function renameVolume(cloud: Cloud, id: string, name: string, wait: Wait): Promise<void> {
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

/** Starts a machine. Idempotent. */
export async function startMachine(cloud: Cloud, id: string, wait: Wait): Promise<void> {
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

/** Deletes the root volume of the template that was swapped out. Idempotent. */
export async function removeDummy(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<void> {
  for (const volume of await launchVolumes(cloud, scope, wait)) {
    if (volume.name === launchName(scope, "dummy") && isOfLaunch(volume.name, scope))
      await deleteVolume(cloud, volume.id, wait);
  }
}
