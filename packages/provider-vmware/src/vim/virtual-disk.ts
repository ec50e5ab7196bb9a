import type { MoRef } from "./moref.ts";
import type { VimElement } from "./vim-element.ts";

/** Where a disk's bytes are (VirtualDeviceFileBackingInfo and its kinds). */
export interface DiskBacking {
  /** `VirtualDiskFlatVer2BackingInfo`, `VirtualDiskSeSparseBackingInfo`, `VirtualDiskRawDiskMappingVer1BackingInfo` … */
  readonly type: string;
  /** `[datastore1] web/web-000002.vmdk`; absent for a raw disk. */
  readonly fileName: string | undefined;
  readonly datastore: MoRef | undefined;
  /** `persistent`, `independent_persistent`, `independent_nonpersistent` … */
  readonly diskMode: string | undefined;
  readonly thinProvisioned: boolean | undefined;
  readonly uuid: string | undefined;
  readonly contentId: string | undefined;
  /** Where tracking runs: what the next listing of changes starts from. Only a snapshot's own configuration tells it. */
  readonly changeId: string | undefined;
  /** `physicalMode` or `virtualMode` of a raw device mapping. */
  readonly compatibilityMode: string | undefined;
  /** `sharingNone` or `sharingMultiWriter`. */
  readonly sharing: string | undefined;
  /** Whether the disk is encrypted by a key of a key server. */
  readonly encrypted: boolean;
  /** What this file is a delta to. */
  readonly parent: DiskBacking | undefined;
}

/** What a disk hangs on. */
export interface DiskController {
  readonly key: number;
  /** `ParaVirtualSCSIController`, `VirtualAHCIController`, `VirtualNVMEController` … */
  readonly type: string;
  readonly kind: "ide" | "sata" | "scsi" | "nvme" | undefined;
  readonly busNumber: number;
  /** `noSharing`, `virtualSharing` or `physicalSharing`; SCSI alone (NVMe has its own since 8.0.2). */
  readonly sharedBus: string | undefined;
}

/** A disk of a machine or of a snapshot's frozen configuration (VirtualDisk). */
export interface VirtualDisk {
  /** The device key: what vim25 and change tracking call the disk by; stable while it hangs in its slot. */
  readonly key: number;
  /** `Hard disk 1`. */
  readonly label: string;
  /** Bytes. */
  readonly capacity: number;
  readonly unitNumber: number | undefined;
  readonly controller: DiskController | undefined;
  readonly backing: DiskBacking;
  readonly diskObjectId: string | undefined;
}

/** The disks among the devices (`config.hardware.device`), in the order of their keys. */
export function readDisks(devices: VimElement | undefined): VirtualDisk[] {
  const all = devices?.children ?? [];
  const controllers = new Map<number, DiskController>();
  for (const device of all) {
    const kind = controllerKind(device.type ?? "");
    if (kind === undefined) continue;
    const key = device.number("key") ?? -1;
    const busNumber = device.number("busNumber") ?? 0;
    const sharedBus = device.string("sharedBus");
    controllers.set(key, { key, type: device.type ?? "", kind, busNumber, sharedBus });
  }
  return all
    .filter(({ type }) => type === "VirtualDisk")
    .map((device) => readDisk(device, controllers))
    .sort((one, other) => one.key - other.key);
}

/** `scsi0:1`: the slot as the machine's configuration file calls it (`scsi0:1.ctkEnabled`); undefined where unknown. */
export function slotOf(disk: VirtualDisk): string | undefined {
  const { controller, unitNumber } = disk;
  if (controller?.kind === undefined || unitNumber === undefined) return undefined;
  return `${controller.kind}${controller.busNumber}:${unitNumber}`;
}

function readDisk(device: VimElement, controllers: ReadonlyMap<number, DiskController>): VirtualDisk {
  const key = device.number("key");
  const backing = device.child("backing");
  const capacity = device.number("capacityInBytes") ?? (device.number("capacityInKB") ?? NaN) * 1024;
  if (key === undefined || backing === undefined || Number.isNaN(capacity)) {
    throw new Error(`a disk without key, size or backing (${device.at("deviceInfo", "label")?.text ?? "no label"})`);
  }
  return {
    key,
    label: device.at("deviceInfo", "label")?.text ?? `disk ${key}`,
    capacity,
    unitNumber: device.number("unitNumber"),
    controller: controllers.get(device.number("controllerKey") ?? -1),
    backing: readBacking(backing),
    diskObjectId: device.string("diskObjectId"),
  };
}

function readBacking(backing: VimElement): DiskBacking {
  const parent = backing.child("parent");
  return {
    type: backing.type ?? "",
    fileName: backing.string("fileName"),
    datastore: backing.reference("datastore"),
    diskMode: backing.string("diskMode"),
    thinProvisioned: backing.boolean("thinProvisioned"),
    uuid: backing.string("uuid"),
    contentId: backing.string("contentId"),
    changeId: backing.string("changeId") === "" ? undefined : backing.string("changeId"),
    compatibilityMode: backing.string("compatibilityMode"),
    sharing: backing.string("sharing"),
    encrypted: backing.child("keyId") !== undefined,
    parent: parent === undefined ? undefined : readBacking(parent),
  };
}

/** By the names of the API: every SCSI controller's ends so, and SATA's is called after AHCI. */
function controllerKind(type: string): DiskController["kind"] {
  if (type === "VirtualIDEController") return "ide";
  if (type === "VirtualAHCIController" || type === "VirtualSATAController") return "sata";
  if (type === "VirtualNVMEController") return "nvme";
  const scsi = /SCSIController$|^VirtualBusLogicController$|^VirtualLsiLogic(SAS)?Controller$/;
  return scsi.test(type) ? "scsi" : undefined;
}
