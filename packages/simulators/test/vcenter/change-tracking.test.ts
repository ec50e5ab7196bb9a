import { afterEach, describe, expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { VcenterSimulator, VcenterSimulatorOptions } from "../../src/vcenter/vcenter-simulator.ts";
import { startVcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import { VimClient } from "./vim-client.ts";

const grain = 65536;
const mebibyte = 1 << 20;
const disk = 2000;
const open: VcenterSimulator[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each.stop();
});

/** A machine `web` with one tracked disk of 8 MiB, and a client that is logged in. */
async function start(
  options: VcenterSimulatorOptions = {},
): Promise<{ simulator: VcenterSimulator; client: VimClient; vm: string }> {
  const simulator = await startVcenterSimulator({
    tls: false,
    machines: [{ name: "web", tracking: true, disks: [{ size: 8 * mebibyte }] }],
    ...options,
  });
  open.push(simulator);
  const client = await new VimClient(simulator).login();
  return { simulator, client, vm: simulator.machine("web").id };
}

/** A snapshot with its change id, removed again. */
async function record(client: VimClient, vm: string): Promise<string> {
  const snapshot = await client.snapshot(vm);
  const changeId = await client.changeId(snapshot, disk);
  await client.remove(snapshot);
  expect(changeId).toMatch(/^([0-9a-f]{2} ){7}[0-9a-f]{2}-([0-9a-f]{2} ){7}[0-9a-f]{2}\/\d+$/);
  return changeId ?? "";
}

const fileFault = expect.objectContaining({ type: "FileFault" }) as Error;
const invalidArgument = expect.objectContaining({ type: "InvalidArgument" }) as Error;

describe("enabling", () => {
  const untracked = { machines: [{ name: "web", disks: [{ size: 8 * mebibyte }] }] };

  test("has no effect before a stun: the snapshot that is the stun has no change id, the next one has", async () => {
    const { client, vm } = await start(untracked);
    await client.enableTracking(vm);
    const flag = await client.properties(["VirtualMachine", vm], "config.changeTrackingEnabled");
    expect(flag.get("config.changeTrackingEnabled")?.text).toBe("true");
    const first = await client.snapshot(vm);
    expect(await client.changeId(first, disk)).toBeUndefined();
    await expect(client.areas(vm, first, disk, "*")).rejects.toEqual(fileFault);
    await client.remove(first);
    expect(await client.changeId(await client.snapshot(vm), disk)).toBeDefined();
  });

  test("can be made to work at once in the snapshot that is the stun", async () => {
    const { client, vm } = await start({ ...untracked, firstSnapshotIsTracked: true });
    await client.enableTracking(vm);
    expect(await client.changeId(await client.snapshot(vm), disk)).toBeDefined();
  });

  test("has no effect while the machine has snapshots", async () => {
    const { client, vm } = await start(untracked);
    const old = await client.snapshot(vm);
    await client.enableTracking(vm);
    const second = await client.snapshot(vm);
    expect(await client.changeId(second, disk)).toBeUndefined();
    expect(await client.changeId(await client.snapshot(vm), disk)).toBeUndefined();
    for (const id of [...(await tree(client, vm))].toReversed()) await client.remove(id);
    expect(await tree(client, vm)).not.toContain(old);
    // Removing the last snapshot was the stun.
    expect(await client.changeId(await client.snapshot(vm), disk)).toBeDefined();
  });

  test("skips independent, physically mapped, shared and excluded disks", async () => {
    const size = mebibyte;
    const { client, vm } = await start({
      machines: [
        {
          name: "web",
          disks: [
            { size },
            { size, mode: "independent_persistent" },
            { size, backing: "rdm-physical" },
            { size, shared: true },
            { size, tracked: false },
          ],
          tracking: true,
        },
      ],
    });
    const snapshot = await client.snapshot(vm);
    const ids = await Promise.all([2000, 2001, 2002, 2003, 2004].map((key) => client.changeId(snapshot, key)));
    expect(ids.map((id) => id !== undefined)).toEqual([true, false, false, false, false]);
  });

  test("is refused by hardware older than version 7", async () => {
    const { client, vm } = await start({ machines: [{ name: "web", hardware: 4, disks: [{ size: mebibyte }] }] });
    await expect(client.enableTracking(vm)).rejects.toMatchObject({ type: "NotSupported" });
  });
});

/** The ids of the snapshots of a machine, parents first. */
async function tree(client: VimClient, vm: string): Promise<string[]> {
  const found = (await client.properties(["VirtualMachine", vm], "snapshot")).get("snapshot");
  const ids: string[] = [];
  for (let level = found?.all("rootSnapshotList") ?? []; level.length > 0;) {
    ids.push(...level.map((each) => each.string("snapshot") ?? ""));
    level = level.flatMap((each) => each.all("childSnapshotList"));
  }
  return ids;
}

describe("changes since a change id", () => {
  test("are exactly the blocks written between two snapshots, whole and in order", async () => {
    const { simulator, client, vm } = await start();
    simulator.write(vm, disk, 0, randomBytes(grain, 1));
    const since = await record(client, vm);
    simulator.write(vm, disk, 3 * grain + 5, randomBytes(10, 2));
    simulator.write(vm, disk, 5 * grain - 1, randomBytes(2, 3));
    const snapshot = await client.snapshot(vm);
    simulator.write(vm, disk, 20 * grain, randomBytes(512, 4));
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[3 * grain, 3 * grain]]);
  });

  test("include what was written while the base snapshot was still there", async () => {
    const { simulator, client, vm } = await start();
    const base = await client.snapshot(vm);
    const since = (await client.changeId(base, disk)) ?? "";
    simulator.write(vm, disk, 7 * grain, randomBytes(512, 1));
    await client.remove(base);
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[7 * grain, grain]]);
  });

  test("include trimmed ranges, which read as zeroes", async () => {
    const { simulator, client, vm } = await start();
    simulator.write(vm, disk, 0, randomBytes(4 * grain, 1));
    const since = await record(client, vm);
    simulator.trim(vm, disk, grain, 2 * grain);
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[grain, 2 * grain]]);
    const bytes = simulator.readDisk(vm, disk, { snapshot, length: 4 * grain });
    expect(bytes.subarray(grain, 3 * grain).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(0, grain).every((byte) => byte === 0)).toBe(false);
  });

  test("are told for each disk by its own change id", async () => {
    const { simulator, client, vm } = await start({
      machines: [{ name: "web", tracking: true, disks: [{ size: mebibyte }, { size: mebibyte }] }],
    });
    const base = await client.snapshot(vm);
    const [first, second] = [await client.changeId(base, 2000), await client.changeId(base, 2001)];
    await client.remove(base);
    simulator.write(vm, 2001, grain, randomBytes(512, 1));
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, 2000, first ?? "")).toEqual([]);
    expect(await client.allAreas(vm, snapshot, 2001, second ?? "")).toEqual([[grain, grain]]);
    await expect(client.areas(vm, snapshot, 2000, second ?? "")).rejects.toEqual(fileFault);
  });

  test("come in slices of the disk even where nothing changed", async () => {
    const { client, vm } = await start();
    const since = await record(client, vm);
    const snapshot = await client.snapshot(vm);
    const page = await client.areas(vm, snapshot, disk, since);
    expect(page).toEqual({ startOffset: 0, length: 2 * mebibyte, areas: [] });
    expect(await client.areas(vm, snapshot, disk, since, 6 * mebibyte)).toMatchObject({ length: 2 * mebibyte });
  });

  test("come in answers of at most so many areas, which end where the next area begins", async () => {
    const { simulator, client, vm } = await start({ areaLimit: 3, spanLimit: 8 * mebibyte });
    const since = await record(client, vm);
    for (let index = 0; index < 8; index++) simulator.touch(vm, disk, index * 2 * grain, 512);
    const snapshot = await client.snapshot(vm);
    const page = await client.areas(vm, snapshot, disk, since);
    expect(page).toEqual({
      startOffset: 0,
      length: 6 * grain,
      areas: [0, 2, 4].map((index) => [index * grain, grain]),
    });
    expect(await client.allAreas(vm, snapshot, disk, since)).toHaveLength(8);
  });

  test("are rounded to larger blocks on larger disks", async () => {
    const { simulator, client, vm } = await start({
      version: "6.7",
      machines: [{ name: "web", tracking: true, disks: [{ size: 2 ** 40 }] }],
    });
    const since = await record(client, vm);
    simulator.touch(vm, disk, 2 ** 39 + 12_345, 1);
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[2 ** 39, 8 * grain]]);
  });

  test("may name more than what changed, never less", async () => {
    const { simulator, client, vm } = await start({ overReport: 0.5 });
    const since = await record(client, vm);
    simulator.write(vm, disk, 9 * grain, randomBytes(512, 1));
    const snapshot = await client.snapshot(vm);
    const areas = await client.allAreas(vm, snapshot, disk, since);
    expect(areas.some(([start, length]) => start <= 9 * grain && start + length >= 10 * grain)).toBe(true);
    expect(areas.reduce((sum, [, length]) => sum + length, 0)).toBeGreaterThan(10 * grain);
  });

  test("end at the end of a disk that is no multiple of a block", async () => {
    const size = mebibyte + 512;
    const { simulator, client, vm } = await start({ machines: [{ name: "web", tracking: true, disks: [{ size }] }] });
    const since = await record(client, vm);
    simulator.write(vm, disk, mebibyte, randomBytes(512, 1));
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[mebibyte, 512]]);
  });
});

describe("a question that has no answer is a fault", () => {
  test("at or beyond the end of the disk", async () => {
    const { client, vm } = await start();
    const since = await record(client, vm);
    const snapshot = await client.snapshot(vm);
    await expect(client.areas(vm, snapshot, disk, since, 8 * mebibyte)).rejects.toEqual(invalidArgument);
    await expect(client.areas(vm, snapshot, 2005, since)).rejects.toEqual(invalidArgument);
    await expect(client.areas(vm, snapshot, disk, "nonsense")).rejects.toEqual(invalidArgument);
  });

  test("without a snapshot while the machine runs; powered off it is answered", async () => {
    const { simulator, client, vm } = await start();
    const since = await record(client, vm);
    simulator.write(vm, disk, grain, randomBytes(512, 1));
    await expect(client.areas(vm, undefined, disk, since)).rejects.toEqual(fileFault);
    await client.call("ShutdownGuest", ["VirtualMachine", vm]);
    await expect.poll(() => simulator.machine(vm).power).toBe("poweredOff");
    expect((await client.areas(vm, undefined, disk, since)).areas).toEqual([[grain, grain]]);
  });

  test("after a reset, a power failure, a hard power-off, growth and a revert", async () => {
    const breaks: ((simulator: VcenterSimulator, client: VimClient, vm: string) => unknown)[] = [
      (simulator, _client, vm) => simulator.resetTracking(vm),
      (simulator, _client, vm) => {
        simulator.powerFailure(vm);
        simulator.machine(vm).powerOn();
      },
      (_simulator, client, vm) => client.task("PowerOffVM_Task", ["VirtualMachine", vm]),
      (simulator, _client, vm) => simulator.grow(vm, disk, 9 * mebibyte),
      async (_simulator, client, vm) => {
        const snapshot = await client.snapshot(vm);
        await client.task("RevertToSnapshot_Task", ["VirtualMachineSnapshot", snapshot]);
      },
    ];
    for (const [index, happen] of breaks.entries()) {
      const { simulator, client, vm } = await start();
      const since = await record(client, vm);
      await happen(simulator, client, vm);
      const snapshot = await client.snapshot(vm);
      const now = await client.changeId(snapshot, disk);
      expect(now?.split("/")[0], `case ${index}`).not.toBe(since.split("/")[0]);
      await expect(client.areas(vm, snapshot, disk, since), `case ${index}`).rejects.toEqual(fileFault);
      await expect(client.areas(vm, snapshot, disk, now ?? ""), `case ${index}`).resolves.toBeDefined();
    }
  });

  test("a new epoch knows nothing of the changes of the last one", async () => {
    const { simulator, client, vm } = await start();
    simulator.write(vm, disk, 0, randomBytes(grain, 1));
    await record(client, vm);
    simulator.write(vm, disk, 2 * grain, randomBytes(grain, 2));
    await record(client, vm);
    simulator.write(vm, disk, 4 * grain, randomBytes(grain, 3));
    simulator.resetTracking(vm);
    const since = await record(client, vm);
    simulator.write(vm, disk, 6 * grain, randomBytes(grain, 4));
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[6 * grain, grain]]);
  });

  test("for a change id that is younger than the snapshot", async () => {
    const { client, vm } = await start();
    const older = await client.snapshot(vm);
    const younger = await client.changeId(await client.snapshot(vm), disk);
    await expect(client.areas(vm, older, disk, younger ?? "")).rejects.toEqual(fileFault);
  });

  test("a clean shutdown and a migration keep the epoch", async () => {
    const { simulator, client, vm } = await start();
    const since = await record(client, vm);
    simulator.migrate(vm);
    simulator.machine(vm).shutDown();
    await client.task("PowerOnVM_Task", ["VirtualMachine", vm]);
    simulator.write(vm, disk, 0, randomBytes(512, 1));
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[0, grain]]);
  });
});

describe("the change id *", () => {
  const populated = async (options: VcenterSimulatorOptions): ReturnType<typeof start> => {
    const started = await start(options);
    started.simulator.write(started.vm, disk, 2 * grain, randomBytes(grain, 1));
    return started;
  };

  test("lists what is allocated on a thin disk on VMFS", async () => {
    const { client, vm } = await populated({});
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, "*")).toEqual([[2 * grain, grain]]);
  });

  test.for([
    ["on NFS", { datastoreType: "NFS" }],
    ["on vSAN", { datastoreType: "vsan" }],
    ["on a thick disk", { machines: [{ name: "web", tracking: true, disks: [{ size: 8 * mebibyte, thin: false }] }] }],
  ] as const)("is the whole disk %s, or a fault", async ([, options]) => {
    const { client, vm } = await populated(options);
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, "*")).toEqual([[0, 8 * mebibyte]]);
    const strict = await populated({ ...options, wildcardElsewhere: "fault" });
    const other = await strict.client.snapshot(strict.vm);
    await expect(strict.client.areas(strict.vm, other, disk, "*")).rejects.toEqual(fileFault);
  });
});

describe("bugs of old releases, where asked for", () => {
  test("lose changes while a snapshot is consolidated (KB 2136854)", async () => {
    const { simulator, client, vm } = await start({ bugs: ["changes-lost-in-consolidation"] });
    const base = await client.snapshot(vm);
    const since = (await client.changeId(base, disk)) ?? "";
    simulator.write(vm, disk, 0, randomBytes(2 * grain, 1));
    await client.remove(base);
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[0, grain]]);
  });

  test("report wrong areas after a disk grew (KB 2090639)", async () => {
    const { simulator, client, vm } = await start({ bugs: ["wrong-areas-after-growth"], spanLimit: 64 * mebibyte });
    const since = await record(client, vm);
    simulator.grow(vm, disk, 9 * mebibyte);
    simulator.write(vm, disk, 0, randomBytes(512, 1));
    simulator.write(vm, disk, 8 * mebibyte, randomBytes(512, 1));
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, disk, since)).toEqual([[0, grain]]);
  });
});

test("the order of steps that other tools had loses a write here as it did there", async () => {
  // Right: query against the previous id, record, remove, only then take the next. Wrong: the next id is taken from a
  // snapshot that is younger than the one whose areas were copied.
  const { simulator, client, vm } = await start();
  const since = await record(client, vm);
  const copied = await client.snapshot(vm);
  simulator.write(vm, disk, 4 * grain, randomBytes(512, 1));
  const next = await client.snapshot(vm);
  const wrong = (await client.changeId(next, disk)) ?? "";
  const right = (await client.changeId(copied, disk)) ?? "";
  expect(await client.allAreas(vm, copied, disk, since)).toEqual([]);
  await client.remove(copied);
  await client.remove(next);
  const last = await client.snapshot(vm);
  expect(await client.allAreas(vm, last, disk, wrong)).toEqual([]);
  expect(await client.allAreas(vm, last, disk, right)).toEqual([[4 * grain, grain]]);
});
