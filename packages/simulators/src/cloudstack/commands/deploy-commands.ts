import { randomUUID } from "node:crypto";
import { ApiError, errorCodes, invalid } from "../api-error.ts";
import type { Call, CommandDefinition, Submission } from "../command.ts";
import type { Machine, Snapshot, Template, Volume } from "../entities.ts";
import { writeMachine } from "../responses.ts";
import { gib } from "../world.ts";
import { chosenId, nicsFor, sizeOf, startDeployed } from "./machine-commands.ts";
import { attach, blankVolume } from "../volume-life.ts";

/** What the root volume is made of: exactly one of them. */
interface Origin {
  readonly template: Template;
  readonly volume?: Volume;
  readonly snapshot?: Snapshot;
}

function originOf(call: Call): Origin {
  const { world, parameters, caller } = call;
  const [templateId, volumeId, snapshotId] = ["templateid", "volumeid", "snapshotid"].map((each) =>
    parameters.text(each),
  );
  if (!world.traits.deploysFromVolume || (volumeId === undefined && snapshotId === undefined)) {
    if (templateId === undefined) parameters.required("templateid");
    const template = world.find(world.templates, parameters, "templateid", caller);
    if (template.disk === undefined)
      throw invalid(`Template ${template.id} has not been completely downloaded to zone`);
    return { template };
  }
  if ([templateId, volumeId, snapshotId].filter((each) => each !== undefined).length > 1)
    throw invalid("Please provide only one of the following parameters - template ID, volume ID or snapshot ID");
  if (volumeId !== undefined) {
    const volume = world.find(world.volumes, parameters, "volumeid", caller);
    const template = templateBehind(volume);
    if (volume.machine !== undefined)
      throw invalid(`The volume ${volume.id} is already attached to a VM ${volume.machine.id}`);
    return { template, volume };
  }
  const snapshot = world.find(world.snapshots, parameters, "snapshotid", caller);
  if (snapshot.state !== "BackedUp") throw invalid(`Snapshot ${snapshot.id} is not in BackedUp state`);
  return { template: templateBehind(snapshot.volume), snapshot };
}

/** Only a volume that goes back to a template can be deployed (`checkIfVolumeTemplateIsTheSameAsTheProvided`). */
function templateBehind(volume: Volume): Template {
  if (volume.pool?.scope !== "ZONE")
    throw invalid("Deployment of virtual machine is supported only for Zone-wide storage pools");
  if (volume.template === undefined)
    throw invalid("The provided volume/snapshot doesn't have a template to deploy a VM");
  return volume.template;
}

/** The firmware becomes a detail. */
function takeFirmware(call: Call, details: Map<string, string>): void {
  const type = (call.parameters.text("boottype") ?? "BIOS").toUpperCase();
  const mode = (call.parameters.text("bootmode") ?? "LEGACY").toUpperCase();
  if (type !== "BIOS" && type !== "UEFI")
    throw invalid(`Invalid bootType ${type} Specified for vm. Valid values are: [UEFI, BIOS]`);
  if (mode !== "LEGACY" && mode !== "SECURE")
    throw invalid(`Invalid bootMode ${mode}. Valid values are: [LEGACY, SECURE]`);
  if (type === "BIOS" && mode === "SECURE") throw invalid("Invalid boot mode SECURE Specified for boot type BIOS");
  if (type === "UEFI") details.set("UEFI", mode);
}

function deployVirtualMachine(call: Call): Submission {
  const { world, parameters, caller } = call;
  world.checkZone(parameters);
  const owner = world.ownerFor(parameters, caller);
  const offering = world.findShared(world.serviceOfferings, parameters, "serviceofferingid");
  const details = parameters.details("details");
  const size = sizeOf(offering, details);
  takeFirmware(call, details);
  const origin = originOf(call);
  const addNics = nicsFor(call);
  const name = parameters.text("name") ?? `VM-${randomUUID()}`;
  if (!/^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(name))
    throw invalid(
      `Invalid name. Vm name can contain ASCII letters 'a' through 'z', the digits '0' through '9', and the hyphen ('-'), ` +
        `must be between 1 and 63 characters long, and can't start or end with "-" and can't start with digit`,
    );
  if ([...world.machines.values()].some((each) => each.owner === owner && each.name === name))
    throw invalid(`The vm with hostName ${name} already exists in the network domain`);
  const rootSize = rootSizeOf(call, origin, details);
  world.checkLimit(owner, "machine", 1);
  if (origin.volume === undefined) {
    world.checkLimit(owner, "volume", 1);
    world.checkLimit(owner, "primaryStorage", rootSize / gib);
  }
  const machine: Machine = {
    id: chosenId(call),
    name,
    displayName: parameters.text("displayname") ?? name,
    owner,
    zoneId: world.zone.id,
    state: "Stopped",
    offering,
    ...size,
    template: origin.template,
    osTypeId: origin.template.osTypeId,
    nics: [],
    details,
    created: world.now(),
    tags: [],
    guest: undefined,
    deleteProtection: false,
  };
  addNics(machine);
  world.machines.set(machine.id, machine);
  return {
    createdId: machine.id,
    instanceType: "VirtualMachine",
    instanceId: machine.id,
    queue: machine.id,
    failed: () => {
      machine.state = "Error";
    },
    work: async () => {
      try {
        await giveRoot(call, machine, origin, rootSize);
        await giveDataVolume(call, machine);
        if (parameters.flag("startvm") !== false) await startDeployed(machine, call);
      } catch (error) {
        machine.state = "Error";
        throw error;
      }
      return { virtualmachine: writeMachine(call, machine) };
    },
  };
}

function rootSizeOf(call: Call, origin: Origin, details: ReadonlyMap<string, string>): number {
  const own = origin.volume?.size ?? origin.snapshot?.size ?? origin.template.disk?.size ?? 0;
  const wanted = details.get("rootdisksize") ?? call.parameters.text("rootdisksize");
  if (wanted === undefined) return own;
  if (!/^\d{1,6}$/.test(wanted) || Number(wanted) < 1) throw invalid("Root disk size should be a positive number.");
  if (Number(wanted) * gib < own)
    throw invalid(`Unsupported: rootdisksize override (${wanted} GB) is smaller than template size (${own} B)`);
  return Number(wanted) * gib;
}

async function giveRoot(call: Call, machine: Machine, origin: Origin, size: number): Promise<void> {
  const { world } = call;
  if (origin.volume !== undefined) {
    // Taken over as it is: deleting the machine deletes it.
    origin.volume.machine = machine;
    origin.volume.deviceId = 0;
    origin.volume.type = "ROOT";
    origin.volume.attached = world.now();
    return;
  }
  let pool: NonNullable<Volume["pool"]>;
  try {
    pool = world.poolFor(machine.offering.tag, size);
  } catch (error) {
    throw new ApiError(
      errorCodes.insufficientCapacity,
      `Unable to create a deployment for VM instance ${machine.name}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const from = origin.snapshot?.disk ?? origin.template.disk;
  if (from === undefined) throw new ApiError(errorCodes.internal, `Template ${origin.template.id} is gone`);
  const volume: Volume = {
    ...blankVolume(world),
    id: randomUUID(),
    name: `ROOT-${machine.name}`,
    owner: machine.owner,
    type: "ROOT",
    state: "Ready",
    size,
    diskOffering: undefined,
    serviceOffering: machine.offering,
    template: origin.template,
    snapshotId: origin.snapshot?.id,
    pool,
    path: randomUUID(),
    disk: await world.copyOf(from, size),
    machine,
    deviceId: 0,
    attached: world.now(),
  };
  world.volumes.set(volume.id, volume);
}

async function giveDataVolume(call: Call, machine: Machine): Promise<void> {
  const { world, parameters } = call;
  if (parameters.text("diskofferingid") === undefined) return;
  const offering = world.findShared(world.diskOfferings, parameters, "diskofferingid");
  const gibs = offering.sizeGib ?? parameters.integer("size");
  if (gibs === undefined) throw invalid("This disk offering requires a custom size specified");
  const volume: Volume = {
    ...blankVolume(world),
    id: randomUUID(),
    name: `DATA-${machine.name}`,
    owner: machine.owner,
    type: "DATADISK",
    size: gibs * gib,
    diskOffering: offering,
    snapshotId: undefined,
  };
  world.volumes.set(volume.id, volume);
  await attach(world, volume, machine, undefined);
}

/** Making a machine of a template, a volume or a snapshot. */
export const deployCommands: readonly CommandDefinition[] = [
  {
    name: "deployVirtualMachine",
    group: "user.vm",
    description:
      "Creates and automatically starts a virtual machine based on a service offering, disk offering, and template.",
    parameters: [
      "serviceofferingid",
      "templateid",
      "volumeid",
      "snapshotid",
      "zoneid",
      "name",
      "displayname",
      "networkids",
      "iptonetworklist",
      "ipaddress",
      "macaddress",
      "details",
      "boottype",
      "bootmode",
      "rootdisksize",
      "diskofferingid",
      "size",
      "startvm",
      "hypervisor",
      "customid",
    ],
    submit: deployVirtualMachine,
  },
];
