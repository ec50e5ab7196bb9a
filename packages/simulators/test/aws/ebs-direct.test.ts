import { CompleteSnapshotCommand, EBSClient, GetSnapshotBlockCommand, StartSnapshotCommand } from "@aws-sdk/client-ebs";
import {
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateSnapshotsCommand,
  CreateVolumeCommand,
  DescribeInstancesCommand,
  DescribeSnapshotsCommand,
  DescribeVpnGatewaysCommand,
  type EC2Client,
  ModifySnapshotAttributeCommand,
} from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import {
  block,
  changed,
  clientsOf,
  closing,
  later,
  list,
  noWaits,
  put,
  refusal,
  setup,
  sha,
  size,
  upload,
} from "./aws-client.ts";

test("number BlockIndex, ascending; BlockSize 524288: blocks put in disorder are listed in order with their data", async () => {
  const { ebs } = await setup();
  const id = await upload(ebs, { 7: block(7), 0: block(1), 3: block(3) });
  const listed = await list(ebs, id);
  expect(listed.Blocks?.map(({ BlockIndex }) => BlockIndex)).toEqual([0, 3, 7]);
  expect(listed).toMatchObject({ BlockSize: size, VolumeSize: 1 });
  const token = listed.Blocks?.[1]?.BlockToken ?? "";
  expect(token).toMatch(/^[A-Za-z0-9+/=]{1,256}$/);
  const got = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex: 3, BlockToken: token }));
  expect(Buffer.from((await got.BlockData?.transformToByteArray()) ?? []).equals(block(3))).toBe(true);
  expect(got).toMatchObject({
    DataLength: size,
    Checksum: sha(block(3)).toString("base64"),
    ChecksumAlgorithm: "SHA256",
  });
});

test("paging incl. empty pages and token expiry: pages hold 100 at least, may be empty, and end after an hour", async () => {
  const { ebs, ec2, simulator } = await setup({ emptyPageEvery: 2 });
  const volume = simulator.volumesOf(simulator.instances.linux)[0] ?? "";
  for (let index = 0; index < 150; index++) await simulator.writeVolume(volume, index * size, Buffer.from([index + 1]));
  const { SnapshotId = "" } = await ec2.send(new CreateSnapshotCommand({ VolumeId: volume }));
  const first = await list(ebs, SnapshotId, { MaxResults: 100 });
  expect(first.Blocks).toHaveLength(100);
  const second = await list(ebs, SnapshotId, { NextToken: first.NextToken, StartingBlockIndex: 149 });
  expect(second.Blocks).toEqual([]);
  const third = await list(ebs, SnapshotId, { NextToken: second.NextToken });
  expect(third.Blocks?.map(({ BlockIndex }) => BlockIndex)).toEqual(Array.from({ length: 50 }, (_, at) => 100 + at));
  expect(third.NextToken).toBeUndefined();
  const few = await list(ebs, SnapshotId, { MaxResults: 10, NextToken: first.NextToken });
  expect([few.Blocks?.length, typeof few.NextToken]).toEqual([0, "string"]);
  const fewer = await list(ebs, SnapshotId, { MaxResults: 10, StartingBlockIndex: 0 });
  expect(fewer.Blocks).toHaveLength(100);
  const forged = list(ebs, SnapshotId, { NextToken: `${first.NextToken?.slice(0, -8)}AAAAAAAA` });
  await expect(forged).rejects.toEqual(refusal("INVALID_PAGE_TOKEN"));
  const now = later(simulator, 3_600_000).ebs;
  await expect(list(now, SnapshotId, { NextToken: first.NextToken })).rejects.toEqual(refusal("INVALID_PAGE_TOKEN"));
});

test("token binding: a block token serves its own block of its own snapshot only", async () => {
  const { ebs, simulator } = await setup();
  const one = await upload(ebs, { 0: block(1), 1: block(2) });
  const two = await upload(ebs, { 0: block(1) });
  const BlockToken = (await list(ebs, one)).Blocks?.[0]?.BlockToken ?? "";
  const get = (SnapshotId: string, BlockIndex: number) =>
    ebs.send(new GetSnapshotBlockCommand({ SnapshotId, BlockIndex, BlockToken }));
  await expect(get(one, 1)).rejects.toEqual(refusal("INVALID_BLOCK_TOKEN"));
  await expect(get(two, 0)).rejects.toEqual(refusal("INVALID_BLOCK_TOKEN"));
  await expect(get(one, 0)).resolves.toMatchObject({ DataLength: size });
  const aged = later(simulator, 7 * 86_400_000).ebs;
  const late = aged.send(new GetSnapshotBlockCommand({ SnapshotId: one, BlockIndex: 0, BlockToken }));
  await expect(late).rejects.toEqual(refusal("INVALID_BLOCK_TOKEN"));
});

test("ParentSnapshotId inheritance: blocks not written come from the parent", async () => {
  const { ebs, simulator } = await setup();
  const parent = await upload(ebs, { 0: block(1), 1: block(2) });
  const child = await upload(ebs, { 1: block(9) }, { ParentSnapshotId: parent });
  expect((await simulator.snapshotBytes(child, 0, size)).equals(block(1))).toBe(true);
  expect((await simulator.snapshotBytes(child, size, size)).equals(block(9))).toBe(true);
  expect((await list(ebs, child)).Blocks).toHaveLength(2);
  const { ChangedBlocks } = await changed(ebs, parent, child);
  expect(ChangedBlocks?.map(({ BlockIndex }) => BlockIndex)).toEqual([1]);
});

test("checksum and length rejection: wrong digests, short bodies and blocks beyond the end are refused", async () => {
  const { ebs } = await setup();
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  await expect(put(ebs, SnapshotId, 0, block(1), sha(block(2)).toString("base64"))).rejects.toEqual(
    refusal("INVALID_PARAMETER_VALUE"),
  );
  await expect(put(ebs, SnapshotId, 0, Buffer.alloc(10))).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  await expect(put(ebs, SnapshotId, 2048, block(1))).rejects.toEqual(refusal("INVALID_BLOCK"));
});

test("count + LINEAR validation: CompleteSnapshot wants the number written and the hash of their digests", async () => {
  const { ebs } = await setup();
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  await put(ebs, SnapshotId, 5, block(5));
  await put(ebs, SnapshotId, 2, block(2));
  await put(ebs, SnapshotId, 5, block(6));
  const complete = (ChangedBlocksCount: number, bytes: Buffer) =>
    ebs.send(
      new CompleteSnapshotCommand({
        SnapshotId,
        ChangedBlocksCount,
        Checksum: sha(bytes).toString("base64"),
        ChecksumAlgorithm: "SHA256",
        ChecksumAggregationMethod: "LINEAR",
      }),
    );
  const right = Buffer.concat([sha(block(2)), sha(block(6))]);
  await expect(complete(3, right)).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  await expect(complete(2, Buffer.concat([sha(block(6)), sha(block(2))]))).rejects.toEqual(
    refusal("INVALID_PARAMETER_VALUE"),
  );
  await expect(complete(2, right)).resolves.toMatchObject({ Status: "pending", $metadata: { httpStatusCode: 202 } });
  await expect(put(ebs, SnapshotId, 1, block(1))).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
});

test("state machine and Timeout: a snapshot nobody writes goes to error, a completed one passes through pending", async () => {
  const { ebs, ec2 } = await setup({ delays: { ...noWaits, completeMs: 3_600_000, listableMs: 3_600_000 } });
  const left = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, Timeout: 600 }));
  const id = await upload(ebs, { 0: block(1) });
  const state = async (each: string | undefined) =>
    (await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [each ?? ""] }))).Snapshots?.[0]?.State;
  expect([await state(left.SnapshotId), await state(id)]).toEqual(["pending", "pending"]);
  await expect(list(ebs, id)).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
  const short = await setup();
  const { SnapshotId = "" } = await short.ebs.send(new StartSnapshotCommand({ VolumeSize: 1, Timeout: 10 }));
  const told = async (client: EC2Client): Promise<[string | undefined, string | undefined]> => {
    const { Snapshots } = await client.send(new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId] }));
    return [Snapshots?.[0]?.State, Snapshots?.[0]?.StateMessage];
  };
  // A block begins the minutes anew.
  const nearly = later(short.simulator, 590_000);
  expect(await told(nearly.ec2)).toEqual(["pending", undefined]);
  await put(nearly.ebs, SnapshotId, 0, block(1));
  short.simulator.advance(590_000);
  const before = clientsOf(short.simulator, { clockMs: 1_180_000 });
  expect(await told(before.ec2)).toEqual(["pending", undefined]);
  short.simulator.advance(10_000);
  const aged = clientsOf(short.simulator, { clockMs: 1_190_000 });
  expect(await told(aged.ec2)).toEqual(["error", "The snapshot timed out"]);
  await expect(put(aged.ebs, SnapshotId, 1, block(1))).rejects.toEqual(refusal("INVALID_SNAPSHOT_ID"));
});

test("lag of 'does not exist' after Start and after complete, which ends", async () => {
  // After a whole hour a snapshot that nobody writes has timed out.
  const halfHour = 1_800_000;
  const { ebs, simulator } = await setup({ delays: { ...noWaits, startVisibleMs: halfHour } });
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const missing = expect.objectContaining({ name: "ResourceNotFoundException", Reason: "SNAPSHOT_NOT_FOUND" });
  await expect(put(ebs, SnapshotId, 0, block(1))).rejects.toEqual(missing);
  await expect(put(later(simulator, halfHour).ebs, SnapshotId, 0, block(1))).resolves.toBeDefined();
  const late = await setup({ delays: { ...noWaits, listableMs: halfHour } });
  const id = await upload(late.ebs, { 0: block(1) });
  await expect(list(late.ebs, id)).rejects.toEqual(missing);
  const { Blocks } = await list(later(late.simulator, halfHour).ebs, id);
  expect(Blocks?.map(({ BlockIndex }) => BlockIndex)).toEqual([0]);
});

test("ClientToken idempotency + Conflict: the same request gives the same snapshot, another one is refused", async () => {
  const { ebs } = await setup();
  const start = (Description: string) =>
    ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ClientToken: "run-1", Description }));
  expect((await start("a")).SnapshotId).toBe((await start("a")).SnapshotId);
  await expect(start("b")).rejects.toMatchObject({ name: "ConflictException", $metadata: { httpStatusCode: 409 } });
});

test("Encrypted+Parent conflict, and encryption by default refuses an unencrypted parent", async () => {
  const { ebs, simulator } = await setup();
  const ParentSnapshotId = await upload(ebs, { 0: block(1) });
  const both = ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId, Encrypted: true }));
  await expect(both).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  simulator.encryptByDefault("111111111111", "us-east-1", true);
  const bare = ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId }));
  await expect(bare).rejects.toEqual(refusal("INVALID_PARAMETER_VALUE"));
  expect(await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).toMatchObject({ SseType: "sse-kms" });
});

test("random bytes for missing encrypted blocks: a volume of an encrypted snapshot reads noise in its holes", async () => {
  const { ebs, ec2, simulator } = await setup();
  const SnapshotId = await upload(ebs, { 0: block(1) }, { Encrypted: true });
  const { VolumeId = "" } = await ec2.send(new CreateVolumeCommand({ SnapshotId, AvailabilityZone: "us-east-1a" }));
  expect((await simulator.volumeBytes(VolumeId, 0, size)).equals(block(1))).toBe(true);
  expect((await simulator.volumeBytes(VolumeId, size, size)).equals(block(0))).toBe(false);
});

test("only-first / only-second changed blocks: freed, new and changed blocks carry the tokens they have", async () => {
  const { ebs, ec2, simulator } = await setup();
  const VolumeId = simulator.volumesOf(simulator.instances.linux)[1] ?? "";
  await simulator.writeVolume(VolumeId, 0, Buffer.concat([block(1), block(2), block(3)]));
  const first = (await ec2.send(new CreateSnapshotCommand({ VolumeId }))).SnapshotId ?? "";
  await simulator.trimVolume(VolumeId, 0, size);
  await simulator.writeVolume(VolumeId, size + 5, Buffer.from("changed"));
  simulator.growVolume(VolumeId, 2);
  await simulator.writeVolume(VolumeId, 2 ** 30, block(4));
  const second = (await ec2.send(new CreateSnapshotCommand({ VolumeId }))).SnapshotId ?? "";
  const { ChangedBlocks = [], VolumeSize } = await changed(ebs, first, second);
  const shape = ChangedBlocks.map((each) => [each.BlockIndex, !!each.FirstBlockToken, !!each.SecondBlockToken]);
  expect(shape).toEqual([
    [0, true, false],
    [1, true, true],
    [2048, false, true],
  ]);
  expect(VolumeSize).toBe(2);
  expect((await simulator.snapshotBytes(first, 0, size)).equals(block(1))).toBe(true);
});

test("UNRELATED_SNAPSHOTS: snapshots of different volumes cannot be compared", async () => {
  const { ebs } = await setup();
  const [one, two] = [await upload(ebs, { 0: block(1) }), await upload(ebs, { 0: block(1) })];
  await expect(changed(ebs, one, two)).rejects.toEqual(refusal("UNRELATED_SNAPSHOTS"));
});

test("per-account/per-snapshot throttles: the account's ten starts a second end in ThrottlingException", async () => {
  const { ebs } = await setup({ quotaScale: 0.1 });
  const starts = [1, 2, 3].map(() => ebs.send(new StartSnapshotCommand({ VolumeSize: 1 })));
  const ends = await Promise.allSettled(starts);
  const refused = ends.filter((each) => each.status === "rejected").map(({ reason }) => (reason as Error).name);
  expect(refused.length).toBeGreaterThan(0);
  expect(new Set(refused)).toEqual(new Set(["ThrottlingException"]));
});

test("injected 'Failed to read block data', 5xx, bit flip and short body strike the calls they name", async () => {
  const { ebs, simulator } = await setup();
  const id = await upload(ebs, { 0: block(1) });
  const BlockToken = (await list(ebs, id)).Blocks?.[0]?.BlockToken ?? "";
  const get = async (): Promise<Buffer> => {
    const { BlockData } = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex: 0, BlockToken }));
    return Buffer.from((await BlockData?.transformToByteArray()) ?? []);
  };
  for (const [at, fault] of (["read-failed", "internal-error", "flip", "truncate", "empty"] as const).entries())
    simulator.faults.add({ fault, operation: "GetSnapshotBlock", calls: { first: at + 1, last: at + 1 } });
  await expect(get()).rejects.toMatchObject({ name: "ValidationException", message: "Failed to read block data" });
  await expect(get()).rejects.toMatchObject({ name: "InternalServerException", $metadata: { httpStatusCode: 500 } });
  expect((await get()).equals(block(1))).toBe(false);
  await expect(get()).rejects.toThrow();
  expect(await get()).toHaveLength(0);
  expect((await get()).equals(block(1))).toBe(true);
  expect(simulator.faults.counters()["GetSnapshotBlock"]).toBe(6);
});

test("signatures: a wrong secret and an expired session are each refused in their own words", async () => {
  const { simulator } = await setup();
  const keys = { accessKeyId: "AKIATEMPORARY", secretAccessKey: "secret", sessionToken: "session" };
  simulator.addCredentials({ ...keys, accountId: "111111111111", expiresAt: Date.now() + 60_000 });
  const start = async (credentials: typeof keys): Promise<unknown> => {
    const client = new EBSClient({ region: "us-east-1", endpoint: simulator.endpoint, credentials, maxAttempts: 1 });
    closing({ close: () => client.destroy() });
    return client.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  };
  await expect(start(keys)).resolves.toMatchObject({ Status: "pending" });
  await expect(start({ ...keys, secretAccessKey: "guess" })).rejects.toMatchObject({
    name: "InvalidSignatureException",
  });
  await expect(start({ ...keys, sessionToken: "other" })).rejects.toMatchObject({
    name: "UnrecognizedClientException",
  });
  simulator.advance(120_000);
  await expect(start(keys)).rejects.toMatchObject({ name: "ExpiredTokenException" });
});

test("EC2: an instance-wide snapshot leaves out what is excluded, tags and describes the rest", async () => {
  const { ec2, simulator } = await setup();
  const { linux } = simulator.instances;
  const [, data = ""] = simulator.volumesOf(linux);
  const made = await ec2.send(
    new CreateSnapshotsCommand({
      InstanceSpecification: { InstanceId: linux, ExcludeDataVolumeIds: [data] },
      Description: "tonight",
      CopyTagsFromSource: "volume",
      TagSpecifications: [{ ResourceType: "snapshot", Tags: [{ Key: "job", Value: "a&b" }] }],
    }),
  );
  expect(made.Snapshots).toHaveLength(2);
  const found = await ec2.send(
    new DescribeSnapshotsCommand({ OwnerIds: ["self"], Filters: [{ Name: "tag:job", Values: ["a&b"] }] }),
  );
  expect(found.Snapshots?.map(({ State, Description }) => [State, Description])).toEqual(
    Array.from({ length: 2 }, () => ["completed", "tonight"]),
  );
  const all = await ec2.send(new DescribeInstancesCommand({}));
  const boots = all.Reservations?.flatMap(({ Instances }) => Instances ?? []).map(({ BootMode }) => BootMode);
  expect(boots).toEqual(["legacy-bios", "uefi"]);
});

test("EC2: unknown actions and snapshots are refused, and two snapshots copied to another account and region stay comparable", async () => {
  const { ebs, ec2, client } = await setup();
  await expect(ec2.send(new DescribeVpnGatewaysCommand({}))).rejects.toMatchObject({ name: "InvalidAction" });
  const unknown = ec2.send(new CopySnapshotCommand({ SourceRegion: "us-east-1", SourceSnapshotId: "snap-00" }));
  await expect(unknown).rejects.toMatchObject({ name: "InvalidSnapshot.NotFound" });
  const [one, other] = [await upload(ebs, { 0: block(1) }), client(1, "eu-west-1")];
  const two = await upload(ebs, { 0: block(2) }, { ParentSnapshotId: one });
  const copies: string[] = [];
  for (const SnapshotId of [one, two]) {
    const add = { Add: [{ UserId: "222222222222" }] };
    await ec2.send(new ModifySnapshotAttributeCommand({ SnapshotId, CreateVolumePermission: add }));
    const copy = await other.ec2.send(
      new CopySnapshotCommand({ SourceRegion: "us-east-1", SourceSnapshotId: SnapshotId }),
    );
    copies.push(copy.SnapshotId ?? "");
  }
  const [first = "", second = ""] = copies;
  expect((await changed(other.ebs, first, second)).ChangedBlocks).toHaveLength(1);
  await expect(list(ebs, first)).rejects.toMatchObject({ name: "ResourceNotFoundException" });
});
