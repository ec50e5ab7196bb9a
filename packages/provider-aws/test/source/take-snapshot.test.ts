import { expect, test, vi } from "vitest";
import { AwsConnection } from "../../src/connection/connection.ts";
import { type SnapshotFacts, findSnapshots } from "../../src/source/snapshot-facts.ts";
import { type AwsWorld, awsWorld, gather, randomBlock } from "../aws-world.ts";
import { place } from "./taken.ts";

async function all(world: AwsWorld): Promise<SnapshotFacts[]> {
  await using connection = await AwsConnection.open(world.options());
  return gather(findSnapshots(connection, {}));
}

test("tags and description are in the call that makes the snapshots of all volumes at once", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { product: "acme", tags: { Team: "storage" } });
  const snapshot = await it.source.snapshot(it.machine, { key: "k", job: "nightly" });
  expect(snapshot.disks.length).toBe(3);
  expect(snapshot.consistency).toBe("crash");
  for (const { tags, description } of await all(world)) {
    expect(description).toBe(`acme incremental backup snapshot of ${it.machine.id}`);
    expect(tags).toMatchObject({ CreatedBy: "acme", Purpose: "Backup", Team: "storage", "acme:job": "nightly" });
  }
  const { faults } = world.simulator;
  expect(faults.counters()).toMatchObject({ CreateSnapshots: 1 });
  expect(faults.counters()["CreateTags"]).toBeUndefined();
});

test("an answer that was lost makes no second snapshot", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  world.simulator.faults.add({ fault: "truncate", operation: "CreateSnapshots", times: 1 });
  const snapshot = await it.snapshot("once");
  expect(world.simulator.faults.counters()["CreateSnapshots"]).toBe(1);
  expect((await all(world)).map(({ id }) => id).sort()).toEqual(snapshot.disks.map(({ id }) => id).sort());
});

test("who was killed between call and answer finds the snapshot again by its key", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { retryBudgetMs: 0 });
  world.simulator.faults.add({ fault: "truncate", operation: "CreateSnapshots", times: 1 });
  await expect(it.snapshot("killed")).rejects.toMatchObject({ retryable: true });
  await it.write(0, randomBlock());
  await using again = await place(world);
  const snapshot = await again.snapshot("killed");
  expect((await all(world)).map(({ id }) => id).sort()).toEqual(snapshot.disks.map(({ id }) => id).sort());
});

test("two who ask at once for the same key get the same snapshot, and one set stays", async () => {
  await using world = await awsWorld();
  await using one = await place(world);
  await using other = await place(world);
  const [first, second] = await Promise.all([one.snapshot("both"), other.snapshot("both")]);
  expect(second.id).toBe(first.id);
  expect((await all(world)).length).toBe(3);
});

test("chosen disks alone are in the snapshot, with the root or without, and excluded ones never", async () => {
  await using world = await awsWorld();
  const [root, second, third] = world.simulator.volumesOf(world.simulator.instances.linux);
  await using it = await place(world, { source: { exclude: ["/dev/sdg"] } });
  const disksOf = async (disks?: string[]): Promise<string[]> => {
    const snapshot = await it.source.snapshot(it.machine, { key: `of ${disks?.join()}`, disks });
    return snapshot.disks.map(({ disk }) => disk).sort();
  };
  expect(await disksOf()).toEqual([root!, second!].sort());
  expect(await disksOf([root!])).toEqual([root]);
  expect(await disksOf([second!])).toEqual([second]);
  await expect(disksOf([third!])).rejects.toMatchObject({
    code: "UNSUPPORTED",
    message: expect.stringContaining("source.exclude") as string,
  });
  await expect(disksOf(["vol-0123456789abcdef0"])).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("what EC2 calls completed and the direct APIs do not know yet is waited for", async () => {
  await using world = await awsWorld({ delays: { listableMs: 120_000 } });
  await using it = await place(world, { timeouts: { visibleMs: 60_000 } });
  const lists = (): number => world.simulator.faults.counters()["ListSnapshotBlocks"] ?? 0;
  const waiting = it.point();
  await vi.waitFor(() => expect(lists()).toBeGreaterThan(1), 30_000);
  world.simulator.advance(120_000);
  expect((await gather(it.source.tracker!.changes(await waiting))).length).toBe(1);
});

test("a snapshot that takes longer than allowed is an error that says where it goes on", async () => {
  await using world = await awsWorld({ delays: { completeMs: 60_000 } });
  await using it = await place(world, { timeouts: { snapshotMs: 50 } });
  await expect(it.snapshot("slow")).rejects.toMatchObject({
    code: "UNAVAILABLE",
    retryable: false,
    message: expect.stringContaining("timeouts.snapshotMs") as string,
  });
});

test("throttled calls of the control plane are repeated within the budget", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  for (const operation of ["DescribeSnapshots", "CreateSnapshots", "DescribeInstances"])
    world.simulator.faults.add({ fault: "throttle", operation, times: 2 });
  expect((await it.snapshot()).disks.length).toBe(3);
  expect(world.simulator.faults.counters()["CreateSnapshots"]).toBe(3);
});

test("a bare volume and an existing snapshot are machines of one disk, and the latter is never released", async () => {
  await using world = await awsWorld();
  const volume = world.simulator.addSyntheticVolume({ sizeGib: 1, stride: 1000 });
  await using it = await place(world);
  expect((await gather(it.source.machines())).map(({ id }) => id)).toContain(volume);
  const machine = await it.source.machine(volume);
  const snapshot = await it.source.snapshot(machine, { key: "bare" });
  expect(snapshot).toMatchObject({ consistency: "crash", disks: [{ disk: volume }] });
  const id = snapshot.disks[0]!.id;
  const existing = await it.source.machine(id);
  expect(existing.disks.map(({ key }) => key)).toEqual([id]);
  const again = await it.source.snapshot(existing, { key: "again" });
  expect(again).toMatchObject({ id, key: "again", disks: [{ id, disk: id }] });
  await it.source.release(again);
  expect((await all(world)).map((each) => each.id)).toEqual([id]);
  await it.source.release(snapshot);
  expect(await all(world)).toEqual([]);
});
