import { randomFillSync } from "node:crypto";
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { RunReport } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";
import { expect, test } from "vitest";
import { jsonLines, type Workplace, workplace } from "../packages/cli/test/in-process.ts";
import { standInKind, standInPeers, VddkStandIn } from "../packages/provider-vmware/test/stand-in/vddk-stand-in.ts";
import { World } from "../packages/provider-vmware/test/world.ts";
import { describeWithPeers } from "./peers.ts";

// What a copy from vSphere takes where it runs: the command in a process of its own, over two sparse disks of 2 GiB, in
// full and then by what changed. Its memory, and every byte that it puts anywhere but at the target, are looked at all along.

const gibi = 2 ** 30;
const mebi = 1 << 20;
const size = 2 * gibi + 512;
/** Where each disk holds data, a MiB at a time. */
const places = Array.from({ length: 48 }, (_, index) => index * 37 * mebi);
const provider = fileURLToPath(new URL("../packages/provider-vmware", import.meta.url));

/** Where nbdkit's plugin for scripts has them keep what they were told, whatever TMPDIR says: the stand-in's own. */
const scriptFolder = /^\/tmp\/nbdkit\w{6}\//;

/** What a process and those that it started took at most. */
interface Footprint {
  /** Resident bytes of the command itself, threads included. */
  resident: number;
  /** Of the programs that it started, together. */
  residentOfOthers: number;
  /** Bytes in temporary files, in the folder of its state and in its home. */
  stored: number;
  /** Regular files elsewhere that were open for writing. */
  elsewhere: Set<string>;
}

/** Looks at a running process again and again until it ends. */
async function watch(pid: number, place: Workplace, ended: Promise<unknown>): Promise<Footprint> {
  const seen: Footprint = { resident: 0, residentOfOthers: 0, stored: 0, elsewhere: new Set() };
  let running = true;
  void ended.finally(() => (running = false));
  while (running) {
    const children = childrenOf(pid);
    seen.resident = Math.max(seen.resident, peakOf(pid));
    seen.residentOfOthers = Math.max(
      seen.residentOfOthers,
      children.reduce((sum, child) => sum + peakOf(child), 0),
    );
    seen.stored = Math.max(seen.stored, storedIn(place.folder, ["replica"]));
    for (const each of [pid, ...children]) {
      for (const file of writtenBy(each)) {
        if (!file.startsWith(`${place.folder}/`) && !scriptFolder.test(file)) seen.elsewhere.add(file);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return seen;
}

/** The most that a process ever had resident, in bytes (proc_pid_status(5), VmHWM); 0: it is gone. */
function peakOf(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readOrNothing(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}

function childrenOf(pid: number): number[] {
  const threads = listOrNothing(`/proc/${pid}/task`);
  const direct = threads.flatMap((thread) =>
    readOrNothing(`/proc/${pid}/task/${thread}/children`).split(" ").filter(Boolean).map(Number),
  );
  return direct.flatMap((child) => [child, ...childrenOf(child)]);
}

/** Files that a process has open for writing, pipes, sockets and devices left out. */
function writtenBy(pid: number): string[] {
  return listOrNothing(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const file = readlinkSync(`/proc/${pid}/fd/${fd}`);
      const flags = /^flags:\s+(\d+)$/m.exec(readOrNothing(`/proc/${pid}/fdinfo/${fd}`))?.[1] ?? "0";
      const writable = (Number.parseInt(flags, 8) & 3) !== 0;
      return writable && file.startsWith("/") && !/^\/(dev|proc|memfd:)/.test(file) ? [file] : [];
    } catch {
      return [];
    }
  });
}

/** Bytes that files take in a folder, the named ones at its top left out. */
function storedIn(folder: string, without: readonly string[] = []): number {
  let bytes = 0;
  for (const name of listOrNothing(folder)) {
    if (without.includes(name)) continue;
    try {
      const found = lstatSync(join(folder, name));
      bytes += found.isDirectory() ? storedIn(join(folder, name)) : found.blocks * 512;
    } catch {
      // It went while it was looked at.
    }
  }
  return bytes;
}

function readOrNothing(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function listOrNothing(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** What an agent may take at most. */
const mostResident = 512 * mebi;
const mostStored = gibi;
/** What ours is meant to take: its document and its manifest, no part of a disk. */
const meantStored = 32 * mebi;

async function takes(reader: "nfc" | "vddk"): Promise<void> {
  await using world = await World.start({ machines: [{ name: "web", disks: [{ size }, { size }] }] });
  const { simulator } = world;
  await using standIn = reader === "vddk" ? await VddkStandIn.start(simulator) : undefined;
  const bytes = new Uint8Array(mebi);
  const fill = (at: number): void => {
    for (const disk of [2000, 2001]) simulator.write("web", disk, at, randomFillSync(bytes));
  };
  for (const at of places) fill(at);
  const place = await workplace();
  mkdirSync(place.path("tmp"));
  Object.assign(place.env, { TMPDIR: place.path("tmp"), VSPHERE_PASSWORD: simulator.password });
  for (const name of ["DISKFERRY_VDDK_STAND_IN", "DISKFERRY_VDDK_STAND_IN_PORT"]) {
    const value = process.env[name];
    if (value !== undefined) place.env[name] = value;
  }
  const { url, username } = world.options();
  const source = { provider: "vsphere", url, username, readers: [reader], vddk: standIn?.options };
  const target = { provider: "local", directory: "./replica", format: "qcow2-chain" };
  await place.write("jobs.yaml", JSON.stringify({ jobs: { web: { source, machine: "web", target } } }));
  const args = ["sync", "--config", "jobs.yaml", "--provider", provider, "--json"];
  for (const mode of ["full", "incremental"]) {
    if (mode === "incremental") for (const at of places.filter((_, index) => index % 4 === 0)) fill(at + mebi);
    const syncing = place.spawn(args);
    const [found, said] = await Promise.all([watch(syncing.child.pid!, place, syncing.ended), syncing.ended]);
    expect(said.code, said.err + said.out).toBe(0);
    const result = jsonLines(said.out).find(({ type }) => type === "result");
    const { disks } = result!["report"] as RunReport;
    const moved = disks.reduce((sum, disk) => sum + disk.moved, 0);
    console.info(
      `${reader}, ${mode}: ${Math.ceil(moved / mebi)} MiB of ${Math.floor((2 * size) / gibi)} GiB moved; at most ${Math.ceil(found.resident / mebi)} MiB resident ` +
        `(${Math.ceil(found.residentOfOthers / mebi)} MiB more in other programs), ${Math.ceil(found.stored / 1024)} KiB in temporary files and state`,
    );
    expect(disks.map((disk) => disk.mode)).toEqual([mode, mode]);
    expect(moved).toBeGreaterThanOrEqual(places.length * mebi * (mode === "full" ? 2 : 0.25));
    expect(found.resident).toBeGreaterThan(32 * mebi);
    expect(found.resident).toBeLessThan(mostResident);
    expect([...found.elsewhere]).toEqual([]);
    expect(found.stored).toBeGreaterThan(0);
    expect(found.stored).toBeLessThan(mostStored);
    expect(found.stored).toBeLessThan(meantStored);
    await using replica = await local.target!({ directory: place.path("replica"), format: "qcow2-chain" });
    for (const { disk, volume } of disks) {
      await using opened = await replica.read!(volume!);
      const there = new Uint8Array(2 * mebi);
      for (const at of places.filter((_, index) => index % 8 === 0)) {
        await opened.read(at, there);
        const held = simulator.readDisk("web", Number(disk), { offset: at, length: there.length });
        expect(Buffer.compare(there, held), `disk ${disk} at ${at}`).toBe(0);
      }
    }
  }
  expect(simulator.alive).toEqual({ sessions: 0, leases: 0, tasks: 0 });
  expect(readdirSync(place.path("tmp"))).toEqual([]);
}

test(
  "a copy by nfc takes less than 512 MiB of memory and no room for any part of a disk",
  () => takes("nfc"),
  1_200_000,
);

describeWithPeers(standInPeers, `by nbdkit and ${standInKind}`, () => {
  test(
    "a copy by vddk takes less than 512 MiB of memory and no room for any part of a disk",
    () => takes("vddk"),
    1_200_000,
  );
});
