import type { Disk, Machine, MachineSpec, PowerState } from "@diskferry/core/provider";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";

const MIB = 2 ** 20;
/**
 * States (`Volume.State`) of a volume that holds bytes, whatever works on it at the moment: one that the platform's own schedule
 * snapshots just now is a disk of the machine, and a copy without it would be none of the machine.
 */
const HOLDS_BYTES = new Set([
  "Ready",
  "Snapshotting",
  "RevertSnapshotting",
  "Migrating",
  "Resizing",
  "Attaching",
  "Restoring",
]);

/** A machine of CloudStack and its volumes, in the contract's words. A disk's key is its volume's id. */
export function readMachine(machine: CloudMachine, volumes: readonly CloudVolume[]): Machine {
  const controller = controllerOf(machine.details["rootDiskController"]);
  const disks = volumes
    .toSorted((one, other) => (one.deviceId ?? 0) - (other.deviceId ?? 0))
    .map((volume): Disk => ({
      key: volume.id,
      size: volume.size,
      name: volume.name,
      boot: volume.type === "ROOT",
      ...(controller === undefined ? {} : { controller }),
      ...(HOLDS_BYTES.has(volume.state) ? {} : { ineligible: `the volume is in state ${volume.state}, not Ready` }),
    }));
  return { id: machine.id, name: machine.displayName, disks, power: powerOf(machine.state), spec: specOf(machine) };
}

/** CloudStack's state as a power state: what starts or migrates counts as on. */
export function powerOf(state: string): PowerState {
  return state === "Stopped" || state === "Shutdown" || state === "Error" ? "off" : "on";
}

function specOf(machine: CloudMachine): MachineSpec {
  const { cpus, memory, osName, bootType, bootMode, cards, tags } = machine;
  const family = osName === undefined ? undefined : familyOf(osName);
  return {
    name: machine.displayName,
    ...(cpus === undefined ? {} : { cpus }),
    ...(memory === undefined ? {} : { memoryBytes: memory * MIB }),
    // Only UEFI is always told: a machine that has details and no firmware among them comes without `boottype`.
    firmware: bootType?.toUpperCase() === "UEFI" ? "uefi" : "bios",
    ...(bootMode === undefined ? {} : { secureBoot: bootMode.toUpperCase() === "SECURE" }),
    ...(osName === undefined ? {} : { guest: osName }),
    ...(family === undefined ? {} : { guestFamily: family }),
    labels: { ...tags },
    networkCards: cards.map(({ mac, network, address }) => ({
      ...(mac === undefined ? {} : { mac }),
      ...(network === undefined ? {} : { network }),
      ...(address === undefined ? {} : { addresses: [address] }),
    })),
  };
}

function familyOf(osName: string): "linux" | "windows" | "other" {
  if (/windows/i.test(osName)) return "windows";
  return /linux|debian|ubuntu|centos|red hat|rocky|alma|suse|fedora|oracle/i.test(osName) ? "linux" : "other";
}

function controllerOf(name: string | undefined): Disk["controller"] {
  const known = ["ide", "sata", "scsi", "nvme", "virtio"] as const;
  return known.find((each) => each === name?.toLowerCase());
}
