import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { hasPeer } from "../../../../test/peers.ts";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { type DeviceRoots, findAttachedDevice, hostRoots } from "../../src/device/attached-device.ts";
import { openAttachedVolume } from "../../src/device/device-writer.ts";

const mebi = 1024 * 1024;
const volumeId = "vol-0123456789abcdef0";

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "diskferry-device-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

interface FakeDisk {
  serial?: string;
  model?: string;
  size?: number;
  dev?: string;
  holders?: string[];
}

/** A machine with these block devices, whose files under `dev` are regular files unless `identify` says otherwise. */
function machine(disks: Record<string, FakeDisk>, identify: DeviceRoots["identify"] = hostRoots.identify): DeviceRoots {
  const root = folder();
  const [sys, dev] = [join(root, "sys"), join(root, "dev")];
  mkdirSync(dev);
  for (const [name, disk] of Object.entries(disks)) {
    const about = join(sys, "block", name);
    mkdirSync(join(about, "device"), { recursive: true });
    mkdirSync(join(about, "holders"));
    writeFileSync(join(about, "size"), `${(disk.size ?? 4 * mebi) / 512}\n`);
    writeFileSync(join(about, "dev"), `${disk.dev ?? "259:1"}\n`);
    if (disk.serial !== undefined) {
      writeFileSync(join(about, "device", "serial"), `${disk.serial}\n`);
      writeFileSync(join(about, "device", "model"), `${disk.model ?? "Amazon Elastic Block Store"}     \n`);
    }
    for (const holder of disk.holders ?? []) writeFileSync(join(about, "holders", holder), "");
    writeFileSync(join(dev, name), "");
    truncateSync(join(dev, name), disk.size ?? 4 * mebi);
  }
  return { sys, dev, identify };
}

const wanted = { volumeId, size: 4 * mebi };

describe("finding the block device of an attached volume", () => {
  test("a Nitro disk is found by its serial number, whatever its name and order", async () => {
    const roots = machine({
      nvme0n1: { serial: "vol0aaaaaaaaaaaaaaaa", dev: "259:0" },
      nvme2n1: { serial: "vol0123456789abcdef0", dev: "259:7" },
    });
    const found = await findAttachedDevice({ ...wanted, device: "/dev/nvme0n1" }, roots);
    expect(found).toMatchObject({ path: join(roots.dev, "nvme2n1"), number: "259:7", size: 4 * mebi });
  });

  test("an instance store with the same serial number is no volume", async () => {
    const roots = machine({ nvme1n1: { serial: "vol0123456789abcdef0", model: "Amazon EC2 NVMe Instance Storage" } });
    await expect(findAttachedDevice(wanted, roots)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("/dev/sdf is found as /dev/xvdf where disks have no serial number", async () => {
    const roots = machine({ xvdf: { dev: "202:80" } });
    const found = await findAttachedDevice({ ...wanted, device: "/dev/sdf" }, roots);
    expect(found.path).toBe(join(roots.dev, "xvdf"));
  });

  test("a link that leads to the kernel's name is followed, one that leads elsewhere is not", async () => {
    const roots = machine({ xvdbb: {} });
    symlinkSync(join(roots.dev, "xvdbb"), join(roots.dev, "sdf"));
    expect((await findAttachedDevice({ ...wanted, device: "sdf" }, roots)).path).toBe(join(roots.dev, "xvdbb"));
    writeFileSync(join(roots.dev, "file"), "");
    symlinkSync(join(roots.dev, "file"), join(roots.dev, "sdg"));
    await expect(findAttachedDevice({ ...wanted, device: "sdg" }, roots)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("a name that leads to another volume's disk is not taken for this one", async () => {
    const roots = machine({ nvme1n1: { serial: "vol0aaaaaaaaaaaaaaaa" } });
    symlinkSync(join(roots.dev, "nvme1n1"), join(roots.dev, "sdf"));
    const missing = findAttachedDevice({ ...wanted, device: "/dev/sdf" }, roots);
    await expect(missing).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("a device of another size is refused", async () => {
    const roots = machine({ nvme1n1: { serial: "vol0123456789abcdef0", size: 8 * mebi } });
    await expect(findAttachedDevice(wanted, roots)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });

  test("a device that something stands on is refused", async () => {
    const roots = machine({ nvme1n1: { serial: "vol0123456789abcdef0", holders: ["dm-0"] } });
    await expect(findAttachedDevice(wanted, roots)).rejects.toMatchObject({ code: "IN_USE" });
  });

  test("two devices that both could be the volume are refused", async () => {
    const roots = machine({ sdf: {}, xvdf: {} });
    await expect(findAttachedDevice({ ...wanted, device: "/dev/sdf" }, roots)).rejects.toMatchObject({
      code: "UNSUPPORTED",
    });
  });
});

describe("what is no such block device cannot be written", () => {
  test("a regular file in the device's place is refused and keeps its bytes", async () => {
    const roots = machine({ nvme1n1: { serial: "vol0123456789abcdef0" } });
    await expect(openAttachedVolume({ ...wanted, run: "r" }, roots)).rejects.toMatchObject({ code: "UNSUPPORTED" });
    expect(readFileSync(join(roots.dev, "nvme1n1")).every((byte) => byte === 0)).toBe(true);
  });

  test("a name without a device makes no file", async () => {
    const roots = machine({ nvme1n1: { serial: "vol0123456789abcdef0" } });
    rmSync(join(roots.dev, "nvme1n1"));
    await expect(openAttachedVolume({ ...wanted, run: "r" }, roots)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(existsSync(join(roots.dev, "nvme1n1"))).toBe(false);
  });

  test("a block device of another number is refused", async () => {
    const roots = machine({ nvme1n1: { serial: "vol0123456789abcdef0", dev: "259:1" } }, () =>
      Promise.resolve({ isBlockDevice: true, number: "259:2" }),
    );
    await expect(openAttachedVolume({ ...wanted, run: "r" }, roots)).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });
});

/** A loop device, where this machine gives one out; else undefined and why. */
function loopDevice(size: number): string | undefined {
  if (!hasPeer("losetup") || process.getuid?.() !== 0) return undefined;
  const file = join(folder(), "disk");
  writeFileSync(file, "");
  truncateSync(file, size);
  try {
    const device = execFileSync("losetup", ["-f", "--show", file], { stdio: ["ignore", "pipe", "ignore"] });
    const path = device.toString().trim();
    onTestFinished(() => void execFileSync("losetup", ["-d", path]));
    return path;
  } catch {
    return undefined;
  }
}

describe("writing an attached volume through its block device", () => {
  test("bytes go to a real block device and are read back after the commit", async ({ skip }) => {
    const device = loopDevice(4 * mebi);
    if (device === undefined) {
      console.warn("SKIPPED: no loop device to be had; the writer was not tried on a block device");
      return skip("no loop device to be had");
    }
    const seed = seedOf(41);
    // A loop device has no serial number, so it is found by its name, as disks of Xen instances are.
    const writer = await openAttachedVolume({ ...wanted, device, run: "r1" });
    onTestFinished(() => writer[Symbol.asyncDispose]());
    expect(writer).toMatchObject({ size: 4 * mebi, generation: `${volumeId}/r1` });
    expect(writer.blank).toBeUndefined();
    const bytes = randomBytes(mebi, seed);
    await writer.write(2 * mebi, bytes);
    await writer.flush();
    await expect(writer.write(3.5 * mebi, bytes)).rejects.toThrow(RangeError);
    const into = new Uint8Array(mebi);
    await writer.read!(2 * mebi, into);
    expect(into, `seed ${seed}`).toEqual(bytes);
    const written = (async function* () {
      yield { offset: 2 * mebi, length: mebi };
    })();
    expect(await writer.commit({ written })).toEqual({ id: volumeId, size: 4 * mebi });
    await writer[Symbol.asyncDispose]();
    expect(new Uint8Array(readFileSync(device).subarray(2 * mebi, 3 * mebi)), `seed ${seed}`).toEqual(bytes);
    await expect(writer.flush()).rejects.toThrow(TypeError);
  });

  test("a device that is claimed is refused", async ({ skip }) => {
    const device = loopDevice(4 * mebi);
    if (device === undefined) return skip("no loop device to be had");
    const first = await openAttachedVolume({ ...wanted, device, run: "r1" });
    onTestFinished(() => first[Symbol.asyncDispose]());
    await expect(openAttachedVolume({ ...wanted, device, run: "r2" })).rejects.toMatchObject({ code: "IN_USE" });
    expect(basename(device)).toMatch(/^loop/);
  });
});
