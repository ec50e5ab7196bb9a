import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { hasPeer } from "../../../../test/peers.ts";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { provider } from "../../src/index.ts";
import { deviceNumbers } from "../../src/raw/block-device.ts";
import { openRaw } from "../../src/raw/raw-file.ts";
import { freshFolder } from "../folder.ts";
import { bytesOf, commit, listed, targetOf, volumeBytes } from "../shapes.ts";

const seed = seedOf(61);
const mebi = 1024 * 1024;
const size = 8 * mebi;

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
}

/** A loop device over a new file, detached when the test ends. */
function loopDevice(bytes: number = size, ...options: string[]): { device: string; file: string } {
  const file = join(freshFolder(), "backing.img");
  closeSync(openSync(file, "w"));
  truncateSync(file, bytes);
  const device = run("losetup", "-f", "--show", ...options, file);
  onTestFinished(() => void run("losetup", "-d", device));
  return { device, file };
}

const scratch = mkdtempSync(join(tmpdir(), "diskferry-local-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Why loop devices cannot be had here; undefined when they can. */
function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return "not root";
  if (!hasPeer("losetup")) return "no losetup";
  try {
    const file = join(scratch, "probe");
    closeSync(openSync(file, "w"));
    truncateSync(file, mebi);
    run("losetup", "-d", run("losetup", "-f", "--show", file));
    return undefined;
  } catch (error) {
    return `losetup fails: ${error instanceof Error ? error.message : String(error)}`;
  }
}

test("device numbers are unpacked as glibc packs them", () => {
  expect(deviceNumbers(0x0801n)).toBe("8:1");
  expect(deviceNumbers(0x700n)).toBe("7:0");
  // makedev(259, 5)
  expect(deviceNumbers(0x10305n)).toBe("259:5");
});

const missing = obstacle();
if (missing !== undefined) {
  if (process.env["DISKFERRY_REQUIRE_PEERS"] === "1") throw new Error(`block devices cannot be tested: ${missing}`);
  console.warn(`SKIPPED for want of loop devices (${missing}): block devices`);
}

describe.skipIf(missing !== undefined)("block devices", () => {
  // What is remembered of devices goes to a folder that the test removes.
  beforeEach(() => {
    vi.stubEnv("XDG_STATE_HOME", freshFolder());
    return () => vi.unstubAllEnvs();
  });

  test("a device is copied from, its size as the kernel and its end tell", async () => {
    const { device } = loopDevice();
    const fd = openSync(device, "r+");
    const bytes = randomBytes(size, seed);
    writeSync(fd, bytes, 0, size, 0);
    closeSync(fd);
    await using source = await provider.source!({ path: device, frozen: true });
    const [machine] = await listed(source.machines());
    expect(machine!.disks[0]!.size).toBe(size);
    const snapshot = await source.snapshot(machine!, { key: "key" });
    expect(snapshot.consistency).toBe("crash");
    await using reader = await source.open(snapshot.disks[0]!);
    expect(Buffer.compare(await bytesOf(reader), bytes), `seed ${seed}`).toBe(0);
  });

  test("a frozen device that is written to while it is copied is noticed", async () => {
    const { device } = loopDevice();
    await using source = await provider.source!({ path: device, frozen: true });
    const [machine] = await listed(source.machines());
    const snapshot = await source.snapshot(machine!, { key: "key" });
    await using reader = await source.open(snapshot.disks[0]!);
    await reader.read(0, new Uint8Array(4096));
    run("dd", "if=/dev/urandom", `of=${device}`, "bs=4096", "count=1", "conv=fsync");
    await expect(reader.read(0, new Uint8Array(4096))).rejects.toMatchObject({ code: "CORRUPT" });
  });

  test("a device that the kernel keeps read-only is frozen without anybody's word, and no target", async () => {
    const { device } = loopDevice(size, "--read-only");
    await using source = await provider.source!({ path: device });
    const [machine] = await listed(source.machines());
    expect((await source.snapshot(machine!, { key: "key" })).consistency).toBe("crash");
    await using target = await targetOf({ path: device });
    await expect(target.create({ key: "disk", size })).rejects.toMatchObject({ code: "DENIED" });
  });

  test("a device is written in place, resumed, and never called blank", async () => {
    const { device } = loopDevice();
    await using target = await targetOf({ path: device });
    const volume = await target.create({ key: "disk", size: size - mebi });
    expect(volume.size).toBe(size);
    const writer = await target.open(volume, { run: "run", epoch: 1 });
    expect(writer.blank).toBeUndefined();
    await writer.write(mebi, randomBytes(mebi, seed));
    await writer.flush();
    await writer[Symbol.asyncDispose]();
    const again = await target.open(volume, { run: "run", epoch: 2 });
    expect(again.generation).toBe(writer.generation);
    const last = await commit(again);
    await again[Symbol.asyncDispose]();
    const expected = new Uint8Array(size);
    expected.set(randomBytes(mebi, seed), mebi);
    expect(Buffer.compare(await volumeBytes(target, last), expected)).toBe(0);
    await target.remove(volume);
  });

  test("a device one sector too small is refused, untouched", async () => {
    const { device, file } = loopDevice();
    await using target = await targetOf({ path: device });
    await expect(target.create({ key: "disk", size: size + 512 })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("512 too few"),
    });
    const start = new Uint8Array(4096);
    const fd = openSync(file, "r");
    readSync(fd, start, 0, 4096, 0);
    closeSync(fd);
    expect(start.every((byte) => byte === 0)).toBe(true);
  });

  test.skipIf(!hasPeer("mke2fs"))("a mounted device is refused, and the mount is named", async () => {
    const { device } = loopDevice(32 * mebi);
    run("mke2fs", "-q", "-t", "ext4", device);
    const point = join(freshFolder(), "mount");
    mkdirSync(point);
    try {
      run("mount", device, point);
    } catch (error) {
      if (process.env["DISKFERRY_REQUIRE_PEERS"] === "1") throw error;
      console.warn("SKIPPED for want of mount: a mounted device is refused");
      return;
    }
    try {
      await using target = await targetOf({ path: device });
      await expect(target.create({ key: "disk", size })).rejects.toMatchObject({
        code: "IN_USE",
        message: expect.stringContaining(`mounted at ${point}`),
      });
    } finally {
      run("umount", point);
    }
  });

  test("a name that leads to another device is refused", () => {
    const [one, two] = [loopDevice(), loopDevice()];
    const link = join(freshFolder(), "disk");
    symlinkSync(one.device, link);
    const first = openRaw(link);
    closeSync(first.fd);
    symlinkSync(two.device, `${link}.new`);
    renameSync(`${link}.new`, link);
    expect(() => openRaw(link, { write: true, place: first.place })).toThrow(
      expect.objectContaining({ code: "NOT_FOUND", message: expect.stringContaining("no longer the device") }),
    );
  });

  test("a target that is the file behind the source's device is refused", async () => {
    const { device, file } = loopDevice();
    await using source = await provider.source!({ path: device });
    const [machine] = await listed(source.machines());
    const snapshot = await source.snapshot(machine!, { key: "key" });
    await using reader = await source.open(snapshot.disks[0]!);
    await using target = await targetOf({ path: file });
    const volume = await target.create({ key: "disk", size });
    await expect(target.open(volume, { run: "run", epoch: 1 })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("share the same bytes"),
    });
    await reader.read(0, new Uint8Array(512));
  });

  test("a device of 4096-byte sectors is written in them", async () => {
    const { device } = loopDevice(size, "--sector-size", "4096");
    await using target = await targetOf({ path: device });
    const volume = await target.create({ key: "disk", size });
    await using writer = await target.open(volume, { run: "run", epoch: 1 });
    expect(writer.blockSize).toBe(4096);
  });
});
