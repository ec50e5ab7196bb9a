import { type Dirent, constants } from "node:fs";
import { type FileHandle, open, readFile, readdir, realpath, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Wait } from "@diskferry/core/provider";
import { pause } from "../client/pause.ts";
import { cloudstackError } from "../errors.ts";

/** Where a machine shows its devices. */
export interface DevicePlaces {
  /** Links by serial number. Default `/dev/disk/by-id`. */
  byId: string;
  /** Default `/dev`. */
  dev: string;
  /** Default `/sys`. */
  sys: string;
  /** Whether a regular file may stand for a device: where the places were named by options, as tests do. */
  files: boolean;
  /** How long a device may take to appear, in milliseconds. */
  patienceMs: number;
}

/** A volume as this machine shows it, open. */
export interface OpenDevice {
  file: FileHandle;
  /** The kernel's name, for messages. */
  path: string;
  /** Bytes; those of the volume. */
  size: number;
  /** Bytes of a logical block. */
  blockSize: number;
}

/** libvirt gives a disk the volume's id without dashes as its serial number, cut to 20 characters (pull request 12452). */
const SERIAL_LENGTH = 20;
/** `/sys/block/…/size` counts these whatever the device's own blocks are (sysfs-block). */
const SECTOR = 512;
const FIRST_LOOK_MS = 5;
const LONGEST_LOOK_MS = 500;

/** The serial number that a guest sees of a volume. */
export function serialOf(volumeId: string): string {
  return volumeId.replaceAll("-", "").slice(0, SERIAL_LENGTH);
}

/**
 * Waits for the device of an attached volume on the virtio or the SCSI bus, asking the buses to look again, and opens it:
 * for writing exclusively, so that a mounted device or one that another writer holds is refused. Its size, and the serial
 * number where the kernel tells one, have to be the volume's.
 * @throws ProviderError NOT_FOUND (it does not appear), CONFIG_INVALID (another size), IN_USE, DENIED, UNSUPPORTED
 */
export async function openDevice(
  volume: { id: string; size: number },
  mode: "read" | "write",
  places: DevicePlaces,
  wait: Wait = {},
): Promise<OpenDevice> {
  const end = Date.now() + places.patienceMs;
  let seen: number | undefined;
  for (let look = 0; ; look++) {
    wait.signal?.throwIfAborted();
    const path = await findDevice(volume.id, places);
    if (path !== undefined) {
      const device = await openAt(path, mode, places);
      // A name that is open is given to no other device, so what the kernel tells of it now stays true.
      const isOther = await isOthers(path, serialOf(volume.id), places);
      if (!isOther && device.size === volume.size) return device;
      // After a volume has grown, the guest's kernel learns of it a little later.
      if (!isOther) seen = device.size;
      await device.file.close();
    }
    if (Date.now() >= end) throw absent(volume, seen, places);
    if (look % 5 === 0) await rescan(places);
    await pause(Math.min(FIRST_LOOK_MS * 2 ** look, LONGEST_LOOK_MS), wait);
  }
}

async function findDevice(volumeId: string, places: DevicePlaces): Promise<string | undefined> {
  const serial = serialOf(volumeId);
  const found = new Set<string>();
  for (const { name } of await entries(places.byId)) {
    // A partition's link has a suffix, `-part1`: it is not the volume.
    if (name === `virtio-${serial}` || name.endsWith(`_${serial}`)) {
      const path = await realpath(join(places.byId, name)).catch(() => undefined);
      // udev moves links later than the kernel gives a name that became free to the next volume.
      if (path !== undefined && !(await isOthers(path, serial, places))) found.add(path);
    }
  }
  // Without udev there are no links; the kernel tells serial numbers itself.
  if (found.size === 0) {
    for (const { name } of await entries(join(places.sys, "block")))
      if ((await kernelSerial(name, places))?.endsWith(serial) === true) found.add(join(places.dev, name));
  }
  if (found.size > 1) {
    throw cloudstackError(
      "UNSUPPORTED",
      `Devices ${[...found].join(" and ")} both have the serial number ${serial} of volume ${volumeId}: which is it? Nothing ` +
        `was written.`,
      { operation: "device" },
    );
  }
  return [...found][0];
}

/** The serial number that the kernel tells of a device; undefined: it tells none. */
async function kernelSerial(name: string, { sys }: DevicePlaces): Promise<string | undefined> {
  const about = join(sys, "block", name);
  return (await attribute(join(about, "serial"))) ?? (await attribute(join(about, "device", "vpd_pg80")));
}

/** Whether the kernel tells another serial number of the device at a path. */
async function isOthers(path: string, serial: string, places: DevicePlaces): Promise<boolean> {
  return (await kernelSerial(basename(path), places))?.endsWith(serial) === false;
}

async function openAt(path: string, mode: "read" | "write", places: DevicePlaces): Promise<OpenDevice> {
  const flags = mode === "write" ? constants.O_RDWR | (places.files ? 0 : constants.O_EXCL) : constants.O_RDONLY;
  let file: FileHandle;
  try {
    file = await open(path, flags);
  } catch (error) {
    throw openFailure(error, path);
  }
  try {
    const stat = await file.stat();
    if (!stat.isBlockDevice() && !(places.files && stat.isFile())) {
      throw cloudstackError("UNSUPPORTED", `${path} is no block device. Nothing was written.`, { operation: "device" });
    }
    const about = join(places.sys, "block", basename(path));
    const size = stat.isFile() ? stat.size : Number(await attribute(join(about, "size"))) * SECTOR;
    const blockSize = Number((await attribute(join(about, "queue", "logical_block_size"))) ?? SECTOR);
    return { file, path, size, blockSize };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Asks the PCI bus and every SCSI host to look for what was plugged in. Who may not ask goes on waiting. */
export async function rescan({ sys }: DevicePlaces): Promise<void> {
  await tell(join(sys, "bus", "pci", "rescan"), "1");
  for (const { name } of await entries(join(sys, "class", "scsi_host"))) {
    await tell(join(sys, "class", "scsi_host", name, "scan"), "- - -");
  }
}

async function tell(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text, { flag: "r+" });
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (!["ENOENT", "EACCES", "EPERM", "EROFS", "EIO", "EBUSY"].includes(code)) throw error;
  }
}

function absent(volume: { id: string; size: number }, seen: number | undefined, places: DevicePlaces): Error {
  if (seen !== undefined) {
    return cloudstackError(
      "CONFIG_INVALID",
      `The device of volume ${volume.id} has ${seen} bytes and the volume has ${volume.size}: it is another disk, or this ` +
        `machine has not noticed that it grew. Nothing was written. Detach the volume and run again.`,
      { operation: "device" },
    );
  }
  return cloudstackError(
    "NOT_FOUND",
    `Volume ${volume.id} is attached and no device with its serial number ${serialOf(volume.id)} appeared in ${places.byId} ` +
      `within ${Math.round(places.patienceMs / 1000)} s. Nothing was written. Is this the appliance that the options name? Does ` +
      `its kernel see the bus (lsblk -o NAME,SERIAL)? May this user rescan it?`,
    { operation: "device" },
  );
}

const meanings: Readonly<Record<string, ["NOT_FOUND" | "IN_USE" | "DENIED", string]>> = {
  ENOENT: ["NOT_FOUND", "went away while it was opened"],
  ENXIO: ["NOT_FOUND", "has no device behind it"],
  ENODEV: ["NOT_FOUND", "has no device behind it"],
  EBUSY: ["IN_USE", "is mounted, or another writer on this machine holds it: end that first"],
  EACCES: ["DENIED", "may not be opened by this user; run as root or add the user to the group disk"],
  EPERM: ["DENIED", "may not be opened by this user; run as root or add the user to the group disk"],
};

function openFailure(error: unknown, path: string): unknown {
  const meaning = meanings[(error as NodeJS.ErrnoException).code ?? ""];
  if (meaning === undefined) return error;
  return cloudstackError(meaning[0], `${path} ${meaning[1]}. Nothing was written.`, {
    operation: "device",
    cause: error,
  });
}

async function entries(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

async function attribute(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, "latin1")).trim();
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ENODEV", "EINVAL"].includes((error as NodeJS.ErrnoException).code ?? ""))
      return undefined;
    throw error;
  }
}
