import {
  AttachVolumeCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  DescribeVolumesModificationsCommand,
  DetachVolumeCommand,
  ModifyVolumeCommand,
  type CreateVolumeCommandInput,
} from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { block, changed, firstAccount, later, noWaits, setup, size, upload } from "./aws-client.ts";

const named = (name: string): unknown => expect.objectContaining({ name });

test("attach/detach/delete: a volume has one instance at a time, one device, and is deleted only when free", async () => {
  const { ec2, simulator } = await setup();
  const { linux, windows } = simulator.instances;
  const { VolumeId = "" } = await ec2.send(new CreateVolumeCommand({ Size: 1, AvailabilityZone: "us-east-1a" }));
  const attach = (InstanceId: string, Device: string): Promise<unknown> =>
    ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId, Device }));
  await expect(attach(linux, "/dev/sdf")).rejects.toEqual(named("InvalidParameterValue"));
  await expect(attach(linux, "/tmp/disk")).rejects.toEqual(named("InvalidParameterValue"));
  await attach(linux, "/dev/sdh");
  await expect(attach(windows, "/dev/sdh")).rejects.toEqual(named("VolumeInUse"));
  await expect(ec2.send(new DeleteVolumeCommand({ VolumeId }))).rejects.toEqual(named("VolumeInUse"));
  await simulator.writeVolume(VolumeId, 7, Buffer.from("kept"));
  await expect(ec2.send(new DetachVolumeCommand({ VolumeId, InstanceId: windows }))).rejects.toEqual(
    named("InvalidAttachment.NotFound"),
  );
  await ec2.send(new DetachVolumeCommand({ VolumeId }));
  await expect(simulator.writeVolume(VolumeId, 0, Buffer.from([1]))).rejects.toThrow("not attached");
  expect((await simulator.volumeBytes(VolumeId, 7, 4)).toString()).toBe("kept");
  await ec2.send(new DeleteVolumeCommand({ VolumeId }));
  await expect(ec2.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] }))).rejects.toEqual(
    named("InvalidVolume.NotFound"),
  );
});

test("CreateVolume knows each type's sizes, operations and throughput, and gp2 is its default", async () => {
  const { ec2 } = await setup();
  const make = (input: Partial<CreateVolumeCommandInput>) =>
    ec2.send(new CreateVolumeCommand({ AvailabilityZone: "us-east-1a", Size: 10, ...input }));
  expect(await make({})).toMatchObject({ VolumeType: "gp2", Iops: 100 });
  expect(await make({ VolumeType: "gp3" })).toMatchObject({ Iops: 3000, Throughput: 125 });
  expect(await make({ VolumeType: "gp3", Size: 65_536, Iops: 80_000, Throughput: 2000 })).toMatchObject({
    Size: 65_536,
  });
  for (const [input, code] of [
    [{ VolumeType: "gp2", Iops: 300 }, "InvalidParameterCombination"],
    [{ VolumeType: "gp2", Throughput: 300 }, "InvalidParameterCombination"],
    [{ VolumeType: "gp3", Throughput: 1000 }, "InvalidParameterValue"],
    [{ VolumeType: "gp3", Iops: 10_000 }, "InvalidParameterValue"],
    [{ VolumeType: "io2" }, "MissingParameter"],
    [{ VolumeType: "st1" }, "InvalidParameterValue"],
    [{ VolumeType: "gp9" as "gp3" }, "UnknownVolumeType"],
    [{ AvailabilityZone: "us-west-2a" }, "InvalidZone.NotFound"],
    [{ KmsKeyId: "alias/mine" }, "InvalidParameterDependency"],
    [{ Size: undefined }, "MissingParameter"],
    [{ SnapshotId: "snap-1" }, "InvalidSnapshotID.Malformed"],
  ] as [Partial<CreateVolumeCommandInput>, string][])
    await expect(make(input)).rejects.toEqual(named(code));
});

test("CreateVolume: a client token makes one volume, a volume is creating first, and a refused key ends in error", async () => {
  const { ec2, ebs, simulator } = await setup({ delays: { ...noWaits, changeMs: 60_000 } });
  const SnapshotId = await upload(ebs, { 1: block(4) });
  const make = (more: Partial<CreateVolumeCommandInput> = {}) =>
    ec2.send(new CreateVolumeCommand({ AvailabilityZone: "us-east-1a", SnapshotId, ClientToken: "token", ...more }));
  const { VolumeId = "", State } = await make();
  expect(State).toBe("creating");
  expect((await make()).VolumeId).toBe(VolumeId);
  await expect(make({ Size: 2 })).rejects.toEqual(named("IdempotentParameterMismatch"));
  const attach = new AttachVolumeCommand({ VolumeId, InstanceId: simulator.instances.linux, Device: "/dev/sdh" });
  await expect(ec2.send(attach)).rejects.toEqual(named("IncorrectState"));
  const KmsKeyId = `arn:aws:kms:us-east-1:${firstAccount}:key/refused`;
  simulator.denyKey(KmsKeyId);
  const locked = await make({ ClientToken: "other", Encrypted: true, KmsKeyId });
  const aged = later(simulator, 60_000).ec2;
  const { Volumes } = await aged.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId, locked.VolumeId ?? ""] }));
  expect(Volumes?.map((each) => each.State)).toEqual(["available", "error"]);
  expect((await simulator.volumeBytes(VolumeId, size, size)).equals(block(4))).toBe(true);
});

test("ModifyVolume grows between two snapshots, once in six hours, and never shrinks", async () => {
  const { ec2, ebs, simulator } = await setup();
  const [, VolumeId = ""] = simulator.volumesOf(simulator.instances.linux);
  const snapshot = async (clients = ec2) =>
    (await clients.send(new CreateSnapshotCommand({ VolumeId }))).SnapshotId ?? "";
  await simulator.writeVolume(VolumeId, 0, block(1));
  const first = await snapshot();
  const modify = (Size: number, clients = ec2) => clients.send(new ModifyVolumeCommand({ VolumeId, Size }));
  expect((await modify(3)).VolumeModification).toMatchObject({ ModificationState: "modifying", TargetSize: 3 });
  const seen = await ec2.send(new DescribeVolumesModificationsCommand({ VolumeIds: [VolumeId] }));
  expect(seen.VolumesModifications).toMatchObject([{ ModificationState: "completed", OriginalSize: 1, Progress: 100 }]);
  await simulator.writeVolume(VolumeId, 2 * 2 ** 30, block(2));
  const second = await snapshot();
  expect(await changed(ebs, first, second)).toMatchObject({ VolumeSize: 3, ChangedBlocks: [{ BlockIndex: 4096 }] });
  await expect(modify(4)).rejects.toEqual(named("VolumeModificationRateExceeded"));
  const aged = later(simulator, 6 * 3_600_000).ec2;
  await expect(modify(2, aged)).rejects.toEqual(named("InvalidParameterValue"));
  await modify(4, aged);
  const none = new DescribeVolumesModificationsCommand({
    VolumeIds: [simulator.volumesOf(simulator.instances.linux)[2] ?? ""],
  });
  await expect(aged.send(none)).rejects.toEqual(named("InvalidVolumeModification.NotFound"));
});

test("DescribeVolumes: filters, pages of five at least, and no pages of named volumes", async () => {
  const { ec2, simulator } = await setup();
  const linux = simulator.volumesOf(simulator.instances.linux);
  for (let at = 0; at < 8; at++)
    await ec2.send(
      new CreateVolumeCommand({
        AvailabilityZone: "us-east-1b",
        Size: 1,
        TagSpecifications: [{ ResourceType: "volume", Tags: [{ Key: "number", Value: String(at) }] }],
      }),
    );
  const describe = (input: object) => ec2.send(new DescribeVolumesCommand(input));
  const first = await describe({ MaxResults: 6 });
  const rest = await describe({ MaxResults: 10, NextToken: first.NextToken });
  expect([first.Volumes?.length, rest.Volumes?.length, rest.NextToken]).toEqual([6, 7, undefined]);
  const odd = await describe({ Filters: [{ Name: "tag:number", Values: ["1", "3*"] }] });
  expect(odd.Volumes).toHaveLength(2);
  const free = await describe({ Filters: [{ Name: "status", Values: ["available"] }] });
  expect(free.Volumes).toHaveLength(8);
  await expect(describe({ MaxResults: 3 })).rejects.toEqual(named("InvalidParameterValue"));
  await expect(describe({ VolumeIds: linux, MaxResults: 6 })).rejects.toEqual(named("InvalidParameterCombination"));
  await expect(describe({ Filters: [{ Name: "colour", Values: ["red"] }] })).rejects.toEqual(
    named("InvalidParameterValue"),
  );
});
