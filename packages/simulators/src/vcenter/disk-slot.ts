/** What a disk hangs on, as the machine's settings call it. */
export type ControllerName = "pvscsi" | "lsilogic" | "lsilogic-sas" | "buslogic" | "sata" | "nvme" | "ide";

/** A kind of controller: how vim25 calls it, and which keys it and its disks have. */
interface ControllerKind {
  readonly type: string;
  readonly family: "scsi" | "sata" | "nvme" | "ide";
  readonly label: string;
  readonly firstKey: number;
  readonly firstDiskKey: number;
  /** Keys from one controller's first disk to the next one's. */
  readonly stride: number;
  readonly units: number;
  readonly most: number;
}

const scsi = { family: "scsi", label: "SCSI controller", firstKey: 1000, firstDiskKey: 2000, stride: 16 } as const;

/** Keys as vSphere gives them; units and controllers as "vSphere Virtual Machine Administration" allows. */
const kinds: Readonly<Record<ControllerName, ControllerKind>> = {
  pvscsi: { ...scsi, type: "ParaVirtualSCSIController", units: 16, most: 4 },
  lsilogic: { ...scsi, type: "VirtualLsiLogicController", units: 16, most: 4 },
  "lsilogic-sas": { ...scsi, type: "VirtualLsiLogicSASController", units: 16, most: 4 },
  buslogic: { ...scsi, type: "VirtualBusLogicController", units: 16, most: 4 },
  sata: {
    type: "VirtualAHCIController",
    family: "sata",
    label: "SATA controller",
    firstKey: 15_000,
    firstDiskKey: 16_000,
    stride: 30,
    units: 30,
    most: 4,
  },
  nvme: {
    type: "VirtualNVMEController",
    family: "nvme",
    label: "NVME controller",
    firstKey: 31_000,
    firstDiskKey: 32_000,
    stride: 15,
    units: 15,
    most: 4,
  },
  ide: {
    type: "VirtualIDEController",
    family: "ide",
    label: "IDE",
    firstKey: 200,
    firstDiskKey: 3000,
    stride: 2,
    units: 2,
    most: 2,
  },
};

/** The unit of a SCSI controller that is the controller itself. */
const scsiOwnUnit = 7;

/** A disk's place: the key that vim25 and change tracking call it by, its controller, and its unit there. */
export interface DiskSlot {
  readonly key: number;
  readonly unitNumber: number;
  readonly controller: DiskControllerPlace;
}

/** A controller of a machine. */
export interface DiskControllerPlace {
  readonly name: ControllerName;
  readonly key: number;
  readonly bus: number;
}

/** The first free slot on controllers of this name, on the one of this bus where one is given. */
export function freeSlot(
  taken: Iterable<DiskSlot>,
  wanted: { name: ControllerName; bus: number | undefined },
): DiskSlot | undefined {
  const { name, bus: only } = wanted;
  const kind = kinds[name];
  const others = [...taken];
  for (let bus = only ?? 0; bus < (only === undefined ? kind.most : only + 1) && bus < kind.most; bus++) {
    const key = kind.firstKey + bus;
    const there = others.filter(({ controller }) => controller.key === key);
    // Controllers of one family share their numbers: each number is of one type.
    if (there.some(({ controller }) => controller.name !== name)) continue;
    for (let unitNumber = 0; unitNumber < kind.units; unitNumber++) {
      if (kind.family === "scsi" && unitNumber === scsiOwnUnit) continue;
      if (there.some((each) => each.unitNumber === unitNumber)) continue;
      return {
        key: kind.firstDiskKey + bus * kind.stride + unitNumber,
        unitNumber,
        controller: { name, key, bus },
      };
    }
  }
  return undefined;
}

/** `ParaVirtualSCSIController`, how vim25 calls a controller. */
export function controllerType({ name }: DiskControllerPlace): string {
  return kinds[name].type;
}

/** `scsi`, `sata`, `nvme` or `ide`. */
export function controllerFamily({ name }: DiskControllerPlace): ControllerKind["family"] {
  return kinds[name].family;
}

/** `SCSI controller 0`. */
export function controllerLabel({ name, bus }: DiskControllerPlace): string {
  return `${kinds[name].label} ${bus}`;
}

/** `scsi0:1`, the name of a slot in the machine's configuration. */
export function slotName({ controller, unitNumber }: DiskSlot): string {
  return `${controllerFamily(controller)}${controller.bus}:${unitNumber}`;
}

/** `ParaVirtualSCSIController0:1`, the name of a slot in the key of a leased file (HttpNfcLeaseDeviceUrl). */
export function leaseSlotName({ controller, unitNumber }: DiskSlot): string {
  return `${controllerType(controller)}${controller.bus}:${unitNumber}`;
}
