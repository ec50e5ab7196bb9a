import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cutover, type Job, launch, MemoryStateStore, replicate, type RunReport, terminate } from "@diskferry/core";
import { provider as aws } from "@diskferry/provider-aws";
import { provider as cloudstack } from "@diskferry/provider-cloudstack";
import { provider as local } from "@diskferry/provider-local";
import type { CloudstackSimulator } from "@diskferry/simulators";
import { afterEach, expect, test } from "vitest";
import { startCloud, type TestCloud } from "../packages/provider-cloudstack/test/cloud.ts";
import { patient } from "../packages/provider-cloudstack/test/killed-at-every-call.ts";
import { World } from "../packages/provider-vmware/test/world.ts";
import { AwsGuest, differences, optionsTo, quickSimulator } from "./aws/aws-guest.ts";
import { randomBytes, randomFrom, seedOf } from "./seed.ts";
import { readVolume, ReplicatedMachine } from "./vsphere/replicated-machine.ts";

// Machines of several disks, written to all along, into CloudStack as an ordinary tenant sees it, and out of it again.

const mebi = 1 << 20;
const seed = seedOf(5);
const open: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

async function startCloudForTest(given: Parameters<typeof startCloud>[0] = {}): Promise<TestCloud> {
  const cloud = await startCloud(given);
  cloud.options = patient(cloud.options);
  open.push(() => cloud[Symbol.asyncDispose]());
  return cloud;
}

/** Nothing is attached to the appliance but its own root, and no snapshot is left. */
function demandClean({ simulator }: TestCloud): void {
  expect(simulator.volumesOf(simulator.appliance.id)).toHaveLength(1);
  expect(simulator.snapshotIds()).toEqual([]);
}

async function demandHolds(simulator: CloudstackSimulator, volume: string, bytes: Uint8Array): Promise<void> {
  const found = await simulator.volumeBytes(volume, 0, bytes.length);
  const at = Buffer.compare(found, bytes) === 0 ? -1 : found.findIndex((byte, index) => byte !== bytes[index]);
  expect(at, `volume ${volume} differs first at this byte, seed ${seed}`).toBe(-1);
}

test("vSphere → CloudStack: in full, what changed, a test launch, a cutover, and equal bytes", async () => {
  const sizes = [3 * mebi + 512, 2 * mebi];
  const world = await World.start({
    machines: [{ name: "web", disks: sizes.map((size) => ({ size })), tracking: false }],
    granularity: 65_536,
    areaLimit: 8,
  });
  open.push(() => world[Symbol.asyncDispose]());
  for (const [index, size] of sizes.entries())
    world.simulator.populate("web", 2000 + index, 0, randomBytes(Math.floor(size / 1024) * 512, seed + index));
  const machine = new ReplicatedMachine(world);
  const source = machine.watched(await world.source({ readers: ["nfc"] }));
  const cloud = await startCloudForTest();
  const { simulator } = cloud;
  const target = await cloudstack.target!(cloud.options);
  open.push(() => target[Symbol.asyncDispose]());
  const options = { leaf: 65_536, workers: 0 };
  const job: Job = { id: "escape", source, machine: "web", target, store: new MemoryStateStore(), options };

  machine.work(seed);
  const reports: RunReport[] = [];
  for (let run = 0; run < 3; run++) {
    const report = await replicate(job);
    reports.push(report);
    expect(report.fallbacks).toEqual([]);
    await machine.demandEqual(report, target);
    demandClean(cloud);
  }
  expect(reports.map(({ disks }) => disks.map(({ mode }) => mode).join())).toEqual([
    "full,full",
    "incremental,incremental",
    "incremental,incremental",
  ]);

  // The clone boots, is written to, and the replica goes on as if nothing was.
  const tested = await launch(job);
  expect(tested).toMatchObject({ purpose: "test", consumed: false });
  expect(simulator.machineState(tested.id)).toBe("Running");
  const clones = simulator.volumesOf(tested.id);
  for (const [index, { disk }] of reports[2]!.disks.entries()) {
    await demandHolds(simulator, clones[index]!, machine.held(reports[2]!, disk));
    await simulator.writeVolume(clones[index]!, 0, randomBytes(4096, 99));
  }
  const during = await replicate(job);
  await machine.demandEqual(during, target);
  expect(during.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental"]);
  await terminate(job, tested.id);
  demandClean(cloud);
  expect(simulator.volumes()).toHaveLength(1 + sizes.length);

  const { machine: launched, run: last } = await cutover(job, { allowPowerOff: true });
  await machine.rest();
  expect(world.simulator.machine("web").power).toBe("poweredOff");
  expect(launched).toMatchObject({ purpose: "cutover", consumed: true });
  expect(simulator.machineState(launched.id)).toBe("Running");
  const volumes = simulator.volumesOf(launched.id);
  expect(volumes).toEqual(last!.disks.map(({ volume }) => volume!.id));
  // What the source holds for good is what runs at CloudStack.
  for (const [index] of sizes.entries())
    await demandHolds(simulator, volumes[index]!, world.simulator.readDisk("web", 2000 + index, {}));
  demandClean(cloud);
}, 600_000);

test("AWS → CloudStack: in full, then what changed and was freed, the guest writing all along", async () => {
  const ec2 = await quickSimulator();
  open.push(() => ec2.close());
  const guest = new AwsGuest(ec2, ec2.instances.linux, seed);
  const [root, data] = guest.volumes as [string, string];
  await guest.write(root, 0, 1, 2, 700, 2047);
  await guest.write(data, 5, 6);
  await using source = await aws.source!(optionsTo(ec2));
  // The guest's writes and the snapshots take turns, so that it is known what each snapshot holds; nothing else waits for it.
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = <Result>(work: () => Promise<Result>): Promise<Result> => {
    const done = turn.then(work);
    turn = done.catch(() => undefined);
    return done;
  };
  let held = new Map<string, ReadonlyMap<number, Uint8Array>>();
  const take = source.snapshot.bind(source);
  source.snapshot = (machine, request) =>
    inTurn(async () => {
      const taken = await take(machine, request);
      held = new Map(guest.volumes.map((volume) => [volume, guest.content(volume)]));
      return taken;
    });
  let writes = 0;
  const random = randomFrom(seed);
  const working = new AbortController();
  const work = (async () => {
    while (!working.signal.aborted) {
      const volume = random() < 0.5 ? root : data;
      await inTurn(() => guest.write(volume, Math.floor(random() * 64)));
      writes++;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
  open.push(async () => {
    working.abort();
    await work;
  });
  const cloud = await startCloudForTest();
  await using target = await cloudstack.target!(cloud.options);
  const machine = ec2.instances.linux;
  const job: Job = { id: "home", source, machine, disks: [root, data], target, store: new MemoryStateStore() };
  const demandEqual = async (report: RunReport): Promise<void> => {
    for (const { disk, volume } of report.disks) {
      await using reader = await target.read!(volume!);
      expect(await differences(reader, held.get(disk)!), `${disk}, seed ${seed}`).toEqual([]);
    }
    demandClean(cloud);
  };
  const full = await replicate(job);
  expect(full.disks.map(({ mode }) => mode)).toEqual(["full", "full"]);
  // It really went on meanwhile: what the snapshot holds is not what the volumes hold now.
  const moved = (volume: string): boolean =>
    [...guest.content(volume)].some(([index, bytes]) => held.get(volume)!.get(index) !== bytes);
  expect([root, data].some(moved)).toBe(true);
  await demandEqual(full);
  await inTurn(async () => {
    await guest.write(root, 1, 900);
    await guest.trim(root, 2);
    await guest.trim(data, 5, 6);
  });
  for (let run = 0; run < 2; run++) {
    const before = writes;
    const next = await replicate(job);
    expect(next.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental"]);
    await demandEqual(next);
    expect(writes).toBeGreaterThan(before);
  }

  // The day AWS is gone: what was replicated last runs here.
  const { simulator } = cloud;
  const recovered = await launch(job);
  expect(simulator.machineState(recovered.id)).toBe("Running");
  for (const [index, volume] of simulator.volumesOf(recovered.id).entries())
    for (const [block, bytes] of held.get([root, data][index]!)!)
      expect(Buffer.compare(await simulator.volumeBytes(volume, block * bytes.length, bytes.length), bytes)).toBe(0);
  await terminate(job, recovered.id);
  demandClean(cloud);
}, 600_000);

test.each(["appliance", "download"] as const)(
  "CloudStack → qcow2 by %s: a running machine, then what differs by manifest, then stopped",
  async (read) => {
    const sizes = [3 * mebi + 512, 2 * mebi];
    const cloud = await startCloudForTest({ machines: [{ name: "db", disks: sizes }] });
    const { simulator } = cloud;
    const [machine = ""] = simulator.machines;
    const disks = simulator.volumesOf(machine);
    const random = randomFrom(seed);
    let writing = true;
    const guest = (async () => {
      while (writing) {
        const index = Math.floor(random() * disks.length);
        const offset = 512 * Math.floor(random() * (sizes[index]! / 512 - 8));
        if (simulator.machineState(machine) === "Running")
          await simulator.writeVolume(disks[index]!, offset, randomBytes(4096, Math.floor(random() * 1e6)));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
    const folder = mkdtempSync(join(tmpdir(), "diskferry-cloudstack-"));
    open.push(() => rmSync(folder, { recursive: true, force: true }));
    await using source = await cloudstack.source!({ ...cloud.options, source: { read } });
    const taken = new Map<string, Uint8Array>();
    const opened = source.open.bind(source);
    // What each snapshot holds is kept by reading it once more.
    source.open = async (disk, wait) => {
      const reader = await opened(disk, wait);
      const bytes = new Uint8Array(disk.size);
      await reader.read(0, bytes);
      taken.set(disk.disk, bytes);
      return reader;
    };
    await using target = await local.target!({ directory: folder, format: "qcow2-chain" });
    const job: Job = {
      id: "out",
      source,
      machine,
      target,
      store: new MemoryStateStore(),
      options: { leaf: 65_536, workers: 0 },
    };
    const demandEqual = async (report: RunReport): Promise<void> => {
      for (const { disk, volume } of report.disks) {
        const held = taken.get(disk)!;
        expect(Buffer.compare(await readVolume(target, volume!, held.length), held)).toBe(0);
      }
      demandClean(cloud);
      expect(simulator.volumes()).toHaveLength(1 + sizes.length);
    };
    const full = await replicate(job);
    expect(full.snapshot.consistency).toBe("crash");
    expect(full.disks.map(({ mode }) => mode)).toEqual(["full", "full"]);
    await demandEqual(full);
    const second = await replicate(job);
    expect(second.disks.map(({ mode }) => mode)).toEqual(["rescan", "rescan"]);
    expect(second.disks.reduce((sum, { moved }) => sum + moved, 0)).toBeLessThan(sizes[0]! + sizes[1]!);
    await demandEqual(second);
    writing = false;
    await guest;
    await source.power!.shutdown(await source.machine(machine));
    const last = await replicate(job);
    await demandEqual(last);
    for (const [index, volume] of disks.entries())
      expect(Buffer.compare(taken.get(volume)!, await simulator.volumeBytes(volume, 0, sizes[index]!))).toBe(0);
  },
  600_000,
);

test("CloudStack → CloudStack by download and upload: no appliance, a volume for every run", async () => {
  const size = 3 * mebi + 512;
  const cloud = await startCloudForTest({ machines: [{ name: "db", disks: [size] }] });
  const { simulator } = cloud;
  const [disk = ""] = simulator.volumesOf(simulator.machines[0]!);
  const spool = mkdtempSync(join(tmpdir(), "diskferry-cloudstack-"));
  open.push(() => rmSync(spool, { recursive: true, force: true }));
  const { appliance: _, launch: __, ...options } = cloud.options;
  await using source = await cloudstack.source!({ ...options, source: { read: "download" } });
  await using target = await cloudstack.target!({ ...options, mode: "upload", spool });
  const machine = simulator.machines[0]!;
  const job: Job = { id: "up", source, machine, target, store: new MemoryStateStore(), options: { leaf: 65_536 } };
  for (const [index, mode] of ["full", "rescan"].entries()) {
    await simulator.writeVolume(disk, 512 * (100 + 900 * index), randomBytes(70_000, seed + index));
    const report = await replicate(job);
    expect(report.disks.map((each) => each.mode)).toEqual([mode]);
    const held = await simulator.volumeBytes(disk, 0, size);
    expect(Buffer.compare(await simulator.volumeBytes(report.disks[0]!.volume!.id, 0, size), held)).toBe(0);
  }
  expect(simulator.snapshotIds()).toEqual([]);
}, 600_000);
