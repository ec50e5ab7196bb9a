import { isProviderError, type Snapshot, type SourceConnector } from "@diskferry/core/provider";
import type { MachineSpec, VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, describe, expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { readAll, snapshotIdOf, World } from "../world.ts";

const mebi = 1 << 20;
const size = 4 * mebi + 512;
const open: World[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]();
});

async function start(machine: Partial<MachineSpec> = {}, options: VcenterSimulatorOptions = {}): Promise<World> {
  const spec = { name: "web", disks: [{ size }, { size: mebi }], tracking: true, ...machine };
  const world = await World.start({ machines: [spec], ...options });
  open.push(world);
  return world;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => "resolved",
    (thrown: unknown) => thrown,
  );
  return isProviderError(error) ? error.code : String(error);
}

async function gather<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function take(
  source: SourceConnector,
  request: Partial<Parameters<SourceConnector["snapshot"]>[1]> = {},
): Promise<Snapshot> {
  return source.snapshot(await source.machine("web"), { key: "run-1", ...request });
}

test("one snapshot holds all disks at one moment, and its handle names machine, disks, sizes and change ids", async () => {
  const world = await start();
  const source = await world.source();
  world.simulator.write("web", 2000, 0, randomBytes(9000, 1));
  const snapshot = await take(source, { job: "nightly" });
  expect(world.snapshots()).toHaveLength(1);
  expect(snapshot.consistency).toBe("crash");
  expect(snapshot.id.startsWith(world.simulator.instanceUuid)).toBe(true);
  expect(snapshot.disks.map(({ disk, size: bytes }) => [disk, bytes])).toEqual([
    ["2000", size],
    ["2001", mebi],
  ]);
  expect(snapshot.disks[0]?.data?.["changeId"]).toMatch(/^([0-9a-f]{2} ?){8}-([0-9a-f]{2} ?){8}\/\d+$/);
  expect(new Date(snapshot.takenAt).getTime()).not.toBeNaN();
});

test("the change id is the snapshot's own, and not that of the machine which went on", async () => {
  const world = await start();
  const source = await world.source();
  const snapshot = await take(source);
  const before = snapshot.disks[0]?.data?.["changeId"];
  // Another snapshot moves the machine's own change id.
  world.simulator.takeSnapshot("web", "somebody's");
  const again = await take(source);
  expect(again.disks[0]?.data?.["changeId"]).toBe(before);
});

test("asked for again by its key, also after a restart, the same snapshot is found", async () => {
  const world = await start();
  const first = await take(await world.source(), { job: "nightly" });
  const again = await take(await world.source(), { job: "nightly" });
  expect(again).toEqual(first);
  expect(world.snapshots()).toHaveLength(1);
});

test("a snapshot whose creation broke off unheard is found, and not made twice", async () => {
  const world = await start(
    {},
    { faults: [{ method: "CreateSnapshot_Task", times: 1, action: { kind: "drop-after" } }] },
  );
  await take(await world.source(), { job: "nightly" });
  expect(world.snapshots()).toHaveLength(1);
  expect(world.simulator.calls.get("CreateSnapshot_Task")).toBe(1);
});

test("a machine that is busy is waited for", async () => {
  const busy = { kind: "task-fault", type: "TaskInProgress" } as const;
  const world = await start({}, { faults: [{ method: "CreateSnapshot_Task", times: 2, action: busy }] });
  await take(await world.source());
  expect(world.simulator.calls.get("CreateSnapshot_Task")).toBe(3);
});

test("two jobs on one machine know their own snapshots, and no foreign one is touched", async () => {
  const world = await start();
  const source = await world.source();
  world.simulator.takeSnapshot("web", "diskferry");
  const mine = await take(source, { key: "a", job: "nightly" });
  const other = await take(source, { key: "b", job: "weekly" });
  const owned = await gather(source.owned("nightly"));
  expect(owned.map(({ id }) => id)).toEqual([mine.data?.["snapshot"]]);
  await source.release(owned[0]!.snapshot!);
  await source.release(mine);
  expect(await gather(source.owned("nightly"))).toEqual([]);
  expect((await gather(source.owned("weekly"))).map(({ id }) => id)).toEqual([other.data?.["snapshot"]]);
  expect(world.snapshots()).toHaveLength(2);
});

test("a snapshot that merely looks like ours is not released", async () => {
  const world = await start();
  const source = await world.source();
  const mine = await take(source);
  const foreign = world.simulator.takeSnapshot("web", world.snapshots()[0]!);
  await source.release({ ...mine, key: "other", data: { ...mine.data, snapshot: foreign } });
  expect(world.snapshots()).toHaveLength(2);
});

test("a second snapshot of a job is not made before the first one is removed", async () => {
  const world = await start();
  const source = await world.source();
  const first = await take(source, { key: "run-1", job: "nightly" });
  const second = await take(await world.source(), { key: "run-2", job: "nightly" });
  expect(world.snapshots()).toHaveLength(1);
  expect(second.id).not.toBe(first.id);
  expect(world.notices.some((line) => line.includes("lost run of job nightly"))).toBe(true);
  expect(await codeOf(source.open(first.disks[0]!))).toBe("NOT_FOUND");
});

test("a release is over when the deltas are merged, and one that fails to merge is mended before the next snapshot", async () => {
  const world = await start();
  const source = await world.source();
  const first = await take(source, { job: "nightly" });
  world.simulator.write("web", 2000, 0, randomBytes(4096, 5));
  const machine = world.simulator.machine("web");
  machine.consolidationFails = true;
  await source.release(first);
  expect(world.snapshots()).toHaveLength(0);
  expect(machine.consolidationNeeded).toBe(true);
  expect(world.notices.some((line) => line.includes("needs its disks consolidated"))).toBe(true);
  expect(await codeOf(take(source, { key: "run-2", job: "nightly" }))).toBe("IN_USE");
  expect(world.snapshots()).toHaveLength(0);
  machine.consolidationFails = false;
  await take(source, { key: "run-2", job: "nightly" });
  expect(machine.consolidationNeeded).toBe(false);
});

test("a removal whose answer is lost is looked up, and not failed", async () => {
  const world = await start(
    {},
    { faults: [{ method: "RemoveSnapshot_Task", times: 1, action: { kind: "drop-after" } }] },
  );
  const source = await world.source();
  await source.release(await take(source));
  expect(world.snapshots()).toHaveLength(0);
});

test("a session that ended is no machine without snapshots: what is there is found, and released", async () => {
  const world = await start();
  const source = await world.source();
  const first = await take(source, { job: "nightly" });
  world.simulator.expireSessions();
  expect((await take(source, { job: "nightly" })).id).toBe(first.id);
  expect(world.snapshots()).toHaveLength(1);
  world.simulator.expireSessions();
  await source.release(first);
  expect(world.snapshots()).toEqual([]);
});

test("a role that may not see a machine's snapshots is told so, instead of finding none", async () => {
  const world = await start();
  const source = await world.source();
  const first = await take(source, { job: "nightly" });
  world.simulator.revokePrivilege("System.Read");
  expect(await codeOf(source.release(first))).toBe("DENIED");
  expect(world.snapshots()).toHaveLength(1);
});

test.for(["VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot"])(
  "without %s no snapshot is made that could not be removed again",
  async (privilege) => {
    const world = await start({}, { missingPrivileges: [privilege] });
    const error: unknown = await take(await world.source()).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "DENIED", message: expect.stringContaining(privilege) as string });
    expect(world.snapshots()).toEqual([]);
    expect(world.simulator.calls.get("CreateSnapshot_Task")).toBeUndefined();
  },
);

test("disks are chosen by key; unknown and ineligible ones are refused before anything is made", async () => {
  const world = await start({ disks: [{ size }, { size: mebi, mode: "independent_persistent" }] });
  const source = await world.source();
  expect((await take(source)).disks.map(({ disk }) => disk)).toEqual(["2000"]);
  await source.release(await take(source));
  expect(await codeOf(take(source, { disks: ["2009"] }))).toBe("CONFIG_INVALID");
  expect(await codeOf(take(source, { disks: ["2001"] }))).toBe("UNSUPPORTED");
  expect(world.snapshots()).toHaveLength(0);
});

test("a disk that a snapshot names and does not hold is refused, also where it was eligible when it was listed", async () => {
  const world = await start({ power: "poweredOff" });
  const source = await world.source();
  const listed = await source.machine("web");
  const held = await source.snapshot(listed, { key: "run-1" });
  await source.release(held);
  const disk = world.simulator.machine("web").disks.get(2001)!;
  disk.mode = "independent_persistent";
  const error: unknown = await source.snapshot(listed, { key: "run-2" }).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "UNSUPPORTED", message: expect.stringMatching(/2001.*independent/) as string });
  disk.mode = "persistent";
  const [point] = await gather(source.snapshots!(await source.machine("web")));
  expect(point?.disks.map((each) => each.disk)).toEqual(["2000"]);
  const forged = { ...held.disks[1]!, data: { ...held.disks[1]!.data, snapshot: snapshotIdOf(point!) } };
  expect(await codeOf(source.open(forged))).toBe("UNSUPPORTED");
});

test("a disk that was removed or resized since its snapshot is told", async () => {
  const world = await start();
  const source = await world.source();
  const [disk] = (await take(source)).disks;
  expect(await codeOf(source.open({ ...disk!, size: size + 512 }))).toBe("NOT_FOUND");
  expect(await codeOf(source.open({ ...disk!, data: { ...disk!.data, deviceKey: 2007 } }))).toBe("NOT_FOUND");
  expect(await codeOf(source.open({ ...disk!, data: {} }))).toBe("CONFIG_INVALID");
});

test("a handle of another vCenter, which calls another machine's snapshot by the same name, is refused", async () => {
  const here = await start();
  const there = await start();
  const snapshot = await take(await here.source());
  const other = await there.source();
  await take(other);
  expect(there.snapshots()).toHaveLength(1);
  expect(await codeOf(other.open(snapshot.disks[0]!))).toBe("NOT_FOUND");
  expect(await codeOf(other.release(snapshot))).toBe("NOT_FOUND");
  expect(await codeOf(other.tracker!.checkpoint(snapshot.disks[0]!))).toBe("NOT_FOUND");
  expect(there.snapshots()).toHaveLength(1);
});

describe("a guest is quiesced where that is asked for, and what was achieved is read back", () => {
  const windows = { guestId: "windows2019srv_64Guest", guestFullName: "Microsoft Windows Server 2019 (64-bit)" };

  test("VSS in a Windows guest makes it application-consistent", async () => {
    const world = await start(windows);
    const frozen: string[] = [];
    world.simulator.machine("web").onFreeze = () => {
      frozen.push("freeze");
      world.simulator.write("web", 2000, 0, randomBytes(512, 9));
    };
    const source = await world.source();
    const snapshot = await take(source, { consistency: "application" });
    expect(snapshot.consistency).toBe("application");
    expect(frozen).toHaveLength(1);
    expect(Buffer.compare((await readAll(source, snapshot.disks[0]!)).subarray(0, 512), randomBytes(512, 9))).toBe(0);
    expect(world.simulator.calls.get("CreateSnapshotEx_Task")).toBe(1);
  });

  test("a Linux guest is frozen", async () => {
    const world = await start();
    expect((await take(await world.source(), { consistency: "filesystem" })).consistency).toBe("filesystem");
    expect(world.simulator.calls.get("CreateSnapshotEx_Task")).toBe(1);
  });

  test("where the extended call does not exist, VMware Tools do it their way", async () => {
    const world = await start(
      {},
      { faults: [{ method: "CreateSnapshotEx_Task", action: { kind: "fault", type: "MethodNotFound" } }] },
    );
    expect((await take(await world.source(), { consistency: "filesystem" })).consistency).toBe("filesystem");
    expect(world.snapshots()).toHaveLength(1);
    expect(world.notices.some((line) => line.includes("trying quiescing by VMware Tools"))).toBe(true);
  });

  test("without being asked for, nothing freezes the guest", async () => {
    const world = await start();
    world.simulator.machine("web").onFreeze = () => expect.unreachable();
    expect((await take(await world.source())).consistency).toBe("crash");
  });

  test.for(["application-fault", "filesystem-fault", "ignored"] as const)(
    "a guest that does not come to rest (%s) fails what demanded it, and leaves no snapshot",
    async (quiesce) => {
      const world = await start({ quiesce });
      expect(await codeOf(take(await world.source(), { consistency: "filesystem" }))).toBe("UNAVAILABLE");
      expect(world.snapshots()).toHaveLength(0);
    },
  );

  test.for(["application-fault", "filesystem-fault", "ignored"] as const)(
    "where it was only wished for (%s), the snapshot is crash-consistent and a notice says so",
    async (quiesce) => {
      const world = await start({ quiesce });
      const source = await world.source({ snapshots: { quiesce: "auto" } });
      expect((await take(source)).consistency).toBe("crash");
      expect(world.snapshots()).toHaveLength(1);
      expect(world.notices.some((line) => /crash-consistent|come to rest/.test(line))).toBe(true);
    },
  );

  test("the policy may forbid another method", async () => {
    const world = await start({ quiesce: "application-fault" });
    const source = await world.source({ snapshots: { quiesce: "auto", onQuiesceFailure: "fail" } });
    expect(await codeOf(take(source))).toBe("UNAVAILABLE");
    expect(world.simulator.calls.get("CreateSnapshot_Task")).toBeUndefined();
  });

  test("a machine that shut down in order is application-consistent, one that lost its power is not", async () => {
    const world = await start();
    const source = await world.source();
    world.simulator.powerFailure("web");
    expect((await take(source, { key: "cut" })).consistency).toBe("crash");
    const machine = world.simulator.machine("web");
    machine.powerOn();
    machine.shutDown();
    expect((await take(source, { key: "clean", consistency: "application" })).consistency).toBe("application");
  });
});
