import { readdirSync, readFileSync } from "node:fs";
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
import type { VcenterSimulatorOptions } from "@diskferry/simulators";
import { describe, expect, test, vi } from "vitest";
import { standInKind, standInPeers } from "../packages/provider-vmware/test/stand-in/vddk-stand-in.ts";
import { World } from "../packages/provider-vmware/test/world.ts";
import type { ReaderName, VsphereOptions } from "@diskferry/provider-vmware";
import { VimClient } from "../packages/simulators/test/vcenter/vim-client.ts";
import { describeWithPeers } from "./peers.ts";
import { randomBytes, seedOf } from "./seed.ts";
import { ReplicatedMachine, replicateUntilDone } from "./vsphere/replicated-machine.ts";
import { Stage } from "./vsphere/stage.ts";
import { striking } from "./vsphere/striking.ts";

// What happens to a vCenter, its machines and the programs in between while a run is under way: the run goes on or falls
// back loudly, the replica is one snapshot, byte for byte, and nothing is left at the source.

const mebi = 1 << 20;
vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });
const leaf = 65_536;
const granularity = 65_536;
const seed = seedOf(7);
const sizes = [6 * mebi + 512, 3 * mebi];

const stage = new Stage();

interface Site {
  world: World;
  machine: ReplicatedMachine;
  target: TargetProvider;
  /** The same job over a connection of its own, as somebody who starts it again has, with a layer where one is given. */
  job(layer?: Layer): Promise<Job>;
}

async function start(options: Partial<VsphereOptions> = {}, simulated: VcenterSimulatorOptions = {}): Promise<Site> {
  const spec = { name: "web", disks: sizes.map((size) => ({ size })), tracking: true };
  const limits = { granularity, areaLimit: 4, spanLimit: mebi };
  const world = stage.keep(await World.start({ machines: [spec], ...limits, ...simulated }));
  const read = await stage.readBy(world, options.readers ?? ["nfc"]);
  for (const [index, size] of sizes.entries()) {
    world.simulator.populate("web", 2000 + index, 0, randomBytes(size, seed + index));
  }
  const machine = new ReplicatedMachine(world);
  const target = await stage.chain();
  const store = new MemoryStateStore();
  return {
    world,
    machine,
    target,
    async job(layer) {
      const source = machine.watched(await world.source({ ...read, ...options }));
      const attempts = { baseMs: 50, maxMs: 1000, totalMs: 30_000, perAttemptMs: 20_000 };
      const layers = layer === undefined ? [] : [layer];
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

type Phase = "full" | "incremental";
const phases: readonly Phase[] = ["full", "incremental"];

/** Something that happens while a run reads, and what becomes of the run. */
interface Event {
  what: string;
  readers: readonly ReaderName[];
  simulated?: VcenterSimulatorOptions;
  strike(site: Site): void | Promise<void>;
  /** How the struck run fails; absent: it goes on as if nothing were. */
  fails?: { code: string };
  /** What somebody is told of it, at the latest by the next run. */
  told?: RegExp;
  /** More often than undisturbed in the struck run, where each disk is opened twice. */
  opensAgain?: string;
}

/** Sessions, leases and streams take their time, so that they are under way when something happens. */
const slowly = { bytesPerSecond: 20 * mebi };

const events: readonly Event[] = [
  {
    what: "vCenter restarts: the run goes on",
    readers: ["nfc", "folder", "vddk"],
    simulated: slowly,
    strike: ({ world }) => world.simulator.reboot({ downMs: 300 }),
  },
  {
    what: "sessions expire: the run logs in again and goes on",
    readers: ["nfc", "folder", "vddk"],
    simulated: slowly,
    strike: ({ world }) => world.simulator.expireSessions(),
    told: /logging in again/,
  },
  {
    what: "a lease lapses: its disk is exported again",
    readers: ["nfc"],
    // The larger disk takes twice as long as a lease lasts without news.
    simulated: { leaseTimeoutSeconds: 3, bytesPerSecond: mebi },
    strike: async ({ world: { simulator } }) => {
      const heal = simulator.inject({ method: "HttpNfcLeaseProgress", times: 1000, action: { kind: "hang" } });
      await sleep(4500);
      heal();
    },
    opensAgain: "ExportSnapshot",
  },
  {
    what: "nbdkit is killed: another one takes its place and the run goes on",
    readers: ["vddk"],
    strike: () => {
      const found = childrenCalled("nbdkit");
      expect(found).not.toEqual([]);
      for (const pid of found) process.kill(pid, "SIGKILL");
    },
  },
  {
    what: "the machine loses its power: its snapshot is copied to the end, and the next run finds tracking begun anew",
    readers: ["nfc", "folder", "vddk"],
    strike: ({ world }) => world.simulator.powerFailure("web"),
    told: /incremental → rescan: .*tracking began anew/,
  },
  {
    what: "tracking is reset: the snapshot is copied to the end, and the next run compares, loudly",
    readers: ["nfc", "folder", "vddk"],
    strike: ({ world }) => world.simulator.resetTracking("web"),
    told: /incremental → rescan: .*tracking began anew/,
  },
  {
    what: "somebody tries to grow a disk: vSphere refuses while the run's snapshot is there, and the run goes on",
    readers: ["nfc", "folder", "vddk"],
    strike: async ({ world: { simulator } }) => {
      const administrator = await new VimClient(simulator).login();
      const { id } = simulator.machine("web");
      for (const [key, { capacity }] of simulator.machine("web").disks) {
        const device = `<device xsi:type="VirtualDisk"><key>${key}</key><capacityInBytes>${capacity + mebi}</capacityInBytes></device>`;
        const spec = `<spec><deviceChange><operation>edit</operation>${device}</deviceChange></spec>`;
        const refused = administrator.task("ReconfigVM_Task", ["VirtualMachine", id], spec);
        await expect(refused).rejects.toThrow(/deviceChange/);
      }
      expect([...simulator.machine("web").disks.values()].map(({ capacity }) => capacity)).toEqual(sizes);
    },
  },
  {
    what: "somebody removes the snapshot: the run ends, and the next one says why",
    readers: ["nfc", "folder"],
    strike: ({ world: { simulator } }) => simulator.removeSnapshot([...simulator.machine("web").snapshots()][0]!.id),
    fails: { code: "NOT_FOUND" },
    told: /lost its snapshot; a new run begins/,
  },
];

/** A copy struck in its middle, then the guest's next work copied undisturbed. */
async function struckInTheMiddle(site: Site, phase: Phase, strike: () => void | Promise<void>): Promise<Outcome> {
  const { world, machine, target } = site;
  machine.work(seed);
  try {
    if (phase === "incremental") {
      await machine.demandEqual((await replicateUntilDone(() => site.job())).report, target);
      for (let at = 0; at < 6; at++) world.simulator.write("web", 2000, at * mebi, randomBytes(5000, seed + at));
      world.simulator.write("web", 2000, sizes[0]! - 512, randomBytes(512, seed));
    }
    const before = new Map(world.simulator.calls);
    const struck = striking(strike);
    const { report, failures } = await replicateUntilDone(() => site.job(struck.layer));
    const calls = (method: string): number => (world.simulator.calls.get(method) ?? 0) - (before.get(method) ?? 0);
    const during = new Map([...world.simulator.calls.keys()].map((method) => [method, calls(method)]));
    // In the middle indeed: something was read before, and something after.
    expect([struck.before, struck.after > 1]).toEqual([1, true]);
    await machine.demandEqual(report, target);
    machine.demandClean();
    const { report: next } = await replicateUntilDone(() => site.job());
    await machine.demandEqual(next, target);
    machine.demandClean();
    return { failures, during };
  } finally {
    await machine.rest();
  }
}

/** What the struck run, and those that took it up, failed with and called. */
interface Outcome {
  failures: Error[];
  during: ReadonlyMap<string, number>;
}

async function happens(event: Event, reader: ReaderName, phase: Phase): Promise<void> {
  const site = await start({ readers: [reader] }, event.simulated);
  const { failures, during } = await struckInTheMiddle(site, phase, () => event.strike(site));
  const codes = failures.map((error) => (isProviderError(error) ? error.code : String(error)));
  expect(codes).toEqual(event.fails === undefined ? [] : [event.fails.code]);
  if (event.told !== undefined) expect(site.world.notices.join("\n")).toMatch(event.told);
  if (event.opensAgain !== undefined) expect(during.get(event.opensAgain)).toBeGreaterThan(2 * sizes.length);
  expect(childrenCalled("nbdkit")).toEqual([]);
}

/** An incremental copy is struck as its first reader reads it, a full one as each does. */
const readersIn = (phase: Phase, { readers }: Event): readonly ReaderName[] =>
  phase === "full" ? readers : readers.slice(0, 1);

describe.for(phases)("in the middle of a copy, %s", (phase) => {
  const cases = (["nfc", "folder"] as const).flatMap((reader) =>
    events
      .filter((event) => readersIn(phase, event).includes(reader))
      .map((event): [string, string, Event] => [reader, event.what, event]),
  );
  test.for(cases)("read by %s, %s", ([reader, , event]) => happens(event, reader as ReaderName, phase));
});

describeWithPeers(standInPeers, `with nbdkit in between, and ${standInKind}`, () => {
  describe.for(phases)("in the middle of a copy, %s", (phase) => {
    const cases = events
      .filter((event) => readersIn(phase, event).includes("vddk"))
      .map((event): [string, Event] => [event.what, event]);
    test.for(cases)("read by vddk, %s", ([, event]) => happens(event, "vddk", phase));

    test("somebody removes the snapshot and nbdkit dies of it: what was frozen is copied, or a new run begins", async () => {
      const site = await start({ readers: ["vddk"] });
      const { simulator } = site.world;
      await struckInTheMiddle(site, phase, () => {
        const [ours] = simulator.machine("web").snapshots();
        simulator.removeSnapshot(ours!.id);
        for (const pid of childrenCalled("nbdkit")) process.kill(pid, "SIGKILL");
      });
      expect(childrenCalled("nbdkit")).toEqual([]);
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
    const first = await replicate(await site.job());
    await machine.demandEqual(first, site.target);
    world.simulator.grow("web", 2001, sizes[1]! + mebi);
    world.simulator.write("web", 2001, sizes[1]! + 4096, randomBytes(9000, 3));
    const report = await replicate(await site.job());
    expect(report.fallbacks.map(({ disk }) => disk)).toEqual(["2001"]);
    expect(report.fallbacks[0]?.reason).toMatch(/was 3145728 bytes and is 4194304 bytes/);
    await machine.demandEqual(report, site.target);
    machine.demandClean();
  });

  test.for<[Phase, string | undefined]>([
    ["full", undefined],
    ["incremental", "rescan"],
  ])(
    "a disk that grows after a %s run looked and before its snapshot is copied as it was frozen",
    async ([phase, to]) => {
      const site = await start();
      const { world, machine } = site;
      if (phase === "incremental") await machine.demandEqual(await replicate(await site.job()), site.target);
      const run = (): void => {
        world.simulator.grow("web", 2001, sizes[1]! + mebi);
        world.simulator.write("web", 2001, sizes[1]! + 4096, randomBytes(9000, 3));
      };
      const made = world.simulator.calls.get("CreateSnapshot_Task") ?? 0;
      world.simulator.inject({ method: "CreateSnapshot_Task", calls: [made + 1], action: { kind: "run", run } });
      const report = await replicate(await site.job());
      expect(world.simulator.machine("web").disks.get(2001)?.capacity).toBe(sizes[1]! + mebi);
      expect(machine.held(report, "2001")).toHaveLength(sizes[1]! + mebi);
      expect(report.fallbacks.map((each) => [each.disk, each.to])).toEqual(to === undefined ? [] : [["2001", to]]);
      await machine.demandEqual(report, site.target);
      machine.demandClean();
      world.simulator.write("web", 2001, sizes[1]! + 4096, randomBytes(900, 4));
      const next = await replicate(await site.job());
      expect(next.fallbacks).toEqual([]);
      await machine.demandEqual(next, site.target);
      machine.demandClean();
    },
  );

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
      await site.job(
        striking(() => {
          // Written while the run's snapshot is there: half of the marks go with its consolidation.
          for (let at = 0; at < 80; at++) world.simulator.write("web", 2000, at * granularity, randomBytes(512, at));
        }).layer,
      ),
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
    const job = await site.job(striking(() => world.simulator.machine("web").shutDown()).layer);
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
    const struck = striking(() => site.world.simulator.machine("web").shutDown());
    const error: unknown = await replicate(await site.job(struck.layer)).catch((thrown: unknown) => thrown);
    expect(isProviderError(error) && [error.code, error.retryable]).toEqual(["IN_USE", false]);
    site.world.simulator.machine("web").powerOn();
    const report = await replicate(await site.job());
    expect(report.resumed).toBe(true);
    await site.machine.demandEqual(report, site.target);
    site.machine.demandClean();
  });
});
