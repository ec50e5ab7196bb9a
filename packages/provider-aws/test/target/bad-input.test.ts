import { EBSClient, StartSnapshotCommand } from "@aws-sdk/client-ebs";
import { DescribeSnapshotsCommand, EC2Client } from "@aws-sdk/client-ec2";
import { expect, onTestFinished, test } from "vitest";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { block, commitRun, type Place, region, sha256, startPlace, writeBlocks, writtenOf } from "./target-place.ts";

const size = 2 ** 30;
const seed = seedOf(23);
const one = new Map([[0, randomBytes(block, seed)]]);
const account = "111111111111";
const key = `arn:aws:kms:${region}:${account}:key/0f0f0f0f-0000-4000-8000-000000000000`;

function keysOf({ simulator }: Place): {
  region: string;
  endpoint: string;
  credentials: { accessKeyId: string; secretAccessKey: string };
} {
  return { region, endpoint: simulator.endpoint, credentials: simulator.credentials[0]! };
}

/** Ids of the account's snapshots. */
async function snapshots(place: Place): Promise<string[]> {
  const client = new EC2Client(keysOf(place));
  onTestFinished(() => client.destroy());
  const { Snapshots = [] } = await client.send(new DescribeSnapshotsCommand({ OwnerIds: ["self"] }));
  return Snapshots.map(({ SnapshotId }) => SnapshotId!).sort();
}

test("a KMS key that may not be used is told as such, and leaves nothing", async () => {
  const place = await startPlace({}, { target: { kmsKey: key } });
  place.simulator.denyKey(key);
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  const before = await snapshots(place);
  await expect(target.open(volume, { run: "r", epoch: 1 })).rejects.toMatchObject({
    code: "DENIED",
    message: expect.stringMatching(/KMS.*kms:GenerateDataKeyWithoutPlaintext/s),
  });
  expect(await snapshots(place)).toEqual(before);
});

test("a snapshot that goes into error once it was begun, as KMS has it, is removed and not begun again and again", async () => {
  const place = await startPlace({}, { target: { kmsKey: key } });
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  const before = await snapshots(place);
  const { faults } = place.simulator;
  const starts = faults.counters()["StartSnapshot"]!;
  place.simulator.failNextStart("Given key ID is not accessible");
  const opening = target.open(volume, { run: "r", epoch: 1 });
  await expect(opening).rejects.toMatchObject({
    code: "DENIED",
    retryable: false,
    message: expect.stringMatching(/not accessible.*removed.*kms:CreateGrant/s),
  });
  expect(faults.counters()["StartSnapshot"]! - starts).toBe(1);
  expect(await snapshots(place)).toEqual(before);
  place.simulator.failNextStart("An internal failure");
  await expect(target.open(volume, { run: "r", epoch: 1 })).rejects.toMatchObject({ retryable: true });
  expect(await snapshots(place)).toEqual(before);
  // What passes passes, for the same run.
  await commitRun(target, volume, "r", one);
});

test("a parent that is not completed is refused", async () => {
  const place = await startPlace();
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  await using writer = await target.open(volume, { run: "r", epoch: 1 });
  const base = { id: writer.generation, size };
  const before = await snapshots(place);
  await expect(target.open(volume, { run: "r2", base, epoch: 1 })).rejects.toMatchObject({
    message: expect.stringContaining("completed"),
  });
  expect(await snapshots(place)).toEqual(before);
});

test.for([
  ["ebs:StartSnapshot", "create"],
  ["ebs:CompleteSnapshot", "create"],
  ["ec2:DescribeSnapshots", "create"],
  ["ebs:PutSnapshotBlock", "write"],
  ["ebs:CompleteSnapshot", "commit"],
  ["ec2:DeleteSnapshot", "remove"],
  ["ebs:ListSnapshotBlocks", "read"],
] as const)("without permission for %s, %s names the action and the resource", async ([action, step]) => {
  const place = await startPlace();
  const { simulator } = place;
  const target = await place.open();
  const denied = (): void => simulator.deny(account, action);
  const named = { code: "DENIED", retryable: false, message: expect.stringMatching(new RegExp(`${action} on \\S+`)) };
  if (step === "create") {
    denied();
    await expect(target.create({ key: "k", size })).rejects.toMatchObject(named);
    return;
  }
  const volume = await target.create({ key: "k", size });
  const writer = await target.open(volume, { run: "r", epoch: 1 });
  if (step === "write") {
    denied();
    const puts = simulator.faults.counters()["PutSnapshotBlock"] ?? 0;
    await expect(writeBlocks(writer, one)).rejects.toMatchObject(named);
    // Asked once: a refusal is no passing thing.
    expect(simulator.faults.counters()["PutSnapshotBlock"]! - puts).toBe(1);
    return;
  }
  await writeBlocks(writer, one);
  if (step === "commit") {
    denied();
    await expect(writer.commit({ written: writtenOf(one) })).rejects.toMatchObject(named);
    return;
  }
  const committed = await writer.commit({ written: writtenOf(one) });
  denied();
  if (step === "remove") await expect(target.remove(committed)).rejects.toMatchObject(named);
  else
    await expect(target.read!(committed).then((reader) => reader.read(0, new Uint8Array(block)))).rejects.toMatchObject(
      named,
    );
});

test("an account with 100 pending snapshots is told so, as something that passes", async () => {
  const place = await startPlace({ quotaScale: Number.POSITIVE_INFINITY }, { retryBudgetMs: 50 });
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  const client = new EBSClient(keysOf(place));
  onTestFinished(() => client.destroy());
  expect(await snapshots(place)).toHaveLength(1);
  for (let count = 0; count < 100; count++) await client.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const before = await snapshots(place);
  await expect(target.open(volume, { run: "r", epoch: 1 })).rejects.toMatchObject({
    retryable: true,
    message: expect.stringContaining("100 pending snapshots"),
  });
  expect(await snapshots(place)).toEqual(before);
});

test("encryption beside a parent is refused before AWS is asked, with the remedy", async () => {
  const place = await startPlace();
  const plain = await place.open();
  const volume = await plain.create({ key: "k", size });
  const base = await commitRun(plain, volume, "r1", one);
  for (const target of [{ encrypted: true }, { kmsKey: key }]) {
    const before = await snapshots(place);
    const encrypting = await place.open({ target });
    await expect(encrypting.open(volume, { run: "r2", base, epoch: 1 })).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringMatching(/not encrypted.*mode full/s),
    });
    expect(await snapshots(place)).toEqual(before);
    // In full it works, and later runs start from that one.
    const full = await commitRun(encrypting, volume, `full ${JSON.stringify(target)}`, one);
    await commitRun(encrypting, volume, `next ${JSON.stringify(target)}`, new Map(), full);
  }
});

test("a parent that is not encrypted is refused by an account that encrypts by default, with the remedy", async () => {
  const place = await startPlace();
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  const base = await commitRun(target, volume, "r1", one);
  place.simulator.encryptByDefault(account, region, true);
  const before = await snapshots(place);
  await expect(target.open(volume, { run: "r2", base, epoch: 1 })).rejects.toMatchObject({
    code: "UNSUPPORTED",
    message: expect.stringMatching(/encrypts by default.*mode full/s),
  });
  expect(await snapshots(place)).toEqual(before);
});

test("an archived parent is refused with the remedy", async () => {
  const place = await startPlace();
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  const base = await commitRun(target, volume, "r1", one);
  place.simulator.archiveSnapshot(base.id);
  await expect(target.open(volume, { run: "r2", base, epoch: 1 })).rejects.toMatchObject({
    code: "UNSUPPORTED",
    message: expect.stringContaining("restore it"),
  });
});

test("a volume of another Region is told as such, not as gone", async () => {
  const place = await startPlace();
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  const elsewhere = await place.open({ region: "eu-central-1" });
  const wrong = { code: "CONFIG_INVALID", message: expect.stringMatching(/us-east-1.*eu-central-1/) };
  await expect(elsewhere.open(volume, { run: "r", epoch: 1 })).rejects.toMatchObject(wrong);
  await expect(elsewhere.remove(volume)).rejects.toMatchObject(wrong);
  await expect(elsewhere.read!(volume)).rejects.toMatchObject(wrong);
});

test("unknown ids and things that are no volume or no commit are NOT_FOUND or UNSUPPORTED", async () => {
  const place = await startPlace();
  const target = await place.open();
  const volume = await target.create({ key: "k", size });
  const unknown = { ...volume, id: "snap-00000000000000000" };
  const gone = { code: "NOT_FOUND", message: expect.stringContaining("snap-00000000000000000") };
  await expect(target.open(unknown, { run: "r", epoch: 1 })).rejects.toMatchObject(gone);
  await expect(target.open(volume, { run: "r", base: { id: unknown.id, size }, epoch: 1 })).rejects.toMatchObject(gone);
  await expect(target.read!({ id: unknown.id, size })).rejects.toMatchObject(gone);
  await expect(target.read!(volume)).rejects.toMatchObject({ code: "NOT_FOUND" });
  const committed = await commitRun(target, volume, "r", one);
  await expect(target.open(committed, { run: "r2", epoch: 1 })).rejects.toMatchObject({ code: "UNSUPPORTED" });
  await expect(target.create({ key: "huge", size: 2 ** 47 })).rejects.toMatchObject({ code: "UNSUPPORTED" });
  await target.remove(unknown);
});

test("a snapshot that this product did not make is not removed", async () => {
  const place = await startPlace();
  const target = await place.open();
  const client = new EBSClient(keysOf(place));
  onTestFinished(() => client.destroy());
  const { SnapshotId } = await client.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const foreign = { id: SnapshotId!, size, data: { kind: "commit", key: "k", region } };
  await expect(target.remove(foreign)).rejects.toMatchObject({
    code: "DENIED",
    message: expect.stringContaining("by hand"),
  });
  expect(await snapshots(place)).toContain(SnapshotId);
});

test("bytes that are not those of their digest are refused, and what is no range of blocks never sent", async () => {
  const { open, simulator } = await startPlace();
  const target = await open();
  const volume = await target.create({ key: "k", size });
  const writer = await target.open(volume, { run: "r", epoch: 1 });
  const bytes = one.get(0)!;
  const wrong = writer.write(0, bytes, { digest: sha256(new Uint8Array(1)) });
  await expect(wrong).rejects.toMatchObject({ code: "CORRUPT", message: expect.stringContaining(writer.generation) });
  const puts = simulator.faults.counters()["PutSnapshotBlock"];
  await expect(writer.write(512, bytes)).rejects.toThrow(RangeError);
  await expect(writer.write(0, bytes.subarray(512))).rejects.toThrow(RangeError);
  await expect(writer.write(size, bytes)).rejects.toThrow(RangeError);
  await expect(writer.write(0, bytes, { digest: new Uint8Array(31) })).rejects.toThrow(RangeError);
  expect(simulator.faults.counters()["PutSnapshotBlock"]).toBe(puts);
});
