import {
  type DiskSnapshot,
  isProviderError,
  type Snapshot,
  type SourceConnector,
  type Tile,
} from "@diskferry/core/provider";
import type { MachineSpec, VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, describe, expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { VsphereOptions } from "../../src/options.ts";
import { World } from "../world.ts";

const mebi = 1 << 20;
const size = 4 * mebi + 512;
const granularity = 65_536;
const open: World[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]();
});

interface Site {
  world: World;
  source: SourceConnector;
}

async function start(
  machine: Partial<MachineSpec> = {},
  simulated: VcenterSimulatorOptions = {},
  options: Partial<VsphereOptions> = {},
): Promise<Site> {
  const spec = { name: "web", disks: [{ size }, { size: mebi }], tracking: true, ...machine };
  const world = await World.start({ machines: [spec], granularity, ...simulated });
  open.push(world);
  return { world, source: await world.source(options) };
}

let runs = 0;

/** A snapshot's first disk and its checkpoint, released again. */
async function recorded({ source }: Site): Promise<string> {
  const snapshot = await source.snapshot(await source.machine("web"), { key: `run-${++runs}` });
  const checkpoint = await source.tracker!.checkpoint(snapshot.disks[0]!);
  await source.release(snapshot);
  expect(checkpoint).toBeDefined();
  return checkpoint!;
}

async function point({ source }: Site): Promise<DiskSnapshot> {
  return (await source.snapshot(await source.machine("web"), { key: `run-${++runs}` })).disks[0]!;
}

async function tiles({ source }: Site, disk: DiskSnapshot, since?: string): Promise<Tile[]> {
  const all: Tile[] = [];
  for await (const tile of source.tracker!.changes(disk, { since })) all.push(tile);
  return all;
}

async function failureOf(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error: unknown = await work.then(
    () => new Error("resolved"),
    (thrown: unknown) => thrown,
  );
  return isProviderError(error) ? { code: error.code, message: error.message } : { code: String(error), message: "" };
}

const changed = (found: readonly Tile[]): [number, number][] =>
  found.filter(({ kind }) => kind === "changed").map(({ offset, length }) => [offset, length]);

test("what changed since the record is listed over many answers, and no more", async () => {
  const site = await start({}, { areaLimit: 3, spanLimit: mebi });
  const since = await recorded(site);
  const places = [0, 3, 5, 9, 17, 33, 40, 41, 60];
  for (const block of places)
    site.world.simulator.write("web", 2000, block * granularity + 512, randomBytes(512, block + 1));
  const before = site.world.simulator.calls.get("QueryChangedDiskAreas") ?? 0;
  const found = changed(await tiles(site, await point(site), since)).flatMap(([offset, length]) =>
    Array.from({ length: length / granularity }, (_, index) => offset / granularity + index),
  );
  expect(found).toEqual(places);
  expect((site.world.simulator.calls.get("QueryChangedDiskAreas") ?? 0) - before).toBeGreaterThan(4);
});

test("nothing is asked about what is not wanted", async () => {
  const site = await start();
  const since = await recorded(site);
  const disk = await point(site);
  for await (const _ of site.source.tracker!.changes(disk, { since, from: mebi, to: mebi })) expect.unreachable();
  for await (const tile of site.source.tracker!.changes(disk))
    expect(tile).toEqual({ offset: 0, length: size, kind: "changed" });
  expect(site.world.simulator.calls.get("QueryChangedDiskAreas")).toBeUndefined();
});

describe("tracking that cannot be trusted is TRACKING_LOST, with the reason", () => {
  test.for<[what: string, spoil: (site: Site) => void, reason: RegExp]>([
    ["a reset", ({ world }) => world.simulator.resetTracking("web"), /tracking began anew since the checkpoint/],
    [
      "a power failure",
      ({ world }) => {
        world.simulator.powerFailure("web");
        world.simulator.machine("web").powerOn();
      },
      /tracking began anew since the checkpoint: a power failure/,
    ],
    ["growth", ({ world }) => world.simulator.grow("web", 2000, size + mebi), /was 4194816 bytes and is 5243392 bytes/],
    [
      "tracking turned off",
      ({ world }) => {
        world.simulator.machine("web").setTracking(false);
        world.simulator.migrate("web");
      },
      /no change id for this disk/,
    ],
  ])("%s", async ([, spoil, reason]) => {
    const site = await start();
    const since = await recorded(site);
    spoil(site);
    const disk = await point(site);
    const found = await failureOf(tiles(site, disk, since));
    expect(found.code).toBe("TRACKING_LOST");
    expect(found.message).toMatch(reason);
    expect(found.message).toContain("disk 2000 (Hard disk 1) of web");
  });

  test("growth that the platform's tracker overlooks (KB 2090639)", async () => {
    const site = await start({}, { bugs: ["wrong-areas-after-growth"] });
    const since = await recorded(site);
    site.world.simulator.grow("web", 2000, size + mebi);
    expect((await failureOf(tiles(site, await point(site), since))).code).toBe("TRACKING_LOST");
  });

  test.for<[fault: string, code: string]>([
    ["FileFault", "TRACKING_LOST"],
    ["InvalidArgument", "TRACKING_LOST"],
    ["NotFound", "NOT_FOUND"],
    ["SystemError", "TRACKING_LOST"],
    ["SomethingNew", "TRACKING_LOST"],
    ["NoPermission", "DENIED"],
    ["HostCommunication", "UNAVAILABLE"],
    ["HostNotConnected", "UNAVAILABLE"],
    ["TaskInProgress", "IN_USE"],
    ["Timedout", "TRACKING_LOST"],
  ])("the fault %s is %s", async ([type, code]) => {
    const site = await start({}, { faults: [{ method: "QueryChangedDiskAreas", action: { kind: "fault", type } }] });
    const since = await recorded(site);
    expect((await failureOf(tiles(site, await point(site), since))).code).toBe(code);
  });

  test("a missing privilege is named, and is no reason to compare everything each night", async () => {
    const site = await start({}, { missingPrivileges: ["VirtualMachine.Provisioning.DiskRandomRead"] });
    const since = await recorded(site);
    const found = await failureOf(tiles(site, await point(site), since));
    expect(found.code).toBe("DENIED");
    expect(found.message).toContain("VirtualMachine.Provisioning.DiskRandomRead");
  });

  test("what merely passes is tried again by the client, and nothing is lost", async () => {
    const busy = { kind: "status", status: 503, headers: { "retry-after": "0" } } as const;
    const site = await start({}, { faults: [{ method: "QueryChangedDiskAreas", times: 2, action: busy }] });
    const since = await recorded(site);
    site.world.simulator.write("web", 2000, 0, randomBytes(512, 1));
    expect(changed(await tiles(site, await point(site), since))).toEqual([[0, granularity]]);
  });

  test("a checkpoint of another slot, machine or tracker", async () => {
    const site = await start();
    const since = await recorded(site);
    const disk = await point(site);
    for (const token of [since.replace('"2000"', '"2001"'), "cbt0:old", since.replace(/\/\d+"/, '/999999"')]) {
      expect((await failureOf(tiles(site, disk, token))).code, token).toBe("TRACKING_LOST");
    }
  });
});

describe("snapshots of others beneath a run's own", () => {
  const take = async ({ source }: Site, job: string): Promise<Snapshot> =>
    source.snapshot(await source.machine("web"), { key: `${job}-${++runs}`, job });

  test.for<[string, (site: Site) => Promise<unknown>]>([
    ["another job's", (site) => take(site, "weekly")],
    ["a lost run's of the same job, where sweeping is off", (site) => take(site, "nightly")],
    ["somebody's", (site) => Promise.resolve(site.world.simulator.takeSnapshot("web", "before the upgrade"))],
  ])("%s, made since the checkpoint, is TRACKING_LOST until a run was recorded over it", async ([, disturb]) => {
    const site = await start({}, {}, { snapshots: { sweep: false } });
    const first = await take(site, "nightly");
    const since = await site.source.tracker!.checkpoint(first.disks[0]!);
    await site.source.release(first);
    await disturb(site);
    const second = await take(site, "nightly");
    const found = await failureOf(tiles(site, second.disks[0]!, since));
    expect(found.code).toBe("TRACKING_LOST");
    expect(found.message).toMatch(/the snapshot snapshot-\d+ was made beneath this one, and is still there/);
    const next = await site.source.tracker!.checkpoint(second.disks[0]!);
    await site.source.release(second);
    site.world.simulator.write("web", 2000, 0, randomBytes(512, 1));
    const third = await take(site, "nightly");
    expect(changed(await tiles(site, third.disks[0]!, next))).toEqual([[0, granularity]]);
  });

  test("one that is gone again is no reason to compare everything", async () => {
    const site = await start();
    const since = await recorded(site);
    const theirs = await take(site, "weekly");
    site.world.simulator.write("web", 2000, 0, randomBytes(512, 1));
    await site.source.release(theirs);
    expect(changed(await tiles(site, await point(site), since))).toEqual([[0, granularity]]);
  });

  test("one from before tracking began makes it worthless, whoever turned it on, until it is removed", async () => {
    const site = await start({ tracking: false });
    const machine = site.world.simulator.machine("web");
    const old = site.world.simulator.takeSnapshot("web", "before the upgrade");
    // Somebody else turns tracking on, which vSphere 6.5 and newer do not refuse.
    machine.setTracking(true);
    const epoch = "52dec0d9-2c0b-7f1a-8d15-2f6e421190ab";
    machine.disks.get(2000)!.tracker = { epoch, sequence: 1, wildcardValid: false };
    const first = await take(site, "nightly");
    expect(first.disks[0]!.data?.["changeId"]).toMatch(/^52 de c0/);
    expect(await site.source.tracker!.checkpoint(first.disks[0]!)).toBeUndefined();
    expect(site.world.notices.join("\n")).toMatch(/gets no checkpoint: tracking began when .*remove that snapshot/);
    await site.source.release(first);
    site.world.simulator.removeSnapshot(old);
    expect(await site.source.tracker!.checkpoint((await take(site, "nightly")).disks[0]!)).toBeDefined();
  });

  test("one from before tracking began is found also where the session has ended", async () => {
    const site = await start();
    site.world.simulator.takeSnapshot("web", "before the upgrade");
    const first = await take(site, "nightly");
    const checkpoint = await site.source.tracker!.checkpoint(first.disks[0]!);
    await site.source.release(first);
    const second = await take(site, "nightly");
    // Tracking of the snapshot beneath is of another epoch than that of the two above.
    const old = site.world.simulator.machine("web").roots[0]!.disks;
    old.set(2000, { ...old.get(2000)!, changeId: { epoch: "52dec0d9-2c0b-7f1a-8d15-2f6e421190ab", sequence: 1 } });
    site.world.simulator.expireSessions();
    const found = await failureOf(tiles(site, second.disks[0]!, checkpoint));
    expect(found.message).toMatch(/tracking began when the snapshot snapshot-\d+ was there already/);
    expect(found.code).toBe("TRACKING_LOST");
  });

  test.for([
    ["as they were", 0, /as after a revert/],
    ["and counts on past the checkpoint", 3, /goes on in another file .* as after a revert/],
  ] as const)("a revert that leaves the epoch and the count %s is TRACKING_LOST", async ([, further, reason]) => {
    const site = await start();
    const machine = site.world.simulator.machine("web");
    site.world.simulator.takeSnapshot("web", "before the upgrade");
    const before = machine.disks.get(2000)!.tracker;
    const standing = { ...before! };
    site.world.simulator.write("web", 2000, 0, randomBytes(512, 1));
    const first = await take(site, "nightly");
    const since = await site.source.tracker!.checkpoint(first.disks[0]!);
    await site.source.release(first);
    machine.revert(machine.currentSnapshot!);
    // A tracker that went back with its disk and counts on from there (KB 1021607).
    machine.disks.get(2000)!.tracker = { ...standing, sequence: standing.sequence + further };
    const found = await failureOf(tiles(site, (await take(site, "nightly")).disks[0]!, since));
    expect(found.code).toBe("TRACKING_LOST");
    expect(found.message).toMatch(reason);
  });
});

describe("tracking is turned on", () => {
  const untracked = { tracking: false };

  test("on a running machine by a snapshot that is removed at once, for every disk that may be copied", async () => {
    const site = await start({
      ...untracked,
      disks: [{ size }, { size: mebi }, { size: mebi, mode: "independent_persistent" }],
    });
    const { source, world } = site;
    await source.tracker!.enable!(await source.machine("web"));
    expect(world.snapshots()).toEqual([]);
    const snapshot = await source.snapshot(await source.machine("web"), { key: "run" });
    for (const disk of snapshot.disks) expect(await source.tracker!.checkpoint(disk), disk.disk).toBeDefined();
    expect(snapshot.disks).toHaveLength(2);
    expect(world.notices).toContain("web: change tracking was turned on");
  });

  test("once: where it runs already nothing is touched", async () => {
    const { source, world } = await start();
    await source.tracker!.enable!(await source.machine("web"));
    expect(world.simulator.calls.get("ReconfigVM_Task")).toBeUndefined();
    expect(world.simulator.calls.get("CreateSnapshot_Task")).toBeUndefined();
  });

  test("is told in one answer: supported, enabled, the newest change id, the machine's name and its power state", async () => {
    const { source, world } = await start({
      disks: [{ size }, { size: mebi, tracked: false }, { size: mebi, mode: "independent_persistent" }],
    });
    const machine = await source.machine("web");
    const status = (disk: string) => source.tracker!.status!(machine, disk);
    const changeId = expect.stringMatching(/^([0-9a-f]{2}[ -]){15}[0-9a-f]{2}\/\d+$/) as string;
    expect(await status("2000")).toEqual({
      supported: true,
      enabled: true,
      detail: expect.stringMatching(/^at /) as string,
      machine: "web",
      power: "on",
      changeId,
    });
    world.simulator.machine("web").shutDown();
    expect(await status("2000")).toMatchObject({ enabled: true, power: "off", changeId });
    const off = await status("2001");
    expect(off).toMatchObject({ supported: true, enabled: false, machine: "web", power: "off" });
    expect(off.changeId).toBeUndefined();
    expect(await status("2002")).toMatchObject({
      supported: false,
      enabled: false,
      machine: "web",
      detail: expect.stringMatching(/independent/) as string,
    });
  });

  test("is not begun anew where the options forbid it", async () => {
    const { world } = await start();
    const source = await world.source({ tracking: { reset: false } });
    const machine = await source.machine("web");
    await expect(source.tracker!.reset!(machine)).rejects.toMatchObject({ code: "UNSUPPORTED" });
    expect(world.simulator.calls.get("ReconfigVM_Task")).toBeUndefined();
  });

  test("also for a single disk that the machine's flag left out", async () => {
    const { source, world } = await start({ disks: [{ size }, { size: mebi, tracked: false }] });
    const machine = await source.machine("web");
    expect(await source.tracker!.status!(machine, "2001")).toMatchObject({ supported: true, enabled: false });
    expect((await source.tracker!.status!(machine, "2001")).detail).toContain("scsi0:1.ctkEnabled is FALSE");
    await source.tracker!.enable!(machine);
    expect(await source.tracker!.status!(machine, "2001")).toMatchObject({ supported: true, enabled: true });
    expect(world.snapshots()).toEqual([]);
  });

  test.for<[what: string, machine: Partial<MachineSpec>, options: Partial<VsphereOptions>, why: RegExp]>([
    ["the hardware is too old", { ...untracked, hardware: 4 }, {}, /hardware version is older than 7/],
    ["the options forbid it", untracked, { tracking: { enable: false } }, /tracking.enable is false/],
    [
      "the machine runs and the options forbid that",
      untracked,
      { tracking: { enableOnRunning: false } },
      /enableOnRunning is false/,
    ],
  ])("not where %s: a notice says so, and runs go on without", async ([, machine, options, why]) => {
    const { source, world } = await start(machine, {}, options);
    await source.tracker!.enable!(await source.machine("web"));
    expect(world.notices.join("\n")).toMatch(why);
    expect(world.simulator.calls.get("ReconfigVM_Task")).toBeUndefined();
    const snapshot = await source.snapshot(await source.machine("web"), { key: "run" });
    expect(await source.tracker!.checkpoint(snapshot.disks[0]!)).toBeUndefined();
  });

  test("not while snapshots exist, whose deltas would not be in the map", async () => {
    const { source, world } = await start(untracked);
    world.simulator.takeSnapshot("web", "before the upgrade");
    await source.tracker!.enable!(await source.machine("web"));
    expect(world.notices.join("\n")).toMatch(/has 1 snapshots; remove them/);
    expect(world.snapshots()).toEqual(["before the upgrade"]);
  });

  test.for([
    "VirtualMachine.Config.ChangeTracking",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.State.RemoveSnapshot",
  ])("not without %s, which is named with what to do before anything is changed", async (privilege) => {
    const { source, world } = await start(untracked, { missingPrivileges: [privilege] });
    const found = await failureOf(source.tracker!.enable!(await source.machine("web")));
    expect(found.code).toBe("DENIED");
    expect(found.message).toMatch(/add that to its role/);
    expect(found.message).toContain(privilege);
    expect(world.simulator.calls.get("ReconfigVM_Task")).toBeUndefined();
    expect(world.simulator.calls.get("CreateSnapshot_Task")).toBeUndefined();
  });

  test("the snapshot that begins tracking is removed also where making it broke off", async () => {
    const drop = { kind: "drop-after" } as const;
    const { source, world } = await start(untracked, {
      faults: [{ method: "CreateSnapshot_Task", times: 1, action: drop }],
    });
    await source.tracker!.enable!(await source.machine("web"));
    expect(world.snapshots()).toEqual([]);
  });
});

test("a reset makes every earlier checkpoint worthless and begins at once", async () => {
  const site = await start();
  const since = await recorded(site);
  await site.source.tracker!.reset!(await site.source.machine("web"));
  expect(site.world.snapshots()).toEqual([]);
  expect((await failureOf(tiles(site, await point(site), since))).code).toBe("TRACKING_LOST");
  const { source } = site;
  expect(await source.tracker!.status!(await source.machine("web"), "2000")).toMatchObject({ enabled: true });
});

describe("tracking that is on and does not answer is begun anew with the next run", () => {
  const broken = { method: "QueryChangedDiskAreas", calls: [1], action: { kind: "fault", type: "FileFault" } } as const;
  const findBroken = async (site: Site): Promise<string> => {
    const since = await recorded(site);
    const snapshot = await site.source.snapshot(await site.source.machine("web"), { key: "broken" });
    const found = await failureOf(tiles(site, snapshot.disks[0]!, since));
    expect(found.message).toMatch(/tracking is on and does not answer/);
    await site.source.release(snapshot);
    return since;
  };

  test("and works then", async () => {
    const site = await start({}, { faults: [broken] });
    const since = await findBroken(site);
    await site.source.tracker!.enable!(await site.source.machine("web"));
    expect(site.world.notices.join("\n")).toMatch(/found broken and is begun anew/);
    expect((await failureOf(tiles(site, await point(site), since))).code).toBe("TRACKING_LOST");
    const fresh = await recorded(site);
    site.world.simulator.write("web", 2000, 0, randomBytes(512, 1));
    expect(changed(await tiles(site, await point(site), fresh))).toEqual([[0, granularity]]);
  });

  test.for(["Timedout", "SystemError", "HostCommunication"])(
    "and is left alone where %s tells of something else",
    async (type) => {
      const site = await start(
        {},
        { faults: [{ method: broken.method, calls: [1], action: { kind: "fault", type } }] },
      );
      const since = await recorded(site);
      const snapshot = await site.source.snapshot(await site.source.machine("web"), { key: "passing" });
      expect((await failureOf(tiles(site, snapshot.disks[0]!, since))).code).toMatch(/TRACKING_LOST|UNAVAILABLE/);
      await site.source.release(snapshot);
      await site.source.tracker!.enable!(await site.source.machine("web"));
      expect(site.world.simulator.calls.get("ReconfigVM_Task")).toBeUndefined();
      site.world.simulator.write("web", 2000, 0, randomBytes(512, 1));
      expect(changed(await tiles(site, await point(site), since))).toEqual([[0, granularity]]);
    },
  );

  test("not under a machine that runs, where the options forbid its stun, and once it is off", async () => {
    const site = await start({}, { faults: [broken] }, { tracking: { enableOnRunning: false } });
    await findBroken(site);
    await site.source.tracker!.enable!(await site.source.machine("web"));
    expect(site.world.notices.join("\n")).toMatch(/is broken; .* tracking.enableOnRunning is false/);
    expect((await failureOf(site.source.tracker!.reset!(await site.source.machine("web")))).code).toBe("UNSUPPORTED");
    expect(site.world.simulator.calls.get("ReconfigVM_Task")).toBeUndefined();
    site.world.simulator.machine("web").shutDown();
    await site.source.tracker!.enable!(await site.source.machine("web"));
    expect(site.world.notices.join("\n")).toMatch(/found broken and is begun anew/);
  });

  test("unless snapshots are in the way, or the options forbid it", async () => {
    const site = await start({}, { faults: [broken] });
    await findBroken(site);
    site.world.simulator.takeSnapshot("web", "somebody's");
    await site.source.tracker!.enable!(await site.source.machine("web"));
    expect(site.world.notices.join("\n")).toMatch(/remove its 1 snapshots, then it is begun anew/);
    const strict = await start({}, { faults: [broken] }, { tracking: { reset: false } });
    await findBroken(strict);
    await strict.source.tracker!.enable!(await strict.source.machine("web"));
    for (const { world } of [site, strict]) expect(world.simulator.calls.get("ReconfigVM_Task")).toBeUndefined();
  });
});

test("the status tells whether a disk can be tracked, is, and at which change id", async () => {
  const { source } = await start();
  const status = await source.tracker!.status!(await source.machine("web"), "2000");
  expect(status).toMatchObject({ supported: true, enabled: true });
  expect(status.detail).toMatch(/^at ([0-9a-f]{2} ?){8}-([0-9a-f]{2} ?){8}\/\d+$/);
  expect(await source.tracker!.status!(await source.machine("web"), "2009")).toMatchObject({ supported: false });
});

describe("`*` is asked only where it lists what is allocated, and where the options want it", () => {
  const wanted = { tracking: { allocated: true } };
  const listing = async (
    machine: Partial<MachineSpec>,
    simulated: VcenterSimulatorOptions,
    options: Partial<VsphereOptions>,
  ) => {
    const site = await start(machine, simulated, options);
    site.world.simulator.write("web", 2000, mebi, randomBytes(512, 1));
    const found = await tiles(site, await point(site));
    return { found, asked: site.world.simulator.calls.get("QueryChangedDiskAreas") !== undefined };
  };

  test("a thin disk on VMFS", async () => {
    const { found, asked } = await listing({}, {}, wanted);
    expect(asked).toBe(true);
    const listed = changed(found);
    expect([listed[0]?.[0], listed.reduce((sum, [, length]) => sum + length, 0)]).toEqual([mebi, granularity]);
    expect(found.every(({ kind }) => kind !== "unchanged")).toBe(true);
  });

  test.for<[string, Partial<MachineSpec>, VcenterSimulatorOptions, Partial<VsphereOptions>]>([
    ["not without being asked for", {}, {}, {}],
    ["not on NFS", {}, { datastoreType: "NFS" }, wanted],
    ["not for a thick disk", { disks: [{ size, thin: false }] }, {}, wanted],
    ["not for a raw device", { disks: [{ size, backing: "rdm-virtual" }] }, {}, wanted],
    ["not without tracking", { tracking: false }, {}, wanted],
  ])("%s", async ([, machine, simulated, options]) => {
    const { found, asked } = await listing(machine, simulated, options);
    expect(asked).toBe(false);
    expect(found).toEqual([{ offset: 0, length: size, kind: "changed" }]);
  });
});
