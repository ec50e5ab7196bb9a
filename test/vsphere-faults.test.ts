import { readdirSync, readFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  audit,
  isProviderError,
  type Job,
  type Layer,
  MemoryStateStore,
  replicate,
  type TargetProvider,
} from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";
import type { VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { standInPeers, VddkStandIn } from "../packages/provider-vmware/test/stand-in/vddk-stand-in.ts";
import { World } from "../packages/provider-vmware/test/world.ts";
import type { VsphereOptions } from "@diskferry/provider-vmware";
import { describeWithPeers } from "./peers.ts";
import { randomBytes, seedOf } from "./seed.ts";
import { ReplicatedMachine, replicateUntilDone } from "./vsphere/replicated-machine.ts";

// What happens to a vCenter, its machines and the programs in between while a run is under way: the run goes on or falls
// back loudly, the replica is one snapshot, byte for byte, and nothing is left at the source.

const mebi = 1 << 20;
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const leaf = 65_536;
const granularity = 65_536;
const seed = seedOf(7);
const sizes = [6 * mebi + 512, 3 * mebi];

let folder = "";
const open: AsyncDisposable[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "diskferry-vsphere-"));
});
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

interface Site {
  world: World;
  machine: ReplicatedMachine;
  target: TargetProvider;
  /** The same job over a connection of its own, as somebody who starts it again has; `strike` comes with the second read. */
  job(strike?: () => void | Promise<void>): Promise<Job>;
}

async function start(options: Partial<VsphereOptions> = {}, simulated: VcenterSimulatorOptions = {}): Promise<Site> {
  const spec = { name: "web", disks: sizes.map((size) => ({ size })), tracking: true };
  const world = await World.start({ machines: [spec], granularity, areaLimit: 4, spanLimit: mebi, ...simulated });
  open.push(world);
  const standIn = options.readers?.includes("vddk") === true ? await VddkStandIn.start(world.simulator) : undefined;
  if (standIn !== undefined) open.push(standIn);
  for (const [index, size] of sizes.entries()) {
    world.simulator.populate("web", 2000 + index, 0, randomBytes(size, seed + index));
  }
  const machine = new ReplicatedMachine(world);
  const directory = join(folder, "target");
  mkdirSync(directory);
  const target = await local.target!({ directory, format: "qcow2-chain" });
  open.push(target);
  const store = new MemoryStateStore();
  const vddk = standIn === undefined ? {} : { vddk: standIn.options };
  return {
    world,
    machine,
    target,
    async job(strike) {
      const source = machine.watched(await world.source({ readers: ["nfc"], ...vddk, ...options }));
      const attempts = { baseMs: 50, maxMs: 1000, totalMs: 30_000, perAttemptMs: 20_000 };
      const layers = strike === undefined ? [] : [striking(strike)];
      const notice = (message: string): void => void world.notices.push(message);
      return {
        id: "faults",
        source,
        machine: "web",
        target,
        store,
        options: { leaf, workers: 0, attempts, layers, notice, memory: mebi },
      };
    },
  };
}

/** Strikes once, with the second read from the source. */
function striking(strike: () => void | Promise<void>): Layer {
  let reads = 0;
  return async (call, run) => {
    if (call.side === "source" && call.method === "read" && ++reads === 2) await strike();
    await run(call);
  };
}

/** A full copy struck in its middle, then the guest's next work copied undisturbed. */
async function struckInTheMiddle(site: Site, strike: () => void | Promise<void>): Promise<{ failures: Error[] }> {
  site.machine.work(seed);
  let struck = false;
  const once = async (): Promise<void> => {
    if (struck) return;
    struck = true;
    await strike();
  };
  try {
    const { report, failures } = await replicateUntilDone(() => site.job(once));
    expect(struck).toBe(true);
    await site.machine.demandEqual(report, site.target);
    site.machine.demandClean();
    const { report: next } = await replicateUntilDone(() => site.job());
    await site.machine.demandEqual(next, site.target);
    site.machine.demandClean();
    return { failures };
  } finally {
    await site.machine.rest();
  }
}

describe("in the middle of a full copy", () => {
  test("vCenter restarts: the run goes on", async () => {
    const site = await start({}, { bytesPerSecond: 20 * mebi });
    const { failures } = await struckInTheMiddle(site, () => site.world.simulator.reboot({ downMs: 300 }));
    expect(failures.map(String)).toEqual([]);
  });

  test("sessions expire: the run logs in again and goes on", async () => {
    const site = await start({}, { bytesPerSecond: 20 * mebi });
    const { failures } = await struckInTheMiddle(site, () => site.world.simulator.expireSessions());
    expect(failures.map(String)).toEqual([]);
    expect(site.world.notices.some((line) => line.includes("logging in again"))).toBe(true);
  });

  test("sessions expire under the datastore's reader: it logs in again and goes on", async () => {
    const site = await start({ readers: ["folder"] });
    const { failures } = await struckInTheMiddle(site, () => site.world.simulator.expireSessions());
    expect(failures.map(String)).toEqual([]);
  });

  test("a lease lapses: its disk is exported again", async () => {
    // The larger disk takes twice as long as a lease lasts without news.
    const site = await start({}, { leaseTimeoutSeconds: 3, bytesPerSecond: mebi });
    const { simulator } = site.world;
    const { failures } = await struckInTheMiddle(site, async () => {
      const heal = simulator.inject({ method: "HttpNfcLeaseProgress", times: 1000, action: { kind: "hang" } });
      await sleep(4500);
      heal();
    });
    expect(failures.map(String)).toEqual([]);
    // Undisturbed, each of the two runs opens each disk twice.
    expect(simulator.calls.get("ExportSnapshot")).toBeGreaterThan(4 * sizes.length);
  });

  test.for(["nfc", "folder"] as const)(
    "the machine loses its power (read by %s): its snapshot is copied to the end",
    async (reader) => {
      const site = await start({ readers: [reader] });
      const { failures } = await struckInTheMiddle(site, () => site.world.simulator.powerFailure("web"));
      expect(failures.map(String)).toEqual([]);
      // The next run finds tracking begun anew by it, and says so.
      expect(site.world.notices.join("\n")).toMatch(/incremental → rescan: .*tracking began anew/);
    },
  );

  test.for(["nfc", "folder"] as const)(
    "somebody removes the snapshot (read by %s): the run ends, and the next one says why",
    async (reader) => {
      const site = await start({ readers: [reader] });
      const { simulator } = site.world;
      const { failures } = await struckInTheMiddle(site, () => {
        const [ours] = simulator.machine("web").snapshots();
        simulator.removeSnapshot(ours!.id);
      });
      expect(failures).toHaveLength(1);
      expect(failures.map((error) => isProviderError(error) && error.code)).toEqual(["NOT_FOUND"]);
      expect(site.world.notices.join("\n")).toMatch(/lost its snapshot; a new run begins/);
    },
  );
});

describeWithPeers(standInPeers, "with nbdkit in between", () => {
  test("nbdkit is killed: another one takes its place and the run goes on", async () => {
    const site = await start({ readers: ["vddk"] });
    const { failures } = await struckInTheMiddle(site, () => {
      for (const pid of childrenCalled("nbdkit")) process.kill(pid, "SIGKILL");
    });
    expect(failures.map(String)).toEqual([]);
    expect(childrenCalled("nbdkit")).toEqual([]);
  });

  test("somebody removes the snapshot: what was frozen is copied, or a new run begins", async () => {
    const site = await start({ readers: ["vddk"] });
    const { simulator } = site.world;
    await struckInTheMiddle(site, () => {
      const [ours] = simulator.machine("web").snapshots();
      simulator.removeSnapshot(ours!.id);
      for (const pid of childrenCalled("nbdkit")) process.kill(pid, "SIGKILL");
    });
  });
});

/** Processes that this one started, by the name of their program. */
function childrenCalled(program: string): number[] {
  return readdirSync("/proc").flatMap((name) => {
    try {
      const parent = /^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${name}/status`, "utf8"))?.[1];
      const [first = ""] = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      return parent === String(process.pid) && first.endsWith(program) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

describe("in an incremental run", () => {
  test("tracking begins anew in the middle of a listing: the rest is compared, loudly", async () => {
    const site = await start();
    const { world, machine } = site;
    await replicate(await site.job());
    for (let at = 0; at < 6; at++) world.simulator.write("web", 2000, at * mebi, randomBytes(5000, at + 1));
    const call = (world.simulator.calls.get("QueryChangedDiskAreas") ?? 0) + 3;
    const reset = { kind: "run", run: () => world.simulator.resetTracking("web") } as const;
    world.simulator.inject({ method: "QueryChangedDiskAreas", calls: [call], action: reset });
    const report = await replicate(await site.job());
    expect(report.fallbacks.length).toBeGreaterThan(0);
    expect(report.fallbacks[0]).toMatchObject({ from: "incremental", to: "rescan" });
    expect(report.fallbacks[0]?.reason).toMatch(/tracking began anew while the snapshot existed/);
    await machine.demandEqual(report, site.target);
    machine.demandClean();
    const next = await replicate(await site.job());
    await machine.demandEqual(next, site.target);
  });

  test("a disk that grew is compared as a whole, loudly, and the new part is copied", async () => {
    const site = await start();
    const { world, machine } = site;
    const first = await replicate(
      await site.job(() => {
        // vSphere itself refuses while our snapshot is there.
        expect(() => world.simulator.grow("web", 2001, sizes[1]! + mebi)).toThrow();
      }),
    );
    await machine.demandEqual(first, site.target);
    world.simulator.grow("web", 2001, sizes[1]! + mebi);
    world.simulator.write("web", 2001, sizes[1]! + 4096, randomBytes(9000, 3));
    const report = await replicate(await site.job());
    expect(report.fallbacks.map(({ disk }) => disk)).toEqual(["2001"]);
    expect(report.fallbacks[0]?.reason).toMatch(/was 3145728 bytes and is 4194304 bytes/);
    await machine.demandEqual(report, site.target);
    machine.demandClean();
  });

  test("a revert to an older snapshot is compared as a whole, loudly", async () => {
    const site = await start();
    const { world, machine } = site;
    const id = world.simulator.takeSnapshot("web", "before the upgrade");
    await replicate(await site.job());
    world.simulator.write("web", 2000, 0, randomBytes(9000, 5));
    await replicate(await site.job());
    const found = world.simulator.machine("web");
    found.revert([...found.snapshots()].find((each) => each.id === id)!);
    const report = await replicate(await site.job());
    expect(report.fallbacks.length).toBeGreaterThan(0);
    await machine.demandEqual(report, site.target);
    machine.demandClean();
  });

  test("another disk in the same slot is compared as a whole, loudly", async () => {
    const site = await start();
    const { world, machine } = site;
    await replicate(await site.job());
    world.simulator.removeDisk("web", 2001);
    expect(world.simulator.addDisk("web", { size: sizes[1]! })).toBe(2001);
    world.simulator.populate("web", 2001, mebi, randomBytes(9000, 4));
    const report = await replicate(await site.job());
    expect(report.fallbacks.map(({ disk, to }) => [disk, to])).toEqual([["2001", "rescan"]]);
    await machine.demandEqual(report, site.target);
    machine.demandClean();
  });

  test("a snapshot of another job beneath the run's own: the disks are compared as a whole, loudly", async () => {
    const site = await start();
    const { world, machine } = site;
    await replicate(await site.job());
    const other = await world.source();
    const theirs = await other.snapshot(await other.machine("web"), { key: "weekly-1", job: "weekly" });
    world.simulator.write("web", 2000, 2 * mebi, randomBytes(9000, 6));
    const report = await replicate(await site.job());
    expect(report.fallbacks.map(({ disk, to }) => [disk, to])).toEqual([
      ["2000", "rescan"],
      ["2001", "rescan"],
    ]);
    await machine.demandEqual(report, site.target);
    await other.release(theirs);
    world.simulator.write("web", 2000, 3 * mebi, randomBytes(9000, 7));
    const next = await replicate(await site.job());
    expect(next.fallbacks).toEqual([]);
    await machine.demandEqual(next, site.target);
    machine.demandClean();
  });

  test("writes that the tracker forgot (KB 2136854) are caught by an audit of what it calls unchanged", async () => {
    const site = await start({}, { bugs: ["changes-lost-in-consolidation"], version: "6.5" });
    const { world } = site;
    await replicate(
      await site.job(() => {
        // Written while the run's snapshot is there: half of the marks go with its consolidation.
        for (let at = 0; at < 80; at++) world.simulator.write("web", 2000, at * granularity, randomBytes(512, at));
      }),
    );
    const last = await replicate(await site.job());
    expect(last.fallbacks).toEqual([]);
    const found = await audit(await site.job(), { samples: 1000 });
    expect(found.sound).toBe(false);
    expect(found.disks.find(({ disk }) => disk === "2000")?.missed).toBeGreaterThan(0);
    site.machine.demandClean();
  });
});

describe("when the machine is switched off under a run", () => {
  test("`pause` stops the copy at its last durable point, and goes on when the machine runs again", async () => {
    const site = await start({ onPowerChange: "pause" }, { bytesPerSecond: 2 * mebi });
    const { world, machine } = site;
    const job = await site.job(() => world.simulator.machine("web").shutDown());
    job.options = { ...job.options, attempts: { ...job.options?.attempts, totalMs: 2000, attempts: 2 } };
    const error: unknown = await replicate(job).catch((thrown: unknown) => thrown);
    expect(isProviderError(error) && error.message).toMatch(/its copy pauses until it runs again/);
    world.simulator.machine("web").powerOn();
    const report = await replicate(await site.job());
    expect(report.resumed).toBe(true);
    await machine.demandEqual(report, site.target);
    machine.demandClean();
  });

  test("`fail` ends the run at once", async () => {
    const site = await start({ onPowerChange: "fail" }, { bytesPerSecond: 2 * mebi });
    const error: unknown = await replicate(await site.job(() => site.world.simulator.machine("web").shutDown())).catch(
      (thrown: unknown) => thrown,
    );
    expect(isProviderError(error) && [error.code, error.retryable]).toEqual(["IN_USE", false]);
    site.world.simulator.machine("web").powerOn();
    const report = await replicate(await site.job());
    expect(report.resumed).toBe(true);
    await site.machine.demandEqual(report, site.target);
    site.machine.demandClean();
  });
});
