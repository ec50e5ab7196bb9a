import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Job, MemoryStateStore, replicate } from "@diskferry/core";
import { serveNbd, writerBackend } from "@diskferry/nbd";
import { openAttachedVolume } from "@diskferry/provider-aws";
import { provider as local } from "@diskferry/provider-local";
import { expect, onTestFinished, test } from "vitest";
import { hasPeer } from "./peers.ts";
import { randomBytes, seedOf } from "./seed.ts";

// The instance that has the EBS volume attached stands on one side of a TCP connection, the source's data on the other.

const seed = seedOf(5511);
const mebi = 2 ** 20;
const size = 16 * mebi;
const volumeId = "vol-0123456789abcdef0";

/** A block device of this machine, where it gives one out, and full of old bytes. */
function blockDevice(folder: string): string | undefined {
  if (!hasPeer("losetup") || process.getuid?.() !== 0) return undefined;
  const file = join(folder, "device");
  writeFileSync(file, Buffer.alloc(size, 0xee));
  try {
    const found = execFileSync("losetup", ["-f", "--show", file], { stdio: ["ignore", "pipe", "ignore"] });
    const device = found.toString().trim();
    onTestFinished(() => void execFileSync("losetup", ["-d", device]));
    return device;
  } catch {
    return undefined;
  }
}

test("a server takes a source's data over TCP and writes it to the device of an attached volume; then what changed", async ({
  skip,
}) => {
  const folder = mkdtempSync(join(tmpdir(), "diskferry-device-server-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const device = blockDevice(folder);
  if (device === undefined) {
    console.warn("SKIPPED: no loop device to be had; the server was not tried on a block device");
    return skip("no loop device to be had");
  }
  const disk = join(folder, "disk.raw");
  writeFileSync(disk, "");
  truncateSync(disk, size);
  const write = (at: number, bytes: Uint8Array): void => {
    const file = openSync(disk, "r+");
    writeSync(file, bytes, 0, bytes.length, at);
    closeSync(file);
  };
  write(0, randomBytes(mebi, seed));
  write(9 * mebi + 512, randomBytes(mebi, seed + 1));

  // This side is the instance: the device is found, its size compared, and it is opened for itself alone.
  await using writer = await openAttachedVolume({ volumeId, size, device, run: "r" });
  await using server = await serveNbd({
    listen: { port: 0 },
    exports: { [volumeId]: { backend: writerBackend(writer) } },
  });
  const uri = server.uri(volumeId);
  expect(uri).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\//);

  // And this side is where the source is.
  await using source = await local.source!({ path: disk, frozen: true });
  await using target = await local.target!({ uri });
  const job: Job = { id: "over tcp", source, machine: disk, target, store: new MemoryStateStore() };
  for await (const machine of source.machines()) job.machine = machine.id;
  const first = await replicate(job);
  expect(first.disks.map(({ mode }) => mode)).toEqual(["full"]);
  const isEqual = (): boolean => Buffer.compare(readFileSync(device), readFileSync(disk)) === 0;
  expect(isEqual(), `seed ${seed}`).toBe(true);

  write(3 * mebi, randomBytes(512, seed + 2));
  write(0, new Uint8Array(mebi));
  expect(isEqual()).toBe(false);
  const second = await replicate(job);
  expect(second.disks[0]!.moved).toBeLessThan(3 * mebi);
  expect(isEqual(), `seed ${seed}`).toBe(true);
});
