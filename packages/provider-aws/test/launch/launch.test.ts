import { DescribeInstancesCommand, EC2Client } from "@aws-sdk/client-ec2";
import * as ec2 from "@aws-sdk/client-ec2";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { LaunchDisk, MachineSpec, TargetProvider } from "@diskferry/core/provider";
import type { AwsSimulator } from "@diskferry/simulators";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import type { LaunchOptions } from "../../src/index.ts";
import { block, commitRun, optionsFor, type Place, startPlace } from "../target/target-place.ts";

const size = 2 ** 30;
const seed = seedOf(11);

/** The first block of a disk that has an MBR, so that it can be booted and converted. */
function bootBlock(salt: number): Uint8Array {
  const bytes = randomBytes(block, seed + salt);
  bytes[446 + 4] = 0x83;
  bytes.set([0x55, 0xaa], 510);
  for (const entry of [1, 2, 3]) bytes[446 + entry * 16 + 4] = 0;
  return bytes;
}

interface Ready {
  place: Place;
  target: TargetProvider;
  disks: LaunchDisk[];
  content: Record<string, Uint8Array>;
  ec2: EC2Client;
}

/** Two committed disks, and a client of AWS's own to look at what a launch makes. */
async function ready(launch: LaunchOptions = {}, place?: Place): Promise<Ready> {
  const own = place ?? (await startPlace());
  const target = await own.open({ target: { launch } });
  const content = { boot: bootBlock(1), data: bootBlock(2) };
  const disks: LaunchDisk[] = [];
  for (const [key, bytes] of Object.entries(content)) {
    const volume = await target.create({ key, size, job: "job" });
    const commit = await commitRun(target, volume, `run of ${key}`, new Map([[0, bytes]]));
    disks.push({ disk: key, boot: key === "boot", volume: commit });
  }
  return { place: own, target, disks, content, ec2: ec2Of(own.simulator) };
}

function ec2Of(simulator: AwsSimulator): EC2Client {
  const { region, credentials } = optionsFor(simulator);
  const client = new EC2Client({
    region: region!,
    endpoint: simulator.endpoint,
    credentials: credentials as { accessKeyId: string; secretAccessKey: string },
  });
  onTestFinished(() => client.destroy());
  return client;
}

/** Everything of EC2 that stands in the account besides the two instances that were there from the start. */
async function inventory({ ec2: client, place }: Ready): Promise<Record<string, string[]>> {
  const ready = Object.values(place.simulator.instances);
  const instances = (await client.send(new DescribeInstancesCommand({}))).Reservations ?? [];
  const volumes = (await client.send(new ec2.DescribeVolumesCommand({}))).Volumes ?? [];
  const images = (await client.send(new ec2.DescribeImagesCommand({ Owners: ["self"] }))).Images ?? [];
  const groups = (await client.send(new ec2.DescribeSecurityGroupsCommand({}))).SecurityGroups ?? [];
  const snapshots = (await client.send(new ec2.DescribeSnapshotsCommand({ OwnerIds: ["self"] }))).Snapshots ?? [];
  return {
    instances: instances
      .flatMap(({ Instances = [] }) => Instances)
      .filter(({ InstanceId, State }) => !ready.includes(InstanceId!) && State?.Name !== "terminated")
      .map(({ InstanceId }) => InstanceId!),
    volumes: volumes
      .filter(({ Attachments }) => !ready.includes(Attachments?.[0]?.InstanceId ?? ""))
      .map(({ VolumeId }) => VolumeId!),
    images: images.map(({ ImageId }) => ImageId!),
    groups: groups.filter(({ GroupName }) => GroupName !== "default").map(({ GroupId }) => GroupId!),
    snapshots: snapshots.map(({ SnapshotId }) => SnapshotId!).sort(),
  };
}

/** What a launch leaves when it is over: the two commits, and what stands for their volumes. */
const nothing = {
  instances: [],
  volumes: [],
  images: [],
  groups: [],
  snapshots: Array.from({ length: 4 }, (): unknown => expect.any(String)),
};
const machine: MachineSpec = {
  name: "web-1",
  cpus: 2,
  memoryBytes: 6 * 2 ** 30,
  architecture: "x86_64",
  firmware: "bios",
  guestFamily: "linux",
};

async function holdsContent({ place, content }: Ready, instance: string): Promise<void> {
  const volumes = place.simulator.volumesOf(instance);
  expect(volumes).toHaveLength(2);
  for (const [at, key] of ["boot", "data"].entries())
    expect(
      Buffer.compare(await place.simulator.volumeBytes(volumes[at]!, 0, block), content[key]!),
      `${key}, seed ${seed}`,
    ).toBe(0);
}

async function instanceOf({ ec2: client }: Ready, id: string): Promise<ec2.Instance> {
  const page = await client.send(new DescribeInstancesCommand({ InstanceIds: [id] }));
  return page.Reservations![0]!.Instances![0]!;
}

describe("the road over an image", () => {
  test("a cutover runs a right-sized instance with all disks, addresses, user data and tags", async () => {
    const world = await ready({
      securityGroups: undefined,
      privateIp: "172.31.0.77",
      userData: "#!/bin/sh\necho hello",
      volume: { type: "gp3", iops: 3000, throughput: 250 },
      disks: { data: { type: "io2", iops: 200 } },
    });
    // io2 volumes have 4 GiB at least, and these have one.
    await expect(
      world.target.launch!(machine, world.disks, { key: "wrong", purpose: "cutover", job: "job" }),
    ).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    expect(await inventory(world)).toMatchObject(nothing);
    const target = await world.place.open({
      tags: { team: "blue" },
      target: {
        launch: {
          privateIp: "172.31.0.77",
          userData: "#!/bin/sh\necho hello",
          volume: { iops: 3000, throughput: 250 },
        },
      },
    });
    const launched = await target.launch!(machine, world.disks, { key: "k", purpose: "cutover", job: "job" });
    expect(launched).toMatchObject({ name: "web-1", purpose: "cutover", consumed: false });
    const instance = await instanceOf(world, launched.id);
    expect(instance).toMatchObject({
      State: { Name: "running" },
      InstanceType: "m6i.large",
      PrivateIpAddress: "172.31.0.77",
      EnaSupport: true,
      VirtualizationType: "hvm",
      Architecture: "x86_64",
      BootMode: "legacy-bios",
    });
    expect(instance.Tags).toContainEqual({ Key: "team", Value: "blue" });
    expect(instance.Tags).toContainEqual({ Key: "Name", Value: "web-1" });
    expect(instance.Tags).toContainEqual({ Key: "diskferry:job", Value: "job" });
    const attribute = new ec2.DescribeInstanceAttributeCommand({ InstanceId: launched.id, Attribute: "userData" });
    const { UserData } = await world.ec2.send(attribute);
    expect(Buffer.from(UserData!.Value!, "base64").toString()).toBe("#!/bin/sh\necho hello");
    await holdsContent(world, launched.id);
    const volumes = await world.ec2.send(
      new ec2.DescribeVolumesCommand({ VolumeIds: world.place.simulator.volumesOf(launched.id) }),
    );
    for (const volume of volumes.Volumes!) {
      expect(volume).toMatchObject({ VolumeType: "gp3", Iops: 3000, Throughput: 250 });
      expect(volume.Tags).toContainEqual({ Key: "CreatedBy", Value: "diskferry" });
      expect(volume.Attachments![0]!.DeleteOnTermination).toBe(false);
    }
    await target.terminate!(launched);
    expect(await inventory(world)).toMatchObject(nothing);
  });

  test("a test launch talks to nobody, has no public address, and is taken down whole", async () => {
    const world = await ready();
    const launched = await world.target.launch!(machine, world.disks, { key: "k", purpose: "test", job: "job" });
    const instance = await instanceOf(world, launched.id);
    expect(instance.PublicIpAddress).toBeUndefined();
    const [group] = instance.SecurityGroups!;
    const command = new ec2.DescribeSecurityGroupsCommand({ GroupIds: [group!.GroupId!] });
    const [described] = (await world.ec2.send(command)).SecurityGroups!;
    expect([described!.IpPermissions, described!.IpPermissionsEgress]).toEqual([[], []]);
    expect(instance.SecurityGroups).toHaveLength(1);
    await world.target.terminate!(launched);
    expect(await inventory(world)).toMatchObject(nothing);
    // The commits stay.
    for (const { volume } of world.disks) await world.place.simulator.snapshotBytes(volume.id, 0, 1);
  });

  test("a UEFI machine with a TPM gets an image that says so; unknown firmware is read from the disk", async () => {
    const world = await ready();
    const uefi = await world.target.launch!({ ...machine, firmware: "uefi", tpm: true }, world.disks, {
      key: "u",
      purpose: "test",
    });
    expect(await instanceOf(world, uefi.id)).toMatchObject({ BootMode: "uefi", TpmSupport: "v2.0" });
    const { firmware: _, ...unknown } = machine;
    const found = await world.target.launch!(unknown, world.disks, { key: "f", purpose: "test" });
    expect(found.data?.["bootMode"]).toBe("legacy-bios");
    expect(found.notes?.join()).toContain("partitions say legacy-bios");
  });

  test("a commit that an image stands on is not removed", async () => {
    const world = await ready();
    const launched = await world.target.launch!(machine, world.disks, { key: "k", purpose: "test" });
    await expect(world.target.remove(world.disks[0]!.volume)).rejects.toMatchObject({ code: "IN_USE" });
    await world.target.terminate!(launched);
    await world.target.remove(world.disks[0]!.volume);
  });

  test("a terminated launch's key launches another instance", async () => {
    const world = await ready();
    const first = await world.target.launch!(machine, world.disks, { key: "k", purpose: "test" });
    await world.target.terminate!(first);
    const second = await world.target.launch!(machine, world.disks, { key: "k", purpose: "test" });
    expect(second.id).not.toBe(first.id);
    await holdsContent(world, second.id);
  });

  test("a machine that was ended without us leaves its key to another one, and its disks to their owner", async () => {
    const world = await ready();
    const request = { key: "k", purpose: "cutover", job: "job" } as const;
    const end = async (id: string): Promise<void> => {
      await world.ec2.send(new ec2.TerminateInstancesCommand({ InstanceIds: [id] }));
      await vi.waitFor(async () => expect((await instanceOf(world, id)).State?.Name).toBe("terminated"));
    };
    const first = await world.target.launch!(machine, world.disks, request);
    const disks = world.place.simulator.volumesOf(first.id);
    const written = randomBytes(block, seed + 9);
    await world.place.simulator.writeVolume(disks[0]!, 0, written);
    await end(first.id);
    const second = await world.target.launch!(machine, world.disks, request);
    expect(second.id).not.toBe(first.id);
    await holdsContent(world, second.id);

    await end(second.id);
    const { faults } = world.place.simulator;
    faults.add({ fault: "no-capacity", operation: "RunInstances", times: 1 });
    await expect(world.target.launch!(machine, world.disks, request)).rejects.toMatchObject({ retryable: false });
    // Nobody told us to remove what was written since the cutover.
    expect((await inventory(world))["volumes"]).toEqual(expect.arrayContaining(disks));
    expect(Buffer.compare(await world.place.simulator.volumeBytes(disks[0]!, 0, block), written)).toBe(0);
    const third = await world.target.launch!(machine, world.disks, request);
    await holdsContent(world, third.id);
    await world.target.terminate!(third);
    expect(await inventory(world)).toMatchObject(nothing);
  });

  test("a machine that was stopped since is the key's machine, and stays stopped", async () => {
    const world = await ready();
    const launched = await world.target.launch!(machine, world.disks, { key: "k", purpose: "cutover" });
    await world.ec2.send(new ec2.StopInstancesCommand({ InstanceIds: [launched.id] }));
    expect((await world.target.launch!(machine, world.disks, { key: "k", purpose: "cutover" })).id).toBe(launched.id);
    expect((await instanceOf(world, launched.id)).State?.Name).toMatch(/^stopp/);
  });

  test("a product's name that images cannot carry is written with what they can", async () => {
    const place = await startPlace({}, { product: "Zürich" });
    const world = await ready({}, place);
    const launched = await world.target.launch!({ ...machine, name: "wéb" }, world.disks, {
      key: "k",
      purpose: "test",
    });
    await holdsContent(world, launched.id);
    await world.target.terminate!(launched);
    expect(await inventory(world)).toMatchObject(nothing);
  });

  test("the same key for other disks is refused", async () => {
    const world = await ready();
    const launched = await world.target.launch!(machine, world.disks, { key: "k", purpose: "test" });
    const other = world.target.launch!(machine, world.disks.slice(0, 1), { key: "k", purpose: "test" });
    await expect(other).rejects.toMatchObject({ code: "EXISTS", message: expect.stringContaining(launched.id) });
    expect((await inventory(world))["instances"]).toEqual([launched.id]);
  });

  test("an instance that ends while it starts is an error with AWS's reason, and leaves nothing", async () => {
    const world = await ready({ instanceType: "m4.large", bootMode: "uefi", ena: false });
    const failed = world.target.launch!(machine, world.disks, { key: "k", purpose: "test" });
    await expect(failed).rejects.toMatchObject({ retryable: false, message: expect.stringContaining("InternalError") });
    expect(await inventory(world)).toMatchObject(nothing);
  });

  test("no permission to run instances names the action, and leaves nothing", async () => {
    const world = await ready();
    world.place.simulator.deny("111111111111", "ec2:RunInstances");
    const failed = world.target.launch!(machine, world.disks, { key: "k", purpose: "test" });
    await expect(failed).rejects.toMatchObject({
      code: "DENIED",
      message: expect.stringContaining("ec2:RunInstances"),
    });
    expect(await inventory(world)).toMatchObject(nothing);
  });
});

describe("a zone without room", () => {
  test("is said with what to do, nothing is left, and the same key launches once there is room", async () => {
    const world = await ready();
    const { faults } = world.place.simulator;
    faults.add({ fault: "no-capacity", operation: "RunInstances", times: 1 });
    await expect(
      world.target.launch!(machine, world.disks, { key: "k", purpose: "test", job: "job" }),
    ).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: false,
      message: expect.stringMatching(/sufficient capacity.*another type or subnet/) as string,
    });
    // Asked once: that zone has no room a second later either.
    expect(faults.counters()["RunInstances"]).toBe(1);
    expect(await inventory(world)).toMatchObject(nothing);
    const launched = await world.target.launch!(machine, world.disks, { key: "k", purpose: "test", job: "job" });
    await holdsContent(world, launched.id);
  });
});

describe("the road over a placeholder", () => {
  /** An image to start with: the one of another launch. */
  async function placeholder(world: Ready): Promise<string> {
    await world.target.launch!(machine, world.disks.slice(1), { key: "placeholder", purpose: "cutover" });
    return (await inventory(world))["images"]![0]!;
  }

  test("an instance is made and stopped, its volumes swapped for the replica's, and started", async () => {
    const world = await ready();
    const image = await placeholder(world);
    const before = await inventory(world);
    const target = await world.place.open({
      target: { launch: { road: "swap", placeholder: image, volume: { type: "gp3" } } },
    });
    const launched = await target.launch!(machine, world.disks, { key: "k", purpose: "cutover", job: "job" });
    const instance = await instanceOf(world, launched.id);
    expect(instance.State?.Name).toBe("running");
    await holdsContent(world, launched.id);
    expect((await inventory(world))["volumes"]).toHaveLength(before["volumes"]!.length + 2);
    const calls = world.place.simulator.faults.counters();
    for (const call of ["StopInstances", "StartInstances", "DetachVolume", "DeleteVolume"])
      expect(calls[call], call).toBe(1);
    const again = await target.launch!(machine, world.disks, { key: "k", purpose: "cutover", job: "job" });
    expect(again.id).toBe(launched.id);
    await target.terminate!(launched);
    expect(await inventory(world)).toEqual(before);
  });

  test("a machine that was given to its owner is neither started nor stopped for its disks, whatever became of them", async () => {
    const world = await ready();
    const launch = { road: "swap", placeholder: await placeholder(world) } as const;
    const target = await world.place.open({ target: { launch } });
    const request = { key: "k", purpose: "cutover", job: "job" } as const;
    const launched = await target.launch!(machine, world.disks, request);
    const data = world.place.simulator.volumesOf(launched.id)[1]!;
    await world.ec2.send(new ec2.DetachVolumeCommand({ VolumeId: data }));
    await vi.waitFor(() => expect(world.place.simulator.volumesOf(launched.id)).not.toContain(data));
    expect((await target.launch!(machine, world.disks, request)).id).toBe(launched.id);
    expect((await instanceOf(world, launched.id)).State?.Name).toBe("running");
    expect(world.place.simulator.volumesOf(launched.id)).not.toContain(data);
    await world.ec2.send(new ec2.StopInstancesCommand({ InstanceIds: [launched.id] }));
    expect((await target.launch!(machine, world.disks, request)).id).toBe(launched.id);
    expect((await instanceOf(world, launched.id)).State?.Name).toMatch(/^stopp/);
  });

  test("another instance of a key gets disks of its own, and those of the one before are left", async () => {
    const world = await ready();
    const launch = { road: "swap", placeholder: await placeholder(world) } as const;
    const before = await inventory(world);
    const target = await world.place.open({ target: { launch } });
    const request = { key: "k", purpose: "cutover", job: "job" } as const;
    const first = await target.launch!(machine, world.disks, request);
    const disks = world.place.simulator.volumesOf(first.id);
    for (const disk of disks) await world.place.simulator.writeVolume(disk, 0, randomBytes(block, seed + 9));
    await world.ec2.send(new ec2.TerminateInstancesCommand({ InstanceIds: [first.id] }));
    await vi.waitFor(async () => expect((await instanceOf(world, first.id)).State?.Name).toBe("terminated"));

    const { faults } = world.place.simulator;
    faults.add({ fault: "no-capacity", operation: "CreateVolume", times: 1 });
    await expect(target.launch!(machine, world.disks, request)).rejects.toMatchObject({ retryable: false });
    const second = await target.launch!(machine, world.disks, request);
    expect(second.id).not.toBe(first.id);
    await holdsContent(world, second.id);
    for (const disk of disks)
      expect(
        Buffer.compare(await world.place.simulator.volumeBytes(disk, 0, block), randomBytes(block, seed + 9)),
      ).toBe(0);
    await target.terminate!(second);
    expect(await inventory(world)).toEqual(before);
  });

  test("an instance that never got its disks is taken back, and the key launches with other options", async () => {
    const world = await ready();
    const launch = { road: "swap", placeholder: await placeholder(world) } as const;
    const before = await inventory(world);
    const { faults } = world.place.simulator;
    faults.add({ fault: "no-capacity", operation: "CreateVolume", calls: { first: 2, last: 2 } });
    const target = await world.place.open({ target: { launch } });
    const request = { key: "k", purpose: "cutover", job: "job" } as const;
    await expect(target.launch!(machine, world.disks, request)).rejects.toMatchObject({ retryable: false });
    expect(faults.counters()["RunInstances"]).toBe(2);
    expect(await inventory(world)).toEqual(before);

    // The token of the first call is spent, and AWS refuses it with another type.
    const other = await world.place.open({
      target: { launch: { ...launch, instanceType: "m5.xlarge" } },
      timeouts: { ...world.place.options.timeouts, visibleMs: 50 },
    });
    const launched = await other.launch!(machine, world.disks, request);
    expect((await instanceOf(world, launched.id)).InstanceType).toBe("m5.xlarge");
    await holdsContent(world, launched.id);
    expect((await inventory(world))["instances"]).toHaveLength(before["instances"]!.length + 1);
  });

  test("one whose disks are in place stays when it cannot be started, and goes on with the same key", async () => {
    const world = await ready();
    const launch = { road: "swap", placeholder: await placeholder(world) } as const;
    const before = await inventory(world);
    const { faults } = world.place.simulator;
    faults.add({ fault: "no-capacity", operation: "StartInstances", times: 1 });
    const target = await world.place.open({ target: { launch } });
    const request = { key: "k", purpose: "cutover", job: "job" } as const;
    await expect(target.launch!(machine, world.disks, request)).rejects.toMatchObject({ retryable: false });
    const [stopped] = (await inventory(world))["instances"]!.filter((id) => !before["instances"]!.includes(id));
    const launched = await target.launch!(machine, world.disks, request);
    expect(launched.id).toBe(stopped);
    await holdsContent(world, launched.id);
  });
});

describe("the road over AWS's conversion", () => {
  const linux: MachineSpec = { ...machine, guestFamily: "linux" };

  test("the guest is converted from the commits, and all of it goes with the machine", async () => {
    const world = await ready({ road: "convert" });
    const launched = await world.target.launch!(linux, world.disks, { key: "k", purpose: "test", job: "job" });
    await holdsContent(world, launched.id);
    expect(world.place.simulator.faults.counters()["ImportImage"]).toBe(1);
    const mine = async (): Promise<string[]> => {
      const command = new ec2.DescribeSnapshotsCommand({ OwnerIds: ["self"] });
      return ((await world.ec2.send(command)).Snapshots ?? []).map(({ SnapshotId }) => SnapshotId!);
    };
    const during = await mine();
    await world.target.terminate!(launched);
    expect(await inventory(world)).toMatchObject(nothing);
    // Two converted copies went; the commits and what stands for their volumes stay.
    expect(await mine()).toHaveLength(during.length - 2);
    for (const { volume } of world.disks) expect(await mine()).toContain(volume.id);
    const next = await world.target.launch!(linux, world.disks, { key: "k", purpose: "test", job: "job" });
    expect(next.id).not.toBe(launched.id);
  });

  test("a conversion that fails says why, in AWS's words, and leaves the replica", async () => {
    const world = await ready({ road: "convert" });
    world.place.simulator.failNextImport("ClientError: Unsupported kernel version 2.6.9");
    const failed = world.target.launch!(linux, world.disks, { key: "k", purpose: "test" });
    await expect(failed).rejects.toMatchObject({
      message: expect.stringContaining("Unsupported kernel version 2.6.9"),
    });
    expect(await inventory(world)).toMatchObject(nothing);
    const launched = await world.target.launch!(linux, world.disks, { key: "k", purpose: "test" });
    await holdsContent(world, launched.id);
  });

  test("a UEFI guest of no known family is refused before AWS is asked", async () => {
    const world = await ready({ road: "convert" });
    const { guestFamily: _, ...unknown } = machine;
    const failed = world.target.launch!({ ...unknown, firmware: "uefi" }, world.disks, { key: "k", purpose: "test" });
    await expect(failed).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("platform"),
    });
    expect(world.place.simulator.faults.counters()["ImportImage"]).toBeUndefined();
  });
});

describe("a kill after each call", () => {
  const changing =
    /^(Register|Run|Create|Revoke|Stop|Start(?!Snapshot)|Detach|Attach|Delete|Terminate|Deregister|Import)/;

  /**
   * Launches with the answer of the n-th changing call lost and the process gone, for every n, then launches again, and looks
   * at what stands there.
   */
  async function killed(options: LaunchOptions, prepare: (world: Ready) => Promise<LaunchOptions>): Promise<number> {
    // What is new is not listed at once, so that tags alone do not find it.
    const place = await startPlace({ delays: { describableMs: 40 } });
    const world = await ready(options, place);
    const launch = await prepare(world);
    const before = await inventory(world);
    for (let kill = 1; kill < 40; kill++) {
      const key = `kill ${kill}`;
      const stop = new AbortController();
      const dying = await place.open({ target: { launch } });
      let seen = 0;
      // The call reaches the far side, which does it; this side learns nothing of it.
      const { faults } = place.simulator;
      const next = faults.next.bind(faults);
      faults.next = (operation) => {
        if (changing.test(operation) && ++seen === kill) stop.abort();
        return next(operation);
      };
      const request = { key, purpose: "test" as const, job: "job" };
      const outcome = await dying.launch!(machine, world.disks, { ...request, signal: stop.signal }).then(
        (launched) => launched,
        () => undefined,
      );
      faults.next = next;
      expect(outcome === undefined, key).toBe(seen >= kill);
      const target = await place.open({ target: { launch } });
      const launched = await target.launch!(machine, world.disks, request);
      if (outcome !== undefined) expect(launched.id).toBe(outcome.id);
      const after = await inventory(world);
      const made = (kind: string): string[] => after[kind]!.filter((id) => !before[kind]!.includes(id));
      expect(made("instances"), key).toEqual([launched.id]);
      expect(made("volumes").sort(), key).toEqual(place.simulator.volumesOf(launched.id).sort());
      expect(made("images").length, key).toBe(launch.road === "swap" ? 0 : 1);
      expect(made("groups").length, key).toBe(1);
      await holdsContent(world, launched.id);
      await target.terminate!(launched);
      expect(await inventory(world), key).toEqual(before);
      if (outcome !== undefined) return kill;
    }
    return expect.fail("the launch never came to its end");
  }

  test("of the road over an image makes no second instance and leaves nothing untagged", async () => {
    expect(await killed({}, () => Promise.resolve({}))).toBeGreaterThanOrEqual(4);
  }, 180_000);

  test("of the road over a placeholder makes no second instance and leaves nothing untagged", async () => {
    const last = await killed({}, async (world) => {
      await world.target.launch!(machine, world.disks.slice(1), { key: "placeholder", purpose: "cutover" });
      return { road: "swap", placeholder: (await inventory(world))["images"]![0]! };
    });
    expect(last).toBeGreaterThanOrEqual(9);
  }, 180_000);

  test("of the road over a conversion makes no second instance and leaves nothing untagged", async () => {
    expect(await killed({ road: "convert" }, () => Promise.resolve({ road: "convert" }))).toBeGreaterThanOrEqual(4);
  }, 180_000);
});
