import { createHash } from "node:crypto";
import {
  DescribeImagesCommand,
  DescribeInstancesCommand,
  DescribeSecurityGroupsCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  EC2Client,
  RegisterImageCommand,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { isProviderError, type SourceConnector, type TargetProvider } from "@diskferry/core/provider";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeWithPeers } from "../../../test/peers.ts";
import { type AwsOptions, provider } from "../src/index.ts";
import { block, gather, gibi, randomBlock } from "./aws-world.ts";
import { type Moto, startMoto } from "./moto-bridge.ts";

const credentials = { accessKeyId: "AKIAMOTO", secretAccessKey: "any" };
const region = "us-east-1";

// moto is another team's reading of EC2: what passes here and in our own simulator is not a misunderstanding of ours alone.
describeWithPeers(["moto_server"], "against moto", () => {
  let moto: Moto;
  let ec2: EC2Client;
  let instance = "";

  beforeAll(async () => {
    moto = await startMoto();
    ec2 = new EC2Client({ region, endpoint: moto.endpoint, credentials });
    const { ImageId } = await ec2.send(new RegisterImageCommand({ Name: "base", RootDeviceName: "/dev/sda1" }));
    const BlockDeviceMappings = [
      { DeviceName: "/dev/sda1", Ebs: { VolumeSize: 3 } },
      { DeviceName: "/dev/sdf", Ebs: { VolumeSize: 1 } },
    ];
    const Tags = [{ Key: "Name", Value: "web" }];
    const TagSpecifications = [{ ResourceType: "instance" as const, Tags }];
    const run = { ImageId, MinCount: 1, MaxCount: 1, InstanceType: "m5.large" as const };
    const { Instances } = await ec2.send(new RunInstancesCommand({ ...run, BlockDeviceMappings, TagSpecifications }));
    instance = Instances?.[0]?.InstanceId ?? "";
  });
  afterAll(async () => {
    ec2.destroy();
    await moto[Symbol.asyncDispose]();
  });

  const options = (endpoint: string): AwsOptions => ({
    region,
    endpoint,
    credentials,
    timeouts: { pollMs: 20, visibleMs: 2000, requestMs: 20_000, blockMs: 20_000 },
    retryBudgetMs: 2000,
  });
  const source = (): Promise<SourceConnector> => provider.source!(options(moto.bridged), {});
  const target = (): Promise<TargetProvider> => provider.target!(options(moto.bridged), {});

  test("instances are found with their volumes, types and power, by id and by name", async () => {
    await using place = await source();
    const machines = await gather(place.machines());
    expect(machines.map(({ id }) => id)).toContain(instance);
    const machine = await place.machine("web");
    expect(machine).toMatchObject({
      id: instance,
      power: "on",
      disks: [
        { size: 3 * gibi, boot: true, name: "/dev/sda1" },
        { size: gibi, name: "/dev/sdf" },
      ],
      spec: { cpus: 2, memoryBytes: 8 * gibi },
    });
    await expect(place.machine("i-0123456789abcdef0")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("a set of snapshots is made once for a key, tagged in the call, found again by job, and released", async () => {
    await using place = await source();
    const machine = await place.machine(instance);
    const snapshot = await place.snapshot(machine, { key: "run-1", job: "nightly" });
    expect(snapshot.disks.map(({ disk }) => disk).sort()).toEqual(machine.disks.map(({ key }) => key).sort());
    expect((await place.snapshot(machine, { key: "run-1", job: "nightly" })).id).toBe(snapshot.id);
    const SnapshotIds = snapshot.disks.map(({ id }) => id);
    const { Snapshots } = await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds }));
    for (const { Tags, Description } of Snapshots ?? []) {
      expect(Description).toContain(instance);
      expect(Tags).toContainEqual({ Key: "diskferry:job", Value: "nightly" });
    }
    const [owned] = await gather(place.owned("nightly"));
    expect(owned).toMatchObject({ kind: "snapshot", id: snapshot.id });
    await place.release(snapshot);
    expect(await gather(place.owned("nightly"))).toEqual([]);
    await expect(ec2.send(new DescribeSnapshotsCommand({ SnapshotIds }))).rejects.toMatchObject({
      name: "InvalidSnapshot.NotFound",
    });
  });

  test("power goes off and on again", async () => {
    await using place = await source();
    const machine = await place.machine(instance);
    await place.power!.powerOff(machine);
    expect(await place.power!.state(machine)).toBe("off");
    await place.power!.powerOn(machine);
    expect(await place.power!.state(machine)).toBe("on");
  });

  test("blocks put into a snapshot come back as they were, and nothing is left when all is removed", async () => {
    await using place = await target();
    const volume = await place.create({ key: "disk", size: gibi, name: "data", job: "copy" });
    expect((await place.create({ key: "disk", size: gibi, name: "data", job: "copy" })).id).toBe(volume.id);
    const blocks = new Map([9, 0, 4].map((index) => [index, randomBlock()]));
    await using writer = await place.open(volume, { run: "run-1", epoch: 1, job: "copy" });
    for (const [index, bytes] of blocks) await writer.write(index * block, bytes, { digest: digestOf(bytes) });
    await writer.flush();
    async function* written() {
      for (const [index, bytes] of [...blocks].sort(([one], [other]) => one - other))
        yield { offset: index * block, length: block, digests: digestOf(bytes) };
    }
    const commit = await writer.commit({ written: written() });
    await using reader = await place.read!(commit);
    for (const [index, bytes] of blocks) {
      const into = new Uint8Array(block);
      await reader.read(index * block, into);
      expect(Buffer.from(into).equals(bytes)).toBe(true);
    }
    const hole = new Uint8Array(block).fill(1);
    await reader.read(block, hole);
    expect(hole.every((byte) => byte === 0)).toBe(true);
    const found = await gather(place.owned("copy"));
    expect(found.map(({ kind }) => kind).sort()).toEqual(["commit", "volume"]);
    await place.remove(commit);
    await place.remove(volume);
    expect(await gather(place.owned("copy"))).toEqual([]);
  });

  test("a listing as moto itself answers it is refused: blocks of 512 bytes are not EBS's", async () => {
    await using bridged = await target();
    const volume = await bridged.create({ key: "plain", size: gibi });
    const writer = await bridged.open(volume, { run: "run-1", epoch: 1 });
    const bytes = randomBlock();
    await writer.write(0, bytes, { digest: digestOf(bytes) });
    async function* written() {
      yield { offset: 0, length: block, digests: digestOf(bytes) };
    }
    const commit = await writer.commit({ written: written() });
    await writer[Symbol.asyncDispose]();
    await using plain = await provider.target!(options(moto.endpoint), {});
    await using reader = await plain.read!(commit);
    const failed: unknown = await reader.read(0, new Uint8Array(block)).catch((error: unknown) => error);
    expect(isProviderError(failed) && failed.code).toBe("UNEXPECTED");
  });

  test("a test launch registers an image, runs it isolated, and terminate takes all of it away", async () => {
    await using place = await target();
    const volume = await place.create({ key: "boot", size: gibi, job: "move" });
    const writer = await place.open(volume, { run: "run-1", epoch: 1, job: "move" });
    const bytes = randomBlock();
    await writer.write(0, bytes, { digest: digestOf(bytes) });
    async function* written() {
      yield { offset: 0, length: block, digests: digestOf(bytes) };
    }
    const commit = await writer.commit({ written: written() });
    await writer[Symbol.asyncDispose]();
    const spec = { name: "web", cpus: 2, memoryBytes: 4 * gibi, architecture: "x86_64", firmware: "bios" } as const;
    const disks = [{ disk: "boot", boot: true, volume: commit }];
    const launched = await place.launch!(spec, disks, { key: "test-1", purpose: "test", job: "move" });
    const InstanceIds = [launched.id];
    const look = async () =>
      (await ec2.send(new DescribeInstancesCommand({ InstanceIds }))).Reservations?.[0]?.Instances?.[0];
    const running = await look();
    expect(running?.State?.Name).toBe("running");
    const group = (await gather(place.owned("move"))).find(({ kind }) => kind === "security-group");
    const groups = await ec2.send(new DescribeSecurityGroupsCommand({ GroupIds: [group?.id ?? ""] }));
    expect(groups.SecurityGroups?.[0]).toMatchObject({ IpPermissions: [], IpPermissionsEgress: [] });
    const { Images } = await ec2.send(new DescribeImagesCommand({ ImageIds: [running?.ImageId ?? ""] }));
    expect(Images).toHaveLength(1);
    const Filters = [{ Name: "attachment.instance-id", Values: InstanceIds }];
    const { Volumes } = await ec2.send(new DescribeVolumesCommand({ Filters }));
    // moto keeps nothing of an image's devices, so the volume is not the one that EC2 would make.
    expect(Volumes).toHaveLength(1);
    await place.terminate!(launched);
    expect((await look())?.State?.Name).toBe("terminated");
    expect((await gather(place.owned("move"))).map(({ kind }) => kind).sort()).toEqual(["commit", "volume"]);
  });
});

function digestOf(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest();
}
