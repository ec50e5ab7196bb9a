import type { Disk, JsonObject, Machine, MachineSpec, NetworkCard } from "@diskferry/core/provider";
import type { MoRef } from "../vim/moref.ts";
import { powerStateOf } from "../vim/power-calls.ts";
import type { VimElement } from "../vim/vim-element.ts";
import type { VimProperties } from "../vim/vim-properties.ts";
import { readDisks, slotOf, type VirtualDisk } from "../vim/virtual-disk.ts";
import { hardwareVersionOf, ineligibility } from "./eligibility.ts";
import { shownName } from "./entity-names.ts";
import { guestFamily } from "./guest-family.ts";

/** What a list of machines reads of each. */
export const machinePaths: readonly string[] = [
  "name",
  "parent",
  "config.template",
  "config.instanceUuid",
  "config.version",
  "config.guestId",
  "config.guestFullName",
  "config.firmware",
  "config.bootOptions",
  "config.hardware.numCPU",
  "config.hardware.memoryMB",
  "config.hardware.device",
  "config.changeTrackingEnabled",
  "runtime.powerState",
  "runtime.connectionState",
  "runtime.host",
  "guest.toolsRunningStatus",
  "guest.toolsVersionStatus2",
  "summary.quickStats",
  "summary.storage",
];

/** What is read besides where one machine is asked for: addresses are long and change often. */
export const machineDetailPaths: readonly string[] = [...machinePaths, "guest.net"];

/** What this provider keeps in `Machine.data`. */
export interface MachineData extends JsonObject {
  /** The moref within its vCenter; it changes when the machine is registered anew. */
  moref: string;
  instanceUuid: string;
  /** The inventory path, for people. */
  path: string;
  /** The moref of the host it runs on. */
  host?: string;
  hardwareVersion?: number;
  trackingEnabled?: boolean;
  /** What it uses right now (summary.quickStats, summary.storage). */
  usage?: { cpuMhz?: number; memoryBytes?: number; storageBytes?: number };
}

/** What this provider keeps in `Disk.data`. */
export interface DiskData extends JsonObject {
  deviceKey: number;
  /** `scsi0:0`. */
  slot?: string;
  /** The disk's own UUID, which stays when the disk moves. */
  uuid?: string;
  /** Where it is now, for people; it changes with every snapshot and migration. */
  file?: string;
  datastore?: string;
  thin?: boolean;
}

/** Who the reader of machines is. */
export interface MachineReading {
  placeId: string;
  /** The inventory path of a machine's folder. */
  folderPath(parent: MoRef | undefined): string;
  /** Whether a reader is at hand that decrypts. */
  canDecrypt: boolean;
}

/** The id of a machine: unique across vCenters, and the same after it moved to another host, folder or datastore. */
export function machineId(placeId: string, instanceUuid: string): string {
  return `${placeId}/${instanceUuid.toLowerCase()}`;
}

/**
 * A machine of the contract from its properties; undefined where vSphere shows no configuration of it (it is being created, or
 * its files are out of reach).
 */
export function readMachine(properties: VimProperties, reading: MachineReading): Machine | undefined {
  const name = properties.string("name");
  const instanceUuid = properties.string("config.instanceUuid");
  const devices = properties.get("config.hardware.device");
  if (name === undefined || instanceUuid === undefined || instanceUuid === "" || devices === undefined)
    return undefined;
  const disks = readDisks(devices);
  const boot = bootDisk(disks, properties.get("config.bootOptions"));
  const folder = reading.folderPath(properties.reference("parent"));
  const host = properties.reference("runtime.host");
  const hardwareVersion = hardwareVersionOf(properties.string("config.version"));
  const trackingEnabled = properties.boolean("config.changeTrackingEnabled");
  const usage = readUsage(properties);
  const data: MachineData = {
    moref: properties.object.value,
    instanceUuid: instanceUuid.toLowerCase(),
    path: folder === "" ? name : `${folder}/${name}`,
    ...(host === undefined ? {} : { host: host.value }),
    ...(hardwareVersion === undefined ? {} : { hardwareVersion }),
    ...(trackingEnabled === undefined ? {} : { trackingEnabled }),
    ...(usage === undefined ? {} : { usage }),
  };
  const power = powerStateOf(properties.string("runtime.powerState"));
  return {
    id: machineId(reading.placeId, instanceUuid),
    name: shownName(name),
    disks: disks.map((disk) => readDisk(disk, disk === boot, reading.canDecrypt)),
    ...(power === undefined ? {} : { power }),
    spec: readSpec(properties, devices, shownName(name)),
    data,
  };
}

function readDisk(disk: VirtualDisk, boot: boolean, canDecrypt: boolean): Disk {
  const ineligible = ineligibility(disk, canDecrypt);
  const slot = slotOf(disk);
  const { uuid, fileName, thinProvisioned } = disk.backing;
  const datastore = /^\[([^\]]*)\]/.exec(fileName ?? "")?.[1];
  const data: DiskData = {
    deviceKey: disk.key,
    ...(slot === undefined ? {} : { slot }),
    ...(uuid === undefined ? {} : { uuid }),
    ...(fileName === undefined ? {} : { file: fileName }),
    ...(datastore === undefined ? {} : { datastore }),
    ...(thinProvisioned === undefined ? {} : { thin: thinProvisioned }),
  };
  return {
    key: String(disk.key),
    size: disk.capacity,
    name: disk.label,
    ...(boot ? { boot } : {}),
    ...(disk.controller?.kind === undefined ? {} : { controller: disk.controller.kind }),
    ...(ineligible === undefined ? {} : { ineligible }),
    data,
  };
}

/** The disk that the firmware tries first: the one the boot order names, else that of the lowest controller and unit. */
function bootDisk(disks: readonly VirtualDisk[], options: VimElement | undefined): VirtualDisk | undefined {
  for (const device of options?.all("bootOrder") ?? []) {
    const key = device.number("deviceKey");
    const named = disks.find((disk) => disk.key === key);
    if (named !== undefined && device.type === "VirtualMachineBootOptionsBootableDiskDevice") return named;
  }
  const [lowest] = [...disks].sort(
    (one, other) =>
      (one.controller?.key ?? Infinity) - (other.controller?.key ?? Infinity) ||
      (one.unitNumber ?? Infinity) - (other.unitNumber ?? Infinity),
  );
  return lowest;
}

function readSpec(properties: VimProperties, devices: VimElement, name: string): MachineSpec {
  const guestId = properties.string("config.guestId");
  const firmware = properties.string("config.firmware");
  const memoryMiB = properties.number("config.hardware.memoryMB");
  const cpus = properties.number("config.hardware.numCPU");
  const secureBoot = properties.get("config.bootOptions")?.boolean("efiSecureBootEnabled");
  const guest = properties.string("config.guestFullName") ?? guestId;
  const tools = toolsState(properties);
  return {
    name,
    ...(cpus === undefined ? {} : { cpus }),
    ...(memoryMiB === undefined ? {} : { memoryBytes: memoryMiB * 2 ** 20 }),
    architecture: guestId?.startsWith("arm") === true ? "arm64" : "x86_64",
    ...(firmware === "efi" ? { firmware: "uefi" as const } : firmware === "bios" ? { firmware } : {}),
    ...(secureBoot === undefined ? {} : { secureBoot }),
    tpm: devices.children.some(({ type }) => type === "VirtualTPM"),
    ...(guest === undefined ? {} : { guest }),
    ...(guestId === undefined ? {} : { guestFamily: guestFamily(guestId) }),
    ...(tools === undefined ? {} : { guestTools: tools }),
    networkCards: readNetworkCards(devices, properties.get("guest.net")),
  };
}

/** `guestToolsRunning (guestToolsCurrent)`: whether the tools run, and how old they are. */
function toolsState(properties: VimProperties): string | undefined {
  const running = properties.string("guest.toolsRunningStatus");
  const version = properties.string("guest.toolsVersionStatus2");
  return running === undefined || version === undefined ? (running ?? version) : `${running} (${version})`;
}

function readNetworkCards(devices: VimElement, net: VimElement | undefined): NetworkCard[] {
  const addresses = new Map<string, string[]>();
  for (const card of net?.children ?? []) {
    const mac = card.string("macAddress")?.toLowerCase();
    if (mac !== undefined)
      addresses.set(
        mac,
        card.all("ipAddress").map(({ text }) => text),
      );
  }
  const cards: NetworkCard[] = [];
  for (const device of devices.children) {
    // Every kind of network card, and only they, has an address.
    const mac = device.string("macAddress");
    if (mac === undefined) continue;
    const backing = device.child("backing");
    const network = backing?.string("deviceName") ?? backing?.at("port", "portgroupKey")?.text;
    const known = addresses.get(mac.toLowerCase());
    cards.push({
      mac,
      ...(network === undefined ? {} : { network }),
      ...(known === undefined ? {} : { addresses: known }),
    });
  }
  return cards;
}

function readUsage(properties: VimProperties): MachineData["usage"] {
  const quick = properties.get("summary.quickStats");
  const cpuMhz = quick?.number("overallCpuUsage");
  const memoryMiB = quick?.number("hostMemoryUsage");
  const storageBytes = properties.get("summary.storage")?.number("committed");
  if (cpuMhz === undefined && memoryMiB === undefined && storageBytes === undefined) return undefined;
  return {
    ...(cpuMhz === undefined ? {} : { cpuMhz }),
    ...(memoryMiB === undefined ? {} : { memoryBytes: memoryMiB * 2 ** 20 }),
    ...(storageBytes === undefined ? {} : { storageBytes }),
  };
}
