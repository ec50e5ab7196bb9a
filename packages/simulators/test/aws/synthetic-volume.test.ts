import { GetSnapshotBlockCommand } from "@aws-sdk/client-ebs";
import { CreateSnapshotCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { block, changed, list, setup, sha, size, upload } from "./aws-client.ts";

test("a synthetic volume of 16 TiB is listed page by page from any index, and its blocks are all different", async () => {
  const { ebs, simulator } = await setup();
  const VolumeId = simulator.addSyntheticVolume({ sizeGib: 16_384, digests: 4 });
  const SnapshotId = simulator.takeSnapshot(VolumeId);
  const first = await list(ebs, SnapshotId, { MaxResults: 10_000 });
  expect(first.Blocks).toHaveLength(10_000);
  expect(first.VolumeSize).toBe(16_384);
  const last = await list(ebs, SnapshotId, { MaxResults: 10_000, StartingBlockIndex: 33_554_432 - 5 });
  expect(last.Blocks?.map(({ BlockIndex }) => (BlockIndex ?? 0) - 33_554_432)).toEqual([-5, -4, -3, -2, -1]);
  expect(last.NextToken).toBeUndefined();
  const digests = new Set<string>();
  for (const { BlockIndex, BlockToken } of [
    ...(first.Blocks?.slice(0, 3) ?? []),
    ...(last.Blocks?.slice(0, 2) ?? []),
  ]) {
    const got = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId, BlockIndex, BlockToken }));
    const bytes = Buffer.from((await got.BlockData?.transformToByteArray()) ?? []);
    expect(sha(bytes).toString("base64")).toBe(got.Checksum);
    digests.add(got.Checksum ?? "");
  }
  expect(digests.size).toBe(5);
  expect((await simulator.snapshotBytes(SnapshotId, 7 * size, 8)).readBigUInt64LE()).toBe(8n);
});

test("what is written into and freed from a synthetic volume shows as its changes", async () => {
  const { ebs, ec2, simulator } = await setup({ emptyPageEvery: 2 });
  const VolumeId = simulator.addSyntheticVolume({ sizeGib: 1024, stride: 64 });
  const snapshot = async (): Promise<string> =>
    (await ec2.send(new CreateSnapshotCommand({ VolumeId }))).SnapshotId ?? "";
  const first = await snapshot();
  await simulator.fillVolume(VolumeId, 64 * size, block(1));
  await simulator.fillVolume(VolumeId, 65 * size, block(2));
  const second = await snapshot();
  const { ChangedBlocks = [], NextToken } = await changed(ebs, first, second);
  expect(NextToken).toBeUndefined();
  const shape = ChangedBlocks.map((each) => [each.BlockIndex, !!each.FirstBlockToken, !!each.SecondBlockToken]);
  expect(shape).toEqual([
    [64, true, true],
    [65, false, true],
  ]);
  const empty = await list(ebs, second, { MaxResults: 100 });
  expect([empty.Blocks?.length, typeof empty.NextToken]).toEqual([0, "string"]);
  const page = await list(ebs, second, { NextToken: empty.NextToken });
  expect(page.Blocks?.slice(0, 4).map(({ BlockIndex }) => BlockIndex)).toEqual([0, 64, 65, 128]);
});

test("blocks put without being kept complete with their sums, and take no room", async () => {
  const { ebs, simulator } = await setup({ keepUploads: false });
  const id = await upload(ebs, { 0: block(1), 1: block(2) });
  expect((await simulator.snapshotBytes(id, 0, size)).equals(block(0))).toBe(true);
});
