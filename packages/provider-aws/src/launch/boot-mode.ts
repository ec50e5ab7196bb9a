import type { MachineSpec } from "@diskferry/core/provider";

/** The boot modes of an image (EC2, RegisterImage, BootMode). */
export type BootMode = "legacy-bios" | "uefi" | "uefi-preferred";

/** A boot mode and where it comes from; `note` for people. */
export interface ChosenBootMode {
  mode: BootMode;
  note?: string;
}

const SECTOR = 512;
/** Bytes from the disk's start that {@link bootModeOf} looks at: MBR, GPT header and 128 entries. */
export const BOOT_SCAN_BYTES: number = 34 * SECTOR;

const efiSystem = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const biosBoot = "21686148-6449-6e6f-744e-656564454649";
/** MBR partition types: a protective entry for GPT, an EFI system partition. */
const PROTECTIVE = 0xee;
const MBR_EFI = 0xef;

/**
 * How an image has to boot: as its machine did, else as the boot disk's partitions show. ARM boots by UEFI alone. A wrong
 * `uefi` fails at launch, and an image without boot mode boots as the instance type likes.
 */
export function chooseBootMode(machine: MachineSpec, start: Uint8Array | undefined): ChosenBootMode {
  if (machine.architecture === "arm64") return { mode: "uefi" };
  if (machine.firmware !== undefined) return { mode: machine.firmware === "uefi" ? "uefi" : "legacy-bios" };
  const found = start === undefined ? undefined : bootModeOf(start);
  if (found !== undefined)
    return { mode: found, note: `The source did not tell its firmware; the boot disk's partitions say ${found}.` };
  return {
    mode: "legacy-bios",
    note: "Neither the source nor the boot disk's partitions tell the firmware: legacy-bios is a guess.",
  };
}

/** The boot mode that a disk's partition table shows; undefined where it has none that is known. */
export function bootModeOf(start: Uint8Array): BootMode | undefined {
  const bytes = Buffer.from(start.buffer, start.byteOffset, start.byteLength);
  if (bytes.length < SECTOR || bytes.readUInt16LE(510) !== 0xaa55) return undefined;
  const types = [0, 1, 2, 3].map((entry) => bytes[446 + entry * 16 + 4]!);
  if (types.includes(PROTECTIVE)) return gptBootMode(bytes);
  if (types.includes(MBR_EFI)) return "uefi-preferred";
  return types.some((type) => type !== 0) ? "legacy-bios" : undefined;
}

function gptBootMode(bytes: Buffer): BootMode | undefined {
  if (bytes.length < 2 * SECTOR || bytes.toString("latin1", SECTOR, SECTOR + 8) !== "EFI PART") return undefined;
  const [first, count, length] = [
    Number(bytes.readBigUInt64LE(SECTOR + 72)) * SECTOR,
    bytes.readUInt32LE(SECTOR + 80),
    bytes.readUInt32LE(SECTOR + 84),
  ];
  if (length < 128 || length > 4096) return undefined;
  const types = new Set<string>();
  for (let entry = 0; entry < Math.min(count, 128); entry++) {
    const at = first + entry * length;
    if (at + 16 > bytes.length) break;
    types.add(guidAt(bytes, at));
  }
  if (types.has(efiSystem)) return types.has(biosBoot) ? "uefi-preferred" : "uefi";
  return types.has(biosBoot) ? "legacy-bios" : undefined;
}

/** A GUID as it lies on disk: its first three groups little-endian (UEFI specification, appendix A). */
function guidAt(bytes: Buffer, at: number): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");
  const rest = bytes.toString("hex", at + 8, at + 16);
  return [
    hex(bytes.readUInt32LE(at), 8),
    hex(bytes.readUInt16LE(at + 4), 4),
    hex(bytes.readUInt16LE(at + 6), 4),
    rest.slice(0, 4),
    rest.slice(4),
  ].join("-");
}
