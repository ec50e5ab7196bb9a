import {
  AttachVolumeCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DeregisterImageCommand,
  DeleteSnapshotCommand,
  DescribeImagesCommand,
  DescribeInstanceAttributeCommand,
  DescribeInstancesCommand,
  DescribeInstanceStatusCommand,
  DescribeInstanceTypesCommand,
  DescribeSubnetsCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  GetInstanceUefiDataCommand,
  ModifyInstanceAttributeCommand,
  RegisterImageCommand,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
  type EC2Client,
  type Instance,
  type RegisterImageCommandInput,
  type RunInstancesCommandInput,
} from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { block, later, noWaits, setup, size, upload } from "./aws-client.ts";

const named = (name: string): unknown => expect.objectContaining({ name });

/** Parameters as a provider has to give them. */
function imageOf(SnapshotId: string, more: Partial<RegisterImageCommandInput> = {}): RegisterImageCommandInput {
  return {
    Name: `image of ${SnapshotId}`,
    Architecture: "x86_64",
    VirtualizationType: "hvm",
    EnaSupport: true,
    RootDeviceName: "/dev/sda1",
    BlockDeviceMappings: [{ DeviceName: "/dev/sda1", Ebs: { SnapshotId, VolumeType: "gp3" } }],
    ...more,
  };
}

async function register(
  ec2: EC2Client,
  SnapshotId: string,
  more: Partial<RegisterImageCommandInput> = {},
): Promise<string> {
  return (await ec2.send(new RegisterImageCommand(imageOf(SnapshotId, more)))).ImageId ?? "";
}

async function run(ec2: EC2Client, ImageId: string, more: Partial<RunInstancesCommandInput> = {}): Promise<Instance> {
  const answer = await ec2.send(
    new RunInstancesCommand({ ImageId, InstanceType: "m5.large", MinCount: 1, MaxCount: 1, ...more }),
  );
  return answer.Instances?.[0] ?? {};
}

async function look(ec2: EC2Client, id: string | undefined): Promise<Instance> {
  const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [id ?? ""] }));
  return Reservations?.[0]?.Instances?.[0] ?? {};
}

test("RegisterImage takes EC2's defaults, and an image of i386 and paravirtual starts nowhere", async () => {
  const { ebs, ec2 } = await setup();
  const SnapshotId = await upload(ebs, { 0: block(1) });
  const bare = {
    Name: "bare",
    RootDeviceName: "/dev/sda1",
    BlockDeviceMappings: [{ DeviceName: "/dev/sda1", Ebs: { SnapshotId } }],
  };
  const { ImageId = "" } = await ec2.send(new RegisterImageCommand(bare));
  const [image] = (await ec2.send(new DescribeImagesCommand({ ImageIds: [ImageId] }))).Images ?? [];
  expect(image).toMatchObject({ Architecture: "i386", VirtualizationType: "paravirtual", State: "available" });
  expect(image?.EnaSupport).toBeUndefined();
  expect(image?.BlockDeviceMappings?.[0]?.Ebs).toMatchObject({ VolumeType: "standard", VolumeSize: 1 });
  await expect(run(ec2, ImageId)).rejects.toThrow("does not match the architecture 'i386'");
  const paravirtual = await register(ec2, SnapshotId, { VirtualizationType: "paravirtual", EnaSupport: false });
  await expect(run(ec2, paravirtual)).rejects.toThrow("paravirtual");
  const slow = await register(ec2, SnapshotId, { Name: "no ena", EnaSupport: false });
  await expect(run(ec2, slow)).rejects.toThrow("ENA");
  await expect(run(ec2, slow, { InstanceType: "t2.micro" })).resolves.toMatchObject({ EnaSupport: false });
});

test("RegisterImage refuses names, mappings and combinations that EC2 refuses", async () => {
  const { ebs, ec2, simulator } = await setup();
  const SnapshotId = await upload(ebs, { 0: block(1) });
  const refuse = (
    more: Partial<RegisterImageCommandInput>,
    code: string,
    words: string | RegExp = /./,
  ): Promise<void> =>
    expect(register(ec2, SnapshotId, more)).rejects.toEqual(
      expect.objectContaining({ name: code, message: expect.stringMatching(words) as unknown }),
    );
  const mapping = (Ebs: object): Partial<RegisterImageCommandInput> => ({
    BlockDeviceMappings: [{ DeviceName: "/dev/sda1", Ebs: { SnapshotId, ...Ebs } }],
  });
  await refuse({ Name: "ab" }, "InvalidAMIName.Malformed");
  await refuse({ Name: "what?" }, "InvalidAMIName.Malformed");
  await refuse({ RootDeviceName: "/dev/xvda" }, "InvalidBlockDeviceMapping", "root device");
  await refuse(mapping({ Encrypted: true }), "InvalidBlockDeviceMapping", "encrypted flag cannot be specified");
  await refuse(mapping({ SnapshotId: "snap-00000000000000000" }), "InvalidSnapshot.NotFound");
  await refuse(mapping({ VolumeType: "st1", VolumeSize: 125 }), "InvalidBlockDeviceMapping", "root");
  await refuse({ BootMode: "legacy-bios", TpmSupport: "v2.0" }, "InvalidParameterCombination");
  await refuse({ BootMode: "legacy-bios", UefiData: "QQ==" }, "InvalidParameterCombination");
  await refuse({ BootMode: "uefi", UefiData: "not base64!" }, "InvalidParameterValue");
  await refuse({ Architecture: "arm64", BootMode: "legacy-bios" }, "InvalidParameterCombination");
  await refuse({ KernelId: "aki-1" }, "UnknownParameter", "KernelId");
  const big = await upload(ebs, { 0: block(1) }, { VolumeSize: 3 });
  await refuse(mapping({ SnapshotId: big, VolumeSize: 2 }), "InvalidBlockDeviceMapping", "expect size >= 3GB");
  await register(ec2, SnapshotId, { Name: "taken" });
  await refuse({ Name: "taken" }, "InvalidAMIName.Duplicate");
  simulator.archiveSnapshot(big);
  await refuse(mapping({ SnapshotId: big }), "IncorrectState");
});

test("a registered image keeps its root snapshot from being deleted, until it is deregistered", async () => {
  const { ebs, ec2 } = await setup();
  const SnapshotId = await upload(ebs, { 0: block(1) });
  const ImageId = await register(ec2, SnapshotId);
  await expect(ec2.send(new DeleteSnapshotCommand({ SnapshotId }))).rejects.toEqual(named("InvalidSnapshot.InUse"));
  await ec2.send(new DeregisterImageCommand({ ImageId }));
  await expect(ec2.send(new DescribeImagesCommand({ ImageIds: [ImageId] }))).rejects.toEqual(
    named("InvalidAMIID.NotFound"),
  );
  await ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
});

test("an image passes through pending before it can be launched", async () => {
  const { ebs, ec2, simulator } = await setup({ delays: { ...noWaits, changeMs: 3_600_000 } });
  const ImageId = await register(ec2, await upload(ebs, { 0: block(1) }));
  await expect(run(ec2, ImageId)).rejects.toEqual(named("InvalidAMIID.Unavailable"));
  const aged = later(simulator, 3_600_000).ec2;
  expect((await aged.send(new DescribeImagesCommand({ Owners: ["self"] }))).Images?.[0]?.State).toBe("available");
  await expect(run(aged, ImageId)).resolves.toMatchObject({ State: { Name: "pending" } });
});

test("RunInstances makes volumes with the image's bytes, in the subnet, with address, tags and user data", async () => {
  const { ebs, ec2, simulator } = await setup();
  const [root, data] = [await upload(ebs, { 0: block(1) }), await upload(ebs, { 1: block(2) })];
  const ImageId = await register(ec2, root, {
    BlockDeviceMappings: [
      { DeviceName: "/dev/sda1", Ebs: { SnapshotId: root, VolumeType: "gp3", DeleteOnTermination: true } },
      { DeviceName: "/dev/sdf", Ebs: { SnapshotId: data, VolumeType: "gp3", DeleteOnTermination: false } },
    ],
  });
  const subnet = (await ec2.send(new DescribeSubnetsCommand({}))).Subnets?.[1];
  const UserData = Buffer.from("#cloud-config").toString("base64");
  const launched = await run(ec2, ImageId, {
    SubnetId: subnet?.SubnetId,
    PrivateIpAddress: "172.31.16.10",
    UserData,
    BlockDeviceMappings: [{ DeviceName: "/dev/sda1", Ebs: { VolumeSize: 4, Throughput: 250 } }],
    TagSpecifications: [
      { ResourceType: "instance", Tags: [{ Key: "job", Value: "one" }] },
      { ResourceType: "volume", Tags: [{ Key: "job", Value: "two" }] },
    ],
  });
  const id = launched.InstanceId ?? "";
  expect(await look(ec2, id)).toMatchObject({
    State: { Name: "running" },
    PrivateIpAddress: "172.31.16.10",
    Placement: { AvailabilityZone: subnet?.AvailabilityZone },
    CurrentInstanceBootMode: "legacy-bios",
    Tags: [{ Key: "job", Value: "one" }],
  });
  const [first = "", second = ""] = simulator.volumesOf(id);
  expect((await simulator.volumeBytes(first, 0, size)).equals(block(1))).toBe(true);
  expect((await simulator.volumeBytes(second, size, size)).equals(block(2))).toBe(true);
  const { Volumes } = await ec2.send(
    new DescribeVolumesCommand({ Filters: [{ Name: "attachment.instance-id", Values: [id] }] }),
  );
  expect(Volumes?.map(({ Size, Throughput, Tags }) => [Size, Throughput, Tags?.[0]?.Value])).toEqual([
    [4, 250, "two"],
    [1, 125, "two"],
  ]);
  const attribute = new DescribeInstanceAttributeCommand({ InstanceId: id, Attribute: "userData" });
  expect((await ec2.send(attribute)).UserData?.Value).toBe(UserData);
  await expect(run(ec2, ImageId, { SubnetId: subnet?.SubnetId, PrivateIpAddress: "172.31.16.10" })).rejects.toEqual(
    named("InvalidIPAddress.InUse"),
  );
  await ec2.send(new TerminateInstancesCommand({ InstanceIds: [id] }));
  expect(await look(ec2, id)).toMatchObject({ State: { Name: "terminated" }, BlockDeviceMappings: [] });
  const left = await ec2.send(new DescribeVolumesCommand({ VolumeIds: [second] }));
  expect(left.Volumes?.[0]?.State).toBe("available");
  await expect(ec2.send(new DescribeVolumesCommand({ VolumeIds: [first] }))).rejects.toEqual(
    named("InvalidVolume.NotFound"),
  );
});

test("RunInstances: one client token launches once, also when that one has ended, and DryRun launches nothing", async () => {
  const { ebs, ec2, simulator } = await setup();
  const ImageId = await register(ec2, await upload(ebs, { 0: block(1) }));
  await expect(run(ec2, ImageId, { DryRun: true })).rejects.toMatchObject({
    name: "DryRunOperation",
    $metadata: { httpStatusCode: 412 },
  });
  const one = await run(ec2, ImageId, { ClientToken: "launch-1" });
  expect((await run(ec2, ImageId, { ClientToken: "launch-1" })).InstanceId).toBe(one.InstanceId);
  await expect(run(ec2, ImageId, { ClientToken: "launch-1", InstanceType: "m5.xlarge" })).rejects.toEqual(
    named("IdempotentParameterMismatch"),
  );
  const running = new DescribeInstancesCommand({ Filters: [{ Name: "image-id", Values: [ImageId] }] });
  expect((await ec2.send(running)).Reservations).toHaveLength(1);
  await ec2.send(new TerminateInstancesCommand({ InstanceIds: [one.InstanceId!] }));
  simulator.advance(1000);
  await expect(run(ec2, ImageId, { ClientToken: "launch-1" })).rejects.toEqual(named("IdempotentInstanceTerminated"));
  simulator.deny("111111111111", "ec2:RunInstances");
  await expect(run(ec2, ImageId, { DryRun: true })).rejects.toMatchObject({
    name: "UnauthorizedOperation",
    $metadata: { httpStatusCode: 403 },
  });
});

test("a boot mode that the type lacks, and a key that KMS refuses, end the instance with a reason", async () => {
  const { ebs, ec2, simulator } = await setup();
  const SnapshotId = await upload(ebs, { 0: block(1) });
  const uefi = await register(ec2, SnapshotId, { BootMode: "uefi" });
  const wrongMode = await run(ec2, uefi, { InstanceType: "m4.large" });
  expect(wrongMode.State?.Name).toBe("pending");
  expect(await look(ec2, wrongMode.InstanceId)).toMatchObject({
    State: { Name: "terminated" },
    StateReason: { Code: "Server.InternalError" },
  });
  const right = await run(ec2, uefi);
  expect(await look(ec2, right.InstanceId)).toMatchObject({ BootMode: "uefi", CurrentInstanceBootMode: "uefi" });
  const KmsKeyId = "arn:aws:kms:us-east-1:111111111111:key/refused";
  simulator.denyKey(KmsKeyId);
  const Ebs = { Encrypted: true, KmsKeyId };
  const locked = await run(ec2, uefi, { BlockDeviceMappings: [{ DeviceName: "/dev/sda1", Ebs }] });
  expect(await look(ec2, locked.InstanceId)).toMatchObject({
    State: { Name: "terminated" },
    StateReason: { Code: "Client.InternalError" },
  });
});

test("UEFI data goes with an image into its instances, and BIOS instances have none", async () => {
  const { ebs, ec2, simulator } = await setup();
  const { linux, windows } = simulator.instances;
  const { UefiData = "" } = await ec2.send(new GetInstanceUefiDataCommand({ InstanceId: windows }));
  expect(UefiData).toMatch(/^[A-Za-z0-9+/]+={0,2}$/);
  await expect(ec2.send(new GetInstanceUefiDataCommand({ InstanceId: linux }))).rejects.toEqual(
    named("UnsupportedOperation"),
  );
  const ImageId = await register(ec2, await upload(ebs, { 0: block(1) }), {
    BootMode: "uefi",
    UefiData,
    TpmSupport: "v2.0",
  });
  const { InstanceId = "" } = await run(ec2, ImageId);
  expect((await ec2.send(new GetInstanceUefiDataCommand({ InstanceId }))).UefiData).toBe(UefiData);
  await expect(run(ec2, ImageId, { InstanceType: "m4.large" })).rejects.toThrow("NitroTPM");
});

test("the root volume can be swapped in a stopped instance only, and one without a root does not start", async () => {
  const { ebs, ec2, simulator } = await setup();
  const { linux } = simulator.instances;
  const [old = ""] = simulator.volumesOf(linux);
  const detach = new DetachVolumeCommand({ VolumeId: old });
  await expect(ec2.send(detach)).rejects.toEqual(named("OperationNotPermitted"));
  await ec2.send(new StopInstancesCommand({ InstanceIds: [linux] }));
  await ec2.send(detach);
  await expect(ec2.send(new StartInstancesCommand({ InstanceIds: [linux] }))).rejects.toThrow("root (/dev/xvda)");
  const SnapshotId = await upload(ebs, { 0: block(7) });
  const { VolumeId = "" } = await ec2.send(new CreateVolumeCommand({ SnapshotId, AvailabilityZone: "us-east-1a" }));
  const elsewhere = await ec2.send(new CreateVolumeCommand({ SnapshotId, AvailabilityZone: "us-east-1b" }));
  const attach = (id: string | undefined): AttachVolumeCommand =>
    new AttachVolumeCommand({ VolumeId: id, InstanceId: linux, Device: "/dev/xvda" });
  await expect(ec2.send(attach(elsewhere.VolumeId))).rejects.toEqual(named("InvalidVolume.ZoneMismatch"));
  await ec2.send(attach(VolumeId));
  await expect(ec2.send(attach(VolumeId))).rejects.toEqual(named("VolumeInUse"));
  const BlockDeviceMappings = [{ DeviceName: "/dev/xvda", Ebs: { DeleteOnTermination: true } }];
  await ec2.send(new ModifyInstanceAttributeCommand({ InstanceId: linux, BlockDeviceMappings }));
  await ec2.send(new StartInstancesCommand({ InstanceIds: [linux] }));
  expect((await look(ec2, linux)).BlockDeviceMappings?.[0]?.Ebs).toMatchObject({ VolumeId, DeleteOnTermination: true });
  await simulator.writeVolume(VolumeId, 0, Buffer.from([8]));
  expect(await simulator.volumeBytes(VolumeId, 0, 2)).toEqual(Buffer.from([8, 7]));
});

test("starting, stopping, attaching and terminating take time and pass through their states", async () => {
  const { ec2, simulator } = await setup({ delays: { ...noWaits, changeMs: 60_000 } });
  const { linux } = simulator.instances;
  const [, data = ""] = simulator.volumesOf(linux);
  const state = async (clients: { ec2: EC2Client }): Promise<string | undefined> =>
    (await look(clients.ec2, linux)).State?.Name;
  const stopping = await ec2.send(new StopInstancesCommand({ InstanceIds: [linux] }));
  expect(stopping.StoppingInstances?.[0]).toMatchObject({ PreviousState: { Code: 16 }, CurrentState: { Code: 64 } });
  await expect(ec2.send(new StartInstancesCommand({ InstanceIds: [linux] }))).rejects.toEqual(
    named("IncorrectInstanceState"),
  );
  await expect(simulator.writeVolume(data, 0, Buffer.from([1]))).rejects.toThrow("not attached to a running instance");
  const minute = later(simulator, 60_000);
  expect(await state(minute)).toBe("stopped");
  const detached = await minute.ec2.send(new DetachVolumeCommand({ VolumeId: data }));
  expect(detached.State).toBe("detaching");
  const two = later(simulator, 60_000);
  await ec2.send(new AttachVolumeCommand({ VolumeId: data, InstanceId: linux, Device: "/dev/sdz" }));
  expect((await ec2.send(new DescribeVolumesCommand({ VolumeIds: [data] }))).Volumes?.[0]).toMatchObject({
    State: "in-use",
    Attachments: [{ State: "attaching", Device: "/dev/sdz" }],
  });
  expect(await state(two)).toBe("stopped");
  await ec2.send(new TerminateInstancesCommand({ InstanceIds: [linux] }));
  expect(await state(two)).toBe("shutting-down");
  expect(await state(later(simulator, 60_000))).toBe("terminated");
});

test("an instance is unknown for a while after its launch when EC2's calls lag, and may fail its status checks", async () => {
  const { ebs, ec2, simulator } = await setup({ delays: { ...noWaits, describableMs: 60_000 } });
  const { InstanceId = "" } = await run(ec2, await register(ec2, await upload(ebs, { 0: block(1) })));
  await expect(look(ec2, InstanceId)).rejects.toEqual(named("InvalidInstanceID.NotFound"));
  const aged = later(simulator, 60_000).ec2;
  const status = async (): Promise<string | undefined> => {
    const { InstanceStatuses } = await aged.send(new DescribeInstanceStatusCommand({ InstanceIds: [InstanceId] }));
    return InstanceStatuses?.[0]?.InstanceStatus?.Status;
  };
  expect(await status()).toBe("ok");
  simulator.impairInstance(InstanceId);
  expect(await status()).toBe("impaired");
});

test("DescribeInstanceTypes tells what a launch depends on, in pages", async () => {
  const { ec2 } = await setup();
  const names: string[] = [];
  let pages = 0;
  for (let NextToken: string | undefined, first = true; first || NextToken !== undefined; first = false, pages++) {
    const page = await ec2.send(new DescribeInstanceTypesCommand({ NextToken, MaxResults: 40 }));
    names.push(...(page.InstanceTypes ?? []).map(({ InstanceType }) => InstanceType ?? ""));
    ({ NextToken } = page);
  }
  expect(pages).toBeGreaterThan(2);
  expect(new Set(names).size).toBe(names.length);
  const { InstanceTypes } = await ec2.send(
    new DescribeInstanceTypesCommand({ InstanceTypes: ["m5.large", "t4g.nano"] }),
  );
  expect(InstanceTypes).toMatchObject([
    {
      VCpuInfo: { DefaultVCpus: 2 },
      MemoryInfo: { SizeInMiB: 8192 },
      Hypervisor: "nitro",
      SupportedBootModes: ["legacy-bios", "uefi"],
    },
    { ProcessorInfo: { SupportedArchitectures: ["arm64"] }, SupportedBootModes: ["uefi"] },
  ]);
  const legacy = new DescribeInstanceTypesCommand({ Filters: [{ Name: "hypervisor", Values: ["xen"] }] });
  const xen = (await ec2.send(legacy)).InstanceTypes ?? [];
  expect(xen.every(({ NetworkInfo }) => NetworkInfo?.EnaSupport === "unsupported")).toBe(true);
  await expect(
    ec2.send(new DescribeInstanceTypesCommand({ InstanceTypes: ["m1.huge" as "m5.large"] })),
  ).rejects.toEqual(named("InvalidInstanceType"));
});

test("a snapshot of a launched instance's volume sees what its guest wrote", async () => {
  const { ebs, ec2, simulator } = await setup();
  const { InstanceId = "" } = await run(ec2, await register(ec2, await upload(ebs, { 0: block(1) })));
  await look(ec2, InstanceId);
  const [VolumeId = ""] = simulator.volumesOf(InstanceId);
  await simulator.writeVolume(VolumeId, size, block(5));
  const { SnapshotId = "" } = await ec2.send(new CreateSnapshotCommand({ VolumeId }));
  expect((await simulator.snapshotBytes(SnapshotId, 0, 2 * size)).equals(Buffer.concat([block(1), block(5)]))).toBe(
    true,
  );
});
