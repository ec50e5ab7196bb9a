import { CreateTagsCommand, DescribeSnapshotAttributeCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import type { Snapshot, SourceConnector } from "@diskferry/core/provider";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { type AwsOptions, copySnapshot, provider } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { type SnapshotFacts, findSnapshots } from "../../src/source/snapshot-facts.ts";
import { type AwsWorld, awsWorld, block, gather } from "../aws-world.ts";
import { killedAtEveryCall } from "../killed-at-every-call.ts";

// A process is killed after every single call of AWS: the call was done, its answer never read. Whoever comes next has to find
// what is there. No step is sampled: the scenario is repeated with one more call each time until none is left.

const seed = seedOf(71);
const delays = { startVisibleMs: 0, completeMs: 0, listableMs: 0, changeMs: 0 };

/** A world whose Linux instance has a block of its own in each volume. */
async function written(): Promise<AwsWorld> {
  const world = await awsWorld({ delays });
  const { simulator } = world;
  for (const [index, id] of simulator.volumesOf(simulator.instances.linux).entries())
    await simulator.writeVolume(id, 0, randomBytes(block, seed + index));
  return world;
}

async function snapshots(options: AwsOptions): Promise<SnapshotFacts[]> {
  await using connection = await AwsConnection.open(options);
  return gather(findSnapshots(connection, {}));
}

async function take(source: SourceConnector, world: AwsWorld, key: string): Promise<Snapshot> {
  const machine = await source.machine(world.simulator.instances.linux);
  return source.snapshot(machine, { key, job: "out" });
}

test("a point in time killed after any call: one set, held, its bytes, and nothing left once released", async () => {
  await using world = await written();
  const { simulator } = world;
  const volumes = simulator.volumesOf(simulator.instances.linux);
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      await using source = await provider.source!(options());
      const point = await take(source, world, `point ${round}`);
      expect(point.disks.map(({ disk }) => disk).toSorted()).toEqual(volumes.toSorted());
      for (const disk of point.disks) {
        const tiles = await gather(source.tracker!.changes(disk));
        expect(tiles[0]).toMatchObject({ offset: 0, length: block, kind: "changed" });
        await using reader = await source.open(disk);
        const into = new Uint8Array(block);
        const { hint } = tiles[0]!;
        await reader.read(0, into, hint === undefined ? {} : { hint });
        expect(Buffer.compare(into, randomBytes(block, seed + volumes.indexOf(disk.disk)))).toBe(0);
        expect(await source.tracker!.checkpoint(disk)).toBeDefined();
      }
      if (attempt === 1) return;
      const all = await snapshots(world.options());
      expect(all.map(({ id }) => id).toSorted()).toEqual(point.disks.map(({ id }) => id).toSorted());
      expect(all.every(({ tags }) => tags["diskferry:held"] !== undefined)).toBe(true);
      await source.release(point);
    },
    async () => expect(await snapshots(world.options())).toEqual([]),
  );
  expect(calls).toBeGreaterThan(20);
}, 300_000);

test("a release killed after any call is finished by the next, or by what the job owns", async () => {
  await using world = await written();
  await using living = await provider.source!(world.options());
  for (const again of ["release", "owned"] as const) {
    let point: Snapshot | undefined;
    const calls = await killedAtEveryCall(
      world,
      async (options, round, attempt) => {
        if (attempt === 1) point = await take(living, world, `${again} ${round}`);
        await using source = await provider.source!(options());
        if (attempt === 1 || again === "release") return source.release(point!);
        for await (const { snapshot } of source.owned("out")) await source.release(snapshot!);
      },
      async () => expect(await snapshots(world.options())).toEqual([]),
    );
    expect(calls).toBeGreaterThan(4);
  }
}, 300_000);

test("a copy into another account killed after any call: one copy, its bytes, and no sharing left behind", async () => {
  await using world = await written();
  await using source = await provider.source!(world.options());
  const { disks } = await take(source, world, "origin");
  const [origin] = disks;
  const there = world.options({ region: "eu-west-1", account: 1 });
  const isShared = async (): Promise<boolean> => {
    await using connection = await AwsConnection.open(world.options());
    const command = new DescribeSnapshotAttributeCommand({
      SnapshotId: origin!.id,
      Attribute: "createVolumePermission",
    });
    return ((await connection.ec2(command, { object: origin!.id })).CreateVolumePermissions ?? []).length > 0;
  };
  const calls = await killedAtEveryCall(
    world,
    async (options, round) => {
      const [from, to] = [options(), options({ region: "eu-west-1", account: 1 })];
      const copy = await copySnapshot({ from, to, snapshotId: origin!.id, key: `copy ${round}`, job: "out" });
      const volumes = world.simulator.volumesOf(world.simulator.instances.linux);
      const bytes = await world.simulator.snapshotBytes(copy.snapshotId, 0, block);
      expect(Buffer.compare(bytes, randomBytes(block, seed + volumes.indexOf(origin!.disk)))).toBe(0);
    },
    async (round) => {
      const copies = (await snapshots(there)).filter(({ tags }) => tags["diskferry:key"] === `copy ${round}`);
      expect(copies).toHaveLength(1);
      expect(await isShared()).toBe(false);
      const [own] = (await snapshots(world.options())).filter(({ id }) => id === origin!.id);
      expect(own!.tags["diskferry:shared-with"]).toBeUndefined();
    },
  );
  expect(calls).toBeGreaterThan(8);
}, 300_000);

test("a snapshot that has no room for the tag of its sharing is not shared, and says so", async () => {
  await using world = await written();
  await using source = await provider.source!(world.options());
  const [origin] = (await take(source, world, "full of tags")).disks;
  const before = (await snapshots(world.options())).find(({ id }) => id === origin!.id)!;
  await using connection = await AwsConnection.open(world.options());
  const Tags = Array.from({ length: 50 - Object.keys(before.tags).length }, (_, at) => ({ Key: `t${at}`, Value: "" }));
  await connection.ec2(new CreateTagsCommand({ Resources: [origin!.id], Tags }), { object: origin!.id });
  const to = world.options({ region: "eu-west-1", account: 1 });
  await expect(copySnapshot({ from: world.options(), to, snapshotId: origin!.id, key: "k" })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: expect.stringContaining("50 tags") as string,
  });
  expect(await snapshots(to)).toEqual([]);
  expect(world.simulator.faults.counters()["ModifySnapshotAttribute"]).toBeUndefined();
});
