import type { VirtualDisk } from "../vim/virtual-disk.ts";

/** The oldest virtual hardware that tracks changes (KB 320557, "Changed Block Tracking on virtual machines"). */
const firstTrackingHardware = 7;

/**
 * Why a disk cannot be copied from a snapshot, in words that say what to do; undefined where it can be. Snapshots leave
 * independent disks and physical raw mappings out, and machines with shared disks cannot be snapshotted at all.
 */
export function ineligibility(disk: VirtualDisk, canDecrypt: boolean): string | undefined {
  const { backing, controller } = disk;
  if (backing.diskMode?.startsWith("independent") === true) {
    return "it is independent, so no snapshot holds it; set its mode to dependent while the machine is off";
  }
  if (backing.compatibilityMode === "physicalMode") {
    return "it is a raw device mapping in physical mode, which no snapshot holds; remap it in virtual mode or copy the LUN";
  }
  if (
    backing.type === "VirtualDiskRawDiskVer2BackingInfo" ||
    backing.type === "VirtualDiskPartitionedRawDiskVer2BackingInfo"
  ) {
    return "it is a raw disk of the host, which no snapshot holds; copy the device";
  }
  if (backing.sharing === "sharingMultiWriter") {
    return "several machines write to it (multi-writer), so no snapshot of one machine is a point in time; copy it by other means";
  }
  const bus = controller?.sharedBus;
  if (bus !== undefined && bus !== "noSharing") {
    return `its controller shares its bus (${bus}), so the machine cannot be snapshotted; detach it from the cluster first`;
  }
  if (backing.encrypted && !canDecrypt) {
    return "it is encrypted, and only the vddk reader can decrypt it (privilege Cryptographer.Access); set vddk.libdir";
  }
  return undefined;
}

/** Why the changes of an eligible disk cannot be tracked; undefined where they can be. Such a disk is compared each time. */
export function trackingObstacle(disk: VirtualDisk, hardwareVersion: number | undefined): string | undefined {
  if (hardwareVersion !== undefined && hardwareVersion < firstTrackingHardware) {
    return `virtual hardware ${hardwareVersion} does not track changes; upgrade the machine to version 7 or newer`;
  }
  if (
    disk.backing.type === "VirtualDiskSparseVer1BackingInfo" ||
    disk.backing.type === "VirtualDiskFlatVer1BackingInfo"
  ) {
    return "its format is that of ESX 2 and does not track changes; migrate it to another datastore";
  }
  return undefined;
}

/** `vmx-19` as 19. */
export function hardwareVersionOf(version: string | undefined): number | undefined {
  const number = /^vmx-(\d+)$/.exec(version ?? "")?.[1];
  return number === undefined ? undefined : Number(number);
}
