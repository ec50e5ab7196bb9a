import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { DevicePlaces } from "../device/find-device.ts";
import type { ListedDevice } from "./protocol.ts";

/** Links of whole disks that libvirt gave a volume's serial number; a partition's ends in `-part1`. */
const linkOfSerial = /^(?:virtio-|.*_)([0-9a-f]{20})$/;

/** The attached volumes that this machine shows, by serial number. A folder that does not exist shows none. */
export async function listDevices(places: DevicePlaces): Promise<ListedDevice[]> {
  const found: ListedDevice[] = [];
  for (const name of (await namesIn(places.byId)).toSorted()) {
    const serial = linkOfSerial.exec(name)?.[1];
    if (serial === undefined || found.some((each) => each.serial === serial)) continue;
    const path = await realpath(join(places.byId, name)).catch(() => undefined);
    if (path !== undefined) found.push({ serial, path, size: await sizeOf(path, places) });
  }
  return found;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

async function sizeOf(path: string, places: DevicePlaces): Promise<number | undefined> {
  try {
    const about = await stat(path);
    if (about.isFile()) return places.files ? about.size : undefined;
    // sysfs-block: 512-byte units whatever the device's own blocks are.
    return Number(await readFile(join(places.sys, "block", basename(path), "size"), "latin1")) * 512;
  } catch {
    return undefined;
  }
}
