import {
  CompleteSnapshotCommand,
  GetSnapshotBlockCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
  type EBSClient,
} from "@aws-sdk/client-ebs";
import {
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateSnapshotsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DescribeSnapshotsCommand,
  DescribeSnapshotTierStatusCommand,
  ModifySnapshotAttributeCommand,
  ModifySnapshotTierCommand,
  RestoreSnapshotTierCommand,
  type EC2Client,
} from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import {
  block,
  changed,
  firstAccount,
  later,
  list,
  noWaits,
  put,
  refusal,
  secondAccount,
  setup,
  sha,
  size,
  upload,
} from "./aws-client.ts";

const named = (name: string): unknown => expect.objectContaining({ name });
const denied = (Reason: string): unknown => expect.objectContaining({ name: "AccessDeniedException", Reason });

const share = (ec2: EC2Client, SnapshotId: string, who: object): Promise<unknown> =>
  ec2.send(new ModifySnapshotAttributeCommand({ SnapshotId, CreateVolumePermission: { Add: [who] } }));

/** Every way to read a snapshot, with a token that its owner got. */
async function reads(ebs: EBSClient, SnapshotId: string, BlockToken: string): Promise<string[]> {
  const ends = await Promise.allSettled([
    list(ebs, SnapshotId),
    changed(ebs, SnapshotId, SnapshotId),
    ebs.send(new GetSnapshotBlockCommand({ SnapshotId, BlockIndex: 0, BlockToken })),
  ]);
  return ends.map((end) => (end.status === "fulfilled" ? "read" : ((end.reason as { Reason?: string }).Reason ?? "?")));
}

test("unshared, public and shared: only the owner and accounts named by id read a snapshot, nobody else writes it", async () => {
  const { ebs, ec2, client } = await setup();
  const stranger = client(1, "us-east-1");
  const id = await upload(ebs, { 0: block(1) });
  const token = (await list(ebs, id)).Blocks?.[0]?.BlockToken ?? "";
  const times = <T>(each: T): T[] => [each, each, each];
  expect(await reads(stranger.ebs, id, token)).toEqual(times("UNAUTHORIZED_ACCOUNT"));
  await share(ec2, id, { Group: "all" });
  expect(await reads(stranger.ebs, id, token)).toEqual(times("INVALID_SNAPSHOT_ID"));
  await share(ec2, id, { UserId: secondAccount });
  expect(await reads(stranger.ebs, id, token)).toEqual(times("read"));
  const pending = (await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? "";
  await share(ec2, pending, { UserId: secondAccount });
  await expect(put(stranger.ebs, pending, 0, block(1))).rejects.toEqual(denied("UNAUTHORIZED_ACCOUNT"));
  const child = stranger.ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: id }));
  await expect(child).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
});

test("encrypted snapshots are shared with accounts only, and not when they have the default key", async () => {
  const { ebs, ec2 } = await setup();
  const KmsKeyArn = `arn:aws:kms:us-east-1:${firstAccount}:key/mine`;
  const plain = await upload(ebs, { 0: block(1) }, { Encrypted: true });
  const own = await upload(ebs, { 0: block(1) }, { Encrypted: true, KmsKeyArn });
  await expect(share(ec2, plain, { UserId: secondAccount })).rejects.toEqual(named("OperationNotPermitted"));
  await expect(share(ec2, own, { Group: "all" })).rejects.toEqual(named("OperationNotPermitted"));
  await share(ec2, own, { UserId: secondAccount });
});

test("pending and other Regions: a snapshot is read when completed, in its own Region only", async () => {
  const { ebs, ec2, simulator, client } = await setup({ delays: { ...noWaits, completeMs: 60_000 } });
  const VolumeId = simulator.volumesOf(simulator.instances.linux)[0] ?? "";
  const { SnapshotId = "" } = await ec2.send(new CreateSnapshotCommand({ VolumeId }));
  await expect(list(ebs, SnapshotId)).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
  await expect(list(client(0, "eu-west-1").ebs, SnapshotId)).rejects.toEqual(named("ResourceNotFoundException"));
  await expect(list(ebs, "snap-xyz")).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
  expect((await list(later(simulator, 60_000).ebs, SnapshotId)).Blocks).toEqual([]);
});

test("archived: refused by every call, restored for a time or for good", async () => {
  const { ebs, ec2, simulator } = await setup({ delays: { ...noWaits, changeMs: 60_000 } });
  const id = await upload(ebs, { 0: block(1) });
  const token = (await list(ebs, id)).Blocks?.[0]?.BlockToken ?? "";
  const status = async (): Promise<string | undefined> =>
    (await ec2.send(new DescribeSnapshotTierStatusCommand({}))).SnapshotTierStatuses?.[0]?.LastTieringOperationStatus;
  await ec2.send(new ModifySnapshotTierCommand({ SnapshotId: id, StorageTier: "archive" }));
  expect(await status()).toBe("archival-in-progress");
  expect(await reads(ebs, id, token)).toEqual(["read", "read", "read"]);
  const archived = later(simulator, 60_000);
  expect(await reads(archived.ebs, id, token)).toEqual(Array.from({ length: 3 }, () => "INVALID_SNAPSHOT_ID"));
  const volume = new CreateVolumeCommand({ SnapshotId: id, AvailabilityZone: "us-east-1a" });
  await expect(archived.ec2.send(volume)).rejects.toEqual(named("IncorrectState"));
  const child = archived.ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: id }));
  await expect(child).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
  await archived.ec2.send(new RestoreSnapshotTierCommand({ SnapshotId: id, TemporaryRestoreDays: 1 }));
  const restored = later(simulator, 60_000);
  expect(await reads(restored.ebs, id, token)).toEqual(["read", "read", "read"]);
  const expired = later(simulator, 86_400_000);
  expect(await reads(expired.ebs, id, token)).toEqual(Array.from({ length: 3 }, () => "INVALID_SNAPSHOT_ID"));
});

test("pending limits: 100 of an account, 5 of a volume and 1 of an st1 volume at once", async () => {
  const { ebs, ec2, simulator, client } = await setup({
    quotaScale: Infinity,
    delays: { ...noWaits, completeMs: 3_600_000 },
  });
  const [VolumeId = ""] = simulator.volumesOf(simulator.instances.windows);
  const snapshot = (id: string): Promise<unknown> => ec2.send(new CreateSnapshotCommand({ VolumeId: id }));
  for (let at = 0; at < 5; at++) await snapshot(VolumeId);
  await expect(snapshot(VolumeId)).rejects.toEqual(named("ConcurrentSnapshotLimitExceeded"));
  const InstanceSpecification = { InstanceId: simulator.instances.windows };
  await expect(ec2.send(new CreateSnapshotsCommand({ InstanceSpecification }))).rejects.toEqual(
    named("ConcurrentSnapshotLimitExceeded"),
  );
  const slow = { AvailabilityZone: "us-east-1a", Size: 125, VolumeType: "st1" as const };
  const { VolumeId: cold = "" } = await ec2.send(new CreateVolumeCommand(slow));
  await ec2.send(new DescribeSnapshotsCommand({}));
  await snapshot(cold);
  await expect(snapshot(cold)).rejects.toEqual(named("ConcurrentSnapshotLimitExceeded"));
  const start = (from: EBSClient): Promise<unknown> => from.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  for (let at = 6; at < 100; at++) await start(ebs);
  await expect(start(ebs)).rejects.toMatchObject({
    name: "ConcurrentLimitExceededException",
    $metadata: { httpStatusCode: 400 },
  });
  await start(client(1, "us-east-1").ebs);
  await start(client(0, "eu-west-1").ebs);
});

test("20 copies: the 21st at once is refused, and the next goes when one is done", async () => {
  const { ebs, client, simulator } = await setup({ delays: { ...noWaits, changeMs: 60_000 } });
  const SourceSnapshotId = await upload(ebs, { 0: block(1) });
  const copy = (ec2: EC2Client): Promise<unknown> =>
    ec2.send(new CopySnapshotCommand({ SourceRegion: "us-east-1", SourceSnapshotId }));
  const there = client(0, "eu-west-1").ec2;
  for (let at = 0; at < 20; at++) await copy(there);
  await expect(copy(there)).rejects.toEqual(named("ResourceLimitExceeded"));
  await copy(client(0, "eu-central-1").ec2);
  simulator.advance(60_000);
  await copy(client(0, "eu-west-1").ec2);
});

test("a copy is full when its predecessor is gone or has another key, and incremental otherwise", async () => {
  const { ebs, client } = await setup();
  const there = client(0, "eu-west-1");
  const [one, other] = [await upload(ebs, { 0: block(1) }), ""];
  const two = await upload(ebs, { 1: block(2) }, { ParentSnapshotId: one });
  const copy = async (SourceSnapshotId: string, more: object = {}): Promise<string> => {
    const command = new CopySnapshotCommand({ SourceRegion: "us-east-1", SourceSnapshotId, ...more });
    return (await there.ec2.send(command)).SnapshotId ?? other;
  };
  const first = await copy(one);
  const second = await copy(two);
  expect((await changed(there.ebs, first, second)).ChangedBlocks).toHaveLength(1);
  const KmsKeyId = `arn:aws:kms:eu-west-1:${firstAccount}:key/mine`;
  const again = await copy(two, { Encrypted: true, KmsKeyId });
  await expect(changed(there.ebs, first, again)).rejects.toEqual(refusal("UNRELATED_SNAPSHOTS"));
  for (const SnapshotId of [first, second]) await there.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
  const third = await copy(two);
  expect((await list(there.ebs, third)).Blocks).toHaveLength(2);
  await expect(list(there.ebs, first)).rejects.toEqual(named("ResourceNotFoundException"));
});

test("KMS: a refused key stops StartSnapshot and reads at once, and a copy only after a while", async () => {
  const { ebs, client, simulator } = await setup({ delays: { ...noWaits, changeMs: 60_000 } });
  const KmsKeyArn = `arn:aws:kms:us-east-1:${firstAccount}:key/mine`;
  const locked = await upload(ebs, { 0: block(1) }, { Encrypted: true, KmsKeyArn });
  const open = await upload(ebs, { 0: block(1) });
  simulator.denyKey(KmsKeyArn);
  const start = ebs.send(new StartSnapshotCommand({ VolumeSize: 1, Encrypted: true, KmsKeyArn }));
  await expect(start).rejects.toEqual(denied("DEPENDENCY_ACCESS_DENIED"));
  await expect(list(ebs, locked)).rejects.toEqual(denied("DEPENDENCY_ACCESS_DENIED"));
  const there = client(0, "eu-west-1").ec2;
  const KmsKeyId = `arn:aws:kms:eu-west-1:${firstAccount}:key/refused`;
  simulator.denyKey(KmsKeyId);
  const source = { SourceRegion: "us-east-1", SourceSnapshotId: open, Encrypted: true, KmsKeyId };
  const { SnapshotId = "" } = await there.send(new CopySnapshotCommand(source));
  const look = new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId] });
  expect((await there.send(look)).Snapshots?.[0]?.State).toBe("pending");
  simulator.advance(60_000);
  expect((await client(0, "eu-west-1").ec2.send(look)).Snapshots?.[0]).toMatchObject({
    State: "error",
    StateMessage: "Given key ID is not accessible",
  });
});

test("a snapshot that is told to fail is begun like any, is in error when looked at, and takes no block", async () => {
  const { ebs, ec2, simulator } = await setup({ delays: noWaits });
  simulator.failNextStart("Given key ID is not accessible");
  const begun = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  expect(begun.Status).toBe("pending");
  const look = new DescribeSnapshotsCommand({ SnapshotIds: [begun.SnapshotId!] });
  expect((await ec2.send(look)).Snapshots?.[0]).toMatchObject({
    State: "error",
    StateMessage: "Given key ID is not accessible",
  });
  await expect(put(ebs, begun.SnapshotId!, 0, block(1))).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
  await upload(ebs, { 0: block(1) });
});

test("denied actions name the action and the resource, on EBS and on EC2, and DryRun tells without doing", async () => {
  const { ebs, ec2, simulator } = await setup();
  const VolumeId = simulator.volumesOf(simulator.instances.linux)[0] ?? "";
  const dry = (): Promise<unknown> => ec2.send(new CreateSnapshotCommand({ VolumeId, DryRun: true }));
  await expect(dry()).rejects.toMatchObject({ name: "DryRunOperation", $metadata: { httpStatusCode: 412 } });
  expect((await ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ["self"] }))).Snapshots).toEqual([]);
  simulator.deny(firstAccount, "ec2:CreateSnapshot");
  await expect(dry()).rejects.toMatchObject({ name: "UnauthorizedOperation", $metadata: { httpStatusCode: 403 } });
  simulator.deny(firstAccount, "ebs:PutSnapshotBlock");
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const refused = expect(put(ebs, SnapshotId, 0, block(1))).rejects;
  await refused.toThrow(`ebs:PutSnapshotBlock on resource: arn:aws:ec2:us-east-1::snapshot/${SnapshotId}`);
});

test("PutSnapshotBlock wants the algorithm, the length and a block inside; CompleteSnapshot wants LINEAR with a sum", async () => {
  const { ebs } = await setup();
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const body = { SnapshotId, BlockIndex: 0, BlockData: block(1), Checksum: sha(block(1)).toString("base64") };
  const wrongLength = new PutSnapshotBlockCommand({ ...body, DataLength: 4096, ChecksumAlgorithm: "SHA256" });
  await expect(ebs.send(wrongLength)).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  const wrongAlgorithm = new PutSnapshotBlockCommand({
    ...body,
    DataLength: size,
    ChecksumAlgorithm: "MD5" as "SHA256",
  });
  await expect(ebs.send(wrongAlgorithm)).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  const bare = new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 0, Checksum: "AAAA" });
  await expect(ebs.send(bare)).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  await expect(put(ebs, SnapshotId, 2048, block(1))).rejects.toEqual(refusal("INVALID_BLOCK"));
  const starts = [{ VolumeSize: 0 }, { VolumeSize: 65_537 }];
  for (const input of starts)
    await expect(ebs.send(new StartSnapshotCommand(input))).rejects.toEqual(refusal("INVALID_VOLUME_SIZE"));
  const short = new StartSnapshotCommand({ VolumeSize: 1, Timeout: 9 });
  await expect(ebs.send(short)).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  const reserved = new StartSnapshotCommand({ VolumeSize: 1, Tags: [{ Key: "aws:x", Value: "" }] });
  await expect(ebs.send(reserved)).rejects.toEqual(refusal("INVALID_TAG"));
  const big = await upload(ebs, { 0: block(1) }, { VolumeSize: 2 });
  const shrunk = new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: big });
  await expect(ebs.send(shrunk)).rejects.toEqual(refusal("INVALID_VOLUME_SIZE"));
});

test("two writers of one index at once: one of them is refused", async () => {
  const { ebs } = await setup();
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const ends = await Promise.allSettled(Array.from({ length: 24 }, (_, at) => put(ebs, SnapshotId, 3, block(at + 1))));
  const refused = ends
    .filter((end) => end.status === "rejected")
    .map(({ reason }) => (reason as { Reason: string }).Reason);
  expect(refused.length).toBeGreaterThan(0);
  expect(ends.length - refused.length).toBeGreaterThan(0);
  for (const reason of refused) expect(reason).toBe("CONFLICTING_BLOCK_UPDATE");
  await ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 1 }));
});
