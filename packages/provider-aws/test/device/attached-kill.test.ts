import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
} from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import type { Volume } from "@diskferry/core/provider";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { AttachedTarget } from "../../src/device/attached-target.ts";
import type { AwsOptions } from "../../src/index.ts";
import { snapshotsWith } from "../../src/target/own-snapshots.ts";
import { type AwsWorld, awsWorld, gather } from "../aws-world.ts";
import { killedAtEveryCall } from "../killed-at-every-call.ts";
import { type DeviceMachine, deviceMachine } from "./device-machine.ts";

// A process that writes volumes attached to its own instance is killed after every single call of AWS: the call was done, its
// answer never read. Whoever comes next has to find what is there.

const seed = seedOf(83);
const mebi = 2 ** 20;
const size = 6 * mebi;
const delays = { startVisibleMs: 0, completeMs: 0, listableMs: 0, changeMs: 0 };

async function opened(world: AwsWorld, options: AwsOptions, own: DeviceMachine): Promise<AttachedTarget> {
  return new AttachedTarget(await AwsConnection.open(options), world.simulator.instances.linux, own.roots);
}

/** Volumes of the account that are none of the instances' own. */
async function made(world: AwsWorld, own: readonly string[]): Promise<string[]> {
  await using connection = await AwsConnection.open(world.options());
  const { Volumes = [] } = await connection.ec2(new DescribeVolumesCommand({}), { object: "volumes" });
  return Volumes.map(({ VolumeId = "" }) => VolumeId).filter((id) => !own.includes(id));
}

test("a run into attached volumes killed after any call: each volume once, in its place, with its bytes and one commit; then nothing", async () => {
  await using world = await awsWorld({ delays });
  const { simulator } = world;
  const { linux, windows } = simulator.instances;
  const before = [linux, windows].flatMap((id) => simulator.volumesOf(id));
  const own = deviceMachine();
  const names = ["first", "second"];
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      await using target = await opened(world, options(), own);
      const volumes: Volume[] = [];
      for (const name of names) {
        const volume = await target.create({ key: `${name} ${round}`, size, job: "job" });
        own.plug(volume);
        volumes.push(volume);
      }
      for (const [at, volume] of volumes.entries()) {
        await using writer = await target.open(volume, { run: `run ${round}`, epoch: 1, job: "job" });
        const bytes = randomBytes(mebi, seed + 2 * round + at);
        await writer.write(mebi, bytes);
        await writer.flush();
        await simulator.writeVolume(volume.id, 0, own.bytesOf(volume, size));
        const written = async function* (): AsyncGenerator<{ offset: number; length: number }> {
          yield { offset: mebi, length: mebi };
        };
        const commit = await writer.commit({ written: written() });
        expect(Buffer.compare(await simulator.snapshotBytes(commit.id, mebi, mebi), bytes), `seed ${seed}`).toBe(0);
      }
      if (attempt === 1) return;
      expect(await made(world, before)).toEqual(volumes.map(({ id }) => id));
      expect(simulator.volumesOf(linux)).toEqual([
        ...simulator.volumesOf(linux).filter((id) => before.includes(id)),
        ...volumes.map(({ id }) => id),
      ]);
      for (const name of names) {
        await using connection = await AwsConnection.open(world.options());
        expect(await snapshotsWith(connection, { "diskferry:key": `${name} ${round}` })).toHaveLength(1);
      }
      for await (const { volume } of target.owned("job")) await target.remove(volume!);
    },
    async () => {
      await using target = await opened(world, world.options(), own);
      expect(await gather(target.owned("job"))).toEqual([]);
      expect(await made(world, before)).toEqual([]);
    },
  );
  expect(calls).toBeGreaterThan(20);
}, 300_000);

test("the end of attached volumes killed after any call is brought about by the next", async () => {
  await using world = await awsWorld({ delays });
  const { linux } = world.simulator.instances;
  const before = world.simulator.volumesOf(linux);
  const own = deviceMachine();
  await using setUp = await opened(world, world.options(), own);
  const volumes = new Map<number, Volume>();
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      if (attempt === 1) volumes.set(round, await setUp.create({ key: `k ${round}`, size, job: "job" }));
      await using target = await opened(world, options(), own);
      await target.remove(volumes.get(round)!);
    },
    async () => {
      expect(world.simulator.volumesOf(linux)).toEqual(before);
      expect(await gather(setUp.owned("job"))).toEqual([]);
    },
  );
  expect(calls).toBeGreaterThan(3);
}, 300_000);

for (const operation of ["CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume"])
  test(`the answer to ${operation} that is lost fails nothing`, async () => {
    await using world = await awsWorld({ delays: { ...delays, changeMs: 20 } });
    const { faults, instances, volumesOf } = world.simulator;
    const before = volumesOf(instances.linux);
    await using target = await opened(world, world.options({ retryBudgetMs: 3000 }), deviceMachine());
    faults.add({ fault: "truncate", operation, times: 1 });
    const volume = await target.create({ key: "k", size, job: "job" });
    expect(volumesOf(instances.linux)).toEqual([...before, volume.id]);
    await target.remove(volume);
    expect(volumesOf(instances.linux)).toEqual(before);
    expect(await gather(target.owned("job"))).toEqual([]);
  });

test("a volume that is not where it was is not written, nor another in its place", async () => {
  await using world = await awsWorld({ delays });
  const { linux, windows } = world.simulator.instances;
  const own = deviceMachine();
  await using target = await opened(world, world.options(), own);
  const volume = await target.create({ key: "k", size: 2 ** 30, job: "job" });
  await using connection = await AwsConnection.open(world.options());
  await connection.ec2(new DetachVolumeCommand({ VolumeId: volume.id }), { object: volume.id });
  const shape = { AvailabilityZone: "us-east-1a", Size: 1 };
  const { VolumeId = "" } = await connection.ec2(new CreateVolumeCommand(shape), { object: "another" });
  const Device = volume.data!["device"] as string;
  await connection.ec2(new AttachVolumeCommand({ VolumeId, InstanceId: linux, Device }), { object: VolumeId });
  // As on Xen, where a disk has no serial number: only its name tells which it is.
  own.plug({ id: VolumeId, size: 2 ** 30 }, { name: Device.replace("/dev/sd", "xvd") });
  await expect(target.open(volume, { run: "r", epoch: 1 })).rejects.toMatchObject({ code: "CONFIG_INVALID" });

  await connection.ec2(new AttachVolumeCommand({ VolumeId: volume.id, InstanceId: windows, Device: "xvdp" }), {
    object: volume.id,
  });
  await expect(target.open(volume, { run: "r", epoch: 1 })).rejects.toMatchObject({ code: "IN_USE" });
  await expect(target.remove(volume)).rejects.toMatchObject({ code: "IN_USE" });
  expect(world.simulator.volumesOf(windows)).toContain(volume.id);
});
