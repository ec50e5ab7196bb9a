import { CreateTagsCommand, DeleteSnapshotCommand, DetachVolumeCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { optionsSchema } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { createSet } from "../../src/source/create-set.ts";
import { type SnapshotFacts, findSnapshots } from "../../src/source/snapshot-facts.ts";
import { type AwsWorld, awsWorld, gather } from "../aws-world.ts";
import { place } from "./taken.ts";

async function snapshots(world: AwsWorld): Promise<SnapshotFacts[]> {
  await using connection = await AwsConnection.open(world.options());
  return gather(findSnapshots(connection, {}));
}

async function detached(connection: AwsConnection, id: string): Promise<void> {
  await connection.ec2(new DetachVolumeCommand({ VolumeId: id }), { object: id });
  // `changeMs` of the simulator.
  await new Promise((resolve) => setTimeout(resolve, 20));
}

test("a volume that was taken off between the plan and the run is named, and nothing is made", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  await using connection = await AwsConnection.open(world.options());
  const taken = it.machine.disks[1]!.key;
  await detached(connection, taken);
  const all = it.machine.disks.map(({ key }) => key);
  await expect(it.source.snapshot(it.machine, { key: "k", disks: all })).rejects.toMatchObject({
    code: "NOT_FOUND",
    message: expect.stringContaining(`has no disk ${taken}`) as string,
  });
  expect(await snapshots(world)).toEqual([]);
});

test("one that was taken off in the very moment of the call is named, and what was made of the others is removed", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  await using connection = await AwsConnection.open(world.options());
  // The machine as it was a moment ago.
  const taken = it.machine.disks[1]!.key;
  await detached(connection, taken);
  await expect(createSet(connection, it.machine, it.machine.disks, { key: "k" })).rejects.toMatchObject({
    code: "NOT_FOUND",
    retryable: false,
    message: expect.stringMatching(new RegExp(`lost ${taken}.*removed`)) as string,
  });
  expect(await snapshots(world)).toEqual([]);
  expect((await it.snapshot("k")).disks).toHaveLength(2);
});

test("a set of which one member is gone is removed and taken anew; one that is held as a base is left, and said", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { timeouts: { visibleMs: 60 } });
  await using connection = await AwsConnection.open(world.options());
  for (const isHeld of [true, false]) {
    const key = `held ${isHeld}`;
    const [first, second] = (await it.snapshot(key)).disks;
    if (isHeld) await it.source.tracker!.checkpoint(second!);
    await connection.ec2(new DeleteSnapshotCommand({ SnapshotId: first!.id }), { object: first!.id });
    await expect(it.snapshot(key)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringMatching(isHeld ? /by hand/ : /removed too/) as string,
    });
    const left = (await snapshots(world)).filter(({ tags }) => tags["diskferry:key"] === key);
    expect(left).toHaveLength(isHeld ? 2 : 0);
    if (!isHeld) expect((await it.snapshot(key)).disks).toHaveLength(3);
  }
});

test("tags of ours win over the user's: the policy lets only what carries them be removed", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { tags: { CreatedBy: "somebody", team: "platform" } });
  await it.snapshot("k");
  for (const { tags } of await snapshots(world))
    expect(tags).toMatchObject({ CreatedBy: "diskferry", Purpose: "Backup", team: "platform" });
});

test("the most tags that the options take leave room for all of ours, up to the one that holds a base", async () => {
  await using world = await awsWorld();
  const tags = Object.fromEntries(Array.from({ length: 35 }, (_, index) => [`tag ${index}`, "x"]));
  await using it = await place(world, { tags });
  const [disk] = (await it.snapshot("k")).disks;
  expect(await it.source.tracker!.checkpoint(disk!)).toBeDefined();
  const { error } = optionsSchema.safeParse({ tags: { ...tags, more: "x" } });
  expect(error?.message).toContain("at most 35 tags");
});

test("a snapshot that has no room for a tag of ours says so, and is left as it was", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const [disk] = (await it.snapshot("k")).disks;
  await using connection = await AwsConnection.open(world.options());
  const own = Object.keys((await snapshots(world)).find(({ id }) => id === disk!.id)!.tags).length;
  const Tags = Array.from({ length: 50 - own }, (_, index) => ({ Key: `theirs ${index}`, Value: "x" }));
  await connection.ec2(new CreateTagsCommand({ Resources: [disk!.id], Tags }), { object: disk!.id });
  await expect(it.source.tracker!.checkpoint(disk!)).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: expect.stringMatching(/50 tags.*take other tags off/) as string,
  });
});
