import { CopySnapshotCommand, DescribeSnapshotAttributeCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import type { Snapshot, Tile } from "@diskferry/core/provider";
import { type AwsOptions, copySnapshot, provider } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { findSnapshots } from "../../src/source/snapshot-facts.ts";
import { type AwsWorld, awsWorld, block, gather, randomBlock } from "../aws-world.ts";

/** A snapshot of the root volume of the first account's instance, with something in it. */
async function taken(world: AwsWorld, bytes: Uint8Array, at = 0): Promise<{ id: string; snapshot: Snapshot }> {
  const { simulator } = world;
  const [root] = simulator.volumesOf(simulator.instances.linux);
  await simulator.writeVolume(root!, at, bytes);
  await using source = await provider.source!(world.options());
  const machine = await source.machine(simulator.instances.linux);
  const snapshot = await source.snapshot(machine, { key: `k${at}-${bytes[0]}`, disks: [root!], job: "copies" });
  return { id: snapshot.disks[0]!.id, snapshot };
}

async function all(options: AwsOptions): Promise<string[]> {
  await using connection = await AwsConnection.open(options);
  const found: string[] = [];
  for await (const { id } of findSnapshots(connection, {})) found.push(id);
  return found;
}

async function sharedWith(options: AwsOptions, id: string): Promise<(string | undefined)[]> {
  await using connection = await AwsConnection.open(options);
  const command = new DescribeSnapshotAttributeCommand({ SnapshotId: id, Attribute: "createVolumePermission" });
  return ((await connection.ec2(command, { object: id })).CreateVolumePermissions ?? []).map(({ UserId }) => UserId);
}

test("a copy in another Region holds the same bytes, and the same key gives the same copy", async () => {
  await using world = await awsWorld();
  const bytes = randomBlock();
  const { id } = await taken(world, bytes);
  const [from, to] = [world.options(), world.options({ region: "eu-west-1" })];
  const copy = await copySnapshot({ from, to, snapshotId: id, key: "first", job: "copies" });
  expect(copy).toMatchObject({ region: "eu-west-1", encrypted: false, accountId: "111111111111" });
  expect(copy.builtOn).toBeUndefined();
  expect(Buffer.compare(await world.simulator.snapshotBytes(copy.snapshotId, 0, block), bytes)).toBe(0);
  const again = await copySnapshot({ from, to, snapshotId: id, key: "first", job: "copies" });
  expect(again.snapshotId).toBe(copy.snapshotId);
  expect(await all(to)).toEqual([copy.snapshotId]);
  await using source = await provider.source!(to);
  const owned = await gather(source.owned("copies"));
  expect(owned.map((each) => each.snapshot?.disks[0]?.id)).toEqual([copy.snapshotId]);
  await source.release(owned[0]!.snapshot!);
  expect(await all(to)).toEqual([]);
});

test("the second copy builds on the first, and the tracker tells what changed between the two", async () => {
  await using world = await awsWorld();
  const [from, to] = [world.options(), world.options({ region: "eu-west-1" })];
  const first = await copySnapshot({ from, to, snapshotId: (await taken(world, randomBlock())).id, key: "1" });
  const second = await copySnapshot({
    from,
    to,
    snapshotId: (await taken(world, randomBlock(), 7 * block)).id,
    key: "2",
  });
  expect(second.builtOn).toBe(first.snapshotId);
  await using source = await provider.source!(to);
  const since = await source.tracker!.checkpoint(first.snapshot.disks[0]!);
  const tiles = await gather(source.tracker!.changes(second.snapshot.disks[0]!, { since }));
  const changed = tiles.filter(({ kind }: Tile) => kind === "changed").map(({ offset }) => offset / block);
  expect(changed).toEqual([7]);
  const encrypted = await copySnapshot({ from, to, snapshotId: second.snapshotId, key: "3", encrypted: true }).catch(
    (error: unknown) => error,
  );
  // The copy itself is in the other Region, where a copy of it has to be asked for.
  expect(encrypted).toMatchObject({ code: "NOT_FOUND" });
  const reencrypted = await copySnapshot({ from: to, to, snapshotId: second.snapshotId, key: "3", encrypted: true });
  expect(reencrypted.encrypted).toBe(true);
  expect(reencrypted.builtOn).toBeUndefined();
});

test("a copy into another account is shared for as long as it takes, and no longer", async () => {
  await using world = await awsWorld();
  const bytes = randomBlock();
  const { id } = await taken(world, bytes);
  const [from, to] = [world.options(), world.options({ account: 1, region: "eu-west-1" })];
  const copy = await copySnapshot({ from, to, snapshotId: id, key: "over" });
  expect(copy.accountId).toBe("222222222222");
  expect(Buffer.compare(await world.simulator.snapshotBytes(copy.snapshotId, 0, block), bytes)).toBe(0);
  expect(await sharedWith(from, id)).toEqual([]);
});

test("KMS's late refusal is noticed, told as a matter of keys, and leaves nothing behind", async () => {
  await using world = await awsWorld();
  const { id } = await taken(world, randomBlock());
  const [from, to] = [world.options(), world.options({ account: 1, region: "eu-west-1" })];
  const kmsKey = "arn:aws:kms:eu-west-1:222222222222:key/11111111-2222-4333-8444-555555555555";
  world.simulator.denyKey(kmsKey);
  const failure = copySnapshot({ from, to, snapshotId: id, key: "refused", kmsKey });
  await expect(failure).rejects.toMatchObject({
    code: "DENIED",
    message: expect.stringMatching(/failed after it had begun .*key.*kms:Decrypt/) as string,
  });
  expect(await all(to)).toEqual([]);
  expect(await sharedWith(from, id)).toEqual([]);
});

test("a snapshot encrypted by the account's default key cannot be shared, and says what to do", async () => {
  await using world = await awsWorld();
  const { id } = await taken(world, randomBlock());
  const from = world.options();
  const encrypted = await copySnapshot({ from, to: from, snapshotId: id, key: "e", encrypted: true });
  const to = world.options({ account: 1 });
  await expect(copySnapshot({ from, to, snapshotId: encrypted.snapshotId, key: "over" })).rejects.toMatchObject({
    code: "UNSUPPORTED",
    message: expect.stringContaining("KMS key of its own") as string,
  });
  expect(await all(to)).toEqual([]);
});

test("more than twenty copies into a Region wait for their turn, also for copies of others", async () => {
  await using world = await awsWorld({ delays: { changeMs: 150 } });
  const { id } = await taken(world, randomBlock());
  const [from, to] = [world.options(), world.options({ region: "eu-west-1" })];
  // Somebody else's copies hold three of the twenty places.
  await using other = await AwsConnection.open(to);
  for (let number = 0; number < 3; number++)
    await other.ec2(new CopySnapshotCommand({ SourceRegion: "us-east-1", SourceSnapshotId: id }), { object: id });
  const keys = Array.from({ length: 24 }, (_, number) => `copy ${number}`);
  const copies = await Promise.all(keys.map((key) => copySnapshot({ from, to, snapshotId: id, key })));
  expect(new Set(copies.map(({ snapshotId }) => snapshotId)).size).toBe(24);
});

test("an archived snapshot is not copied, and says how to get it back", async () => {
  await using world = await awsWorld();
  const { simulator } = world;
  const { id } = await taken(world, randomBlock());
  const [from, to] = [world.options(), world.options({ region: "eu-west-1" })];
  simulator.archiveSnapshot(id);
  await expect(copySnapshot({ from, to, snapshotId: id, key: "a" })).rejects.toMatchObject({
    code: "UNSUPPORTED",
    message: expect.stringContaining("RestoreSnapshotTier") as string,
  });
  expect(await all(to)).toEqual([]);
});
