import type { Wait } from "@diskferry/core/provider";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { templateName } from "../names.ts";
import { type TemplateOrigin, launchTemplate, makeTemplate } from "./boot-template.ts";
import { deleteSnapshot, snapshotNamed, takeSnapshot } from "./clone-volume.ts";
import { complete, deploy, renameVolume } from "./deploy-machine.ts";
import type { Launch } from "./launch-machine.ts";
import { diskNote, launchName } from "./launch-scope.ts";
import { cloned, freed, removeClone } from "./take-replica.ts";

/**
 * A machine of a template that is made of the boot disk's replica: the way for pools and hypervisors where no volume becomes a
 * root volume. The root is a copy; the other disks are the replicas themselves, or for a test their clones. For a test the
 * template is made of a snapshot, so that replication goes on meanwhile.
 */
export async function bootTemplate(launch: Launch): Promise<CloudMachine> {
  const { cloud, scope, spec, shape, disks, purpose, known, wait } = launch;
  const boot = disks.find(({ isBoot }) => isBoot);
  if (boot === undefined) throw new TypeError("the boot disk has no volume");
  if (known !== undefined) await demandOwn(launch, known);
  const template = known === undefined ? await templateFor(launch, boot) : undefined;
  // Another method may have cloned the boot disk before it was refused.
  await removeClone(cloud, scope, diskNote("clone", boot.disk), wait);
  const data: CloudVolume[] = [];
  for (const { disk, isBoot, replica } of disks) {
    if (isBoot) continue;
    data.push(
      purpose === "test" ? await cloned(cloud, scope, replica, disk, wait) : await freed(cloud, replica, known, wait),
    );
  }
  const machine = await deploy(cloud, scope, spec, shape, { templateid: template?.id ?? "" }, wait);
  for await (const volume of cloud.volumes({ virtualmachineid: machine.id }, wait))
    if (volume.type === "ROOT") await renameVolume(cloud, volume.id, launchName(scope, "root"), wait);
  await complete(cloud, machine, data, shape, wait);
  return machine;
}

/** A machine that another method began has another root; it would boot, with none of the disk's bytes. */
async function demandOwn({ cloud, scope, wait }: Launch, machine: CloudMachine): Promise<void> {
  if (machine.templateName === templateName(scope.job, scope.key)) return;
  for await (const { name } of cloud.volumes({ virtualmachineid: machine.id }, wait))
    if (name === launchName(scope, "root")) return;
  throw cloudstackError(
    "IN_USE",
    `Machine ${machine.id} of this launch was begun by another method than "template": terminate it, and launch again.`,
    { operation: "launch" },
  );
}

/** The template; where there is none yet it is made of the replica itself, or for a test of a snapshot that goes away then. */
async function templateFor(
  { cloud, scope, spec, shape, purpose, wait }: Launch,
  { disk, replica }: Launch["disks"][number],
): Promise<{ id: string }> {
  const shot = launchName(scope, diskNote("snapshot", disk));
  let template = await launchTemplate(cloud, scope, wait);
  if (template?.isReady !== true) {
    await freed(cloud, replica, undefined, wait);
    const origin: TemplateOrigin =
      purpose === "test"
        ? { snapshotid: (await takeSnapshot(cloud, replica.id, shot, wait)).id }
        : { volumeid: replica.id };
    const osTypeId = shape.osTypeId ?? (await anyOsType(cloud, wait));
    const displayText = `${spec.name ?? "machine"}, disk ${disk}`.slice(0, 250);
    template = await makeTemplate(cloud, scope, origin, { osTypeId, displayText }, wait);
  }
  const left = await snapshotNamed(cloud, replica.id, shot, wait);
  if (left !== undefined) await deleteSnapshot(cloud, left.id, wait);
  return template;
}

/** A template has to have an operating system; for one that nothing is known of, CloudStack lists others. */
async function anyOsType(cloud: Cloud, wait: Wait): Promise<string> {
  for await (const { id, name } of cloud.choices("listOsTypes", {}, wait)) if (/^other\b.*64/i.test(name)) return id;
  throw cloudstackError("CONFIG_INVALID", "A template needs an operating system: name one in launch.osType.", {
    operation: "launch",
  });
}
