import { mkdir, mkdtemp, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type DevicePlaces, openDevice, serialOf } from "../../src/device/find-device.ts";

const size = 2 ** 20;
const [mine, others] = ["5f0c7c1e-2a11-4d0e-9b55-0123456789ab", "9e5d1c77-8f43-4c6b-8d2a-ba9876543210"];
let root: string;
let places: DevicePlaces;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "diskferry-devices-"));
  places = {
    byId: join(root, "dev", "disk", "by-id"),
    dev: join(root, "dev"),
    sys: join(root, "sys"),
    files: true,
    patienceMs: 200,
  };
  await mkdir(places.byId, { recursive: true });
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** Shows a device whose kernel tells the serial number of a volume, as virtio or SCSI does. */
async function show(name: string, volumeId: string): Promise<void> {
  const path = join(places.dev, name);
  await writeFile(path, "");
  await truncate(path, size);
  const about = join(places.sys, "block", name);
  await mkdir(join(about, "device"), { recursive: true });
  const serial = serialOf(volumeId);
  if (name.startsWith("vd")) await writeFile(join(about, "serial"), serial);
  else await writeFile(join(about, "device", "vpd_pg80"), `\0\x80\0\x14${serial}`, "latin1");
}

describe.each([
  { bus: "virtio", names: ["vdb", "vdc"], prefix: "virtio-" },
  { bus: "SCSI", names: ["sdb", "sdc"], prefix: "scsi-0QEMU_QEMU_HARDDISK_" },
] as const)("a device on $bus", ({ names: [first, second], prefix }) => {
  const link = async (volumeId: string, name: string): Promise<void> => {
    const path = join(places.byId, `${prefix}${serialOf(volumeId)}`);
    await rm(path, { force: true });
    await symlink(join("..", "..", name), path);
  };

  it("that a link leads to is not believed to be the volume's where the kernel tells another's serial number", async () => {
    // The volume's device was of this name before; what has the name now is another volume of the same size.
    await show(first, others);
    await link(mine, first);
    await expect(openDevice({ id: mine, size }, "write", places)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("is waited for until its link follows it to its new name", async () => {
    await show(first, others);
    await link(mine, first);
    await show(second, mine);
    const following = setTimeout(() => void link(mine, second), 30);
    const device = await openDevice({ id: mine, size }, "write", { ...places, patienceMs: 10_000 });
    clearTimeout(following);
    await device.file.close();
    expect(device.path).toBe(join(places.dev, second));
  });

  it("is found by what the kernel tells where there are no links", async () => {
    await show(first, others);
    await show(second, mine);
    const device = await openDevice({ id: mine, size }, "write", places);
    await device.file.close();
    expect(device.path).toBe(join(places.dev, second));
  });
});
