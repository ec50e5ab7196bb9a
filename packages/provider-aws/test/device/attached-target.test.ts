import { DetachVolumeCommand } from "@aws-sdk/client-ec2";
import { expect, onTestFinished, test } from "vitest";
import type { Volume } from "@diskferry/core/provider";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { AttachedTarget } from "../../src/device/attached-target.ts";
import { provider } from "../../src/index.ts";
import { type Place, startPlace } from "../target/target-place.ts";
import { type DeviceMachine, deviceMachine } from "./device-machine.ts";

// What is written to a device is put into the simulator's volume before its snapshot is taken, as the disk itself would do.

const mebi = 1024 * 1024;
const seed = seedOf(57);

async function open(place: Place, own: DeviceMachine): Promise<AttachedTarget> {
  const connection = await AwsConnection.open(place.options);
  const target = new AttachedTarget(connection, place.simulator.instances.linux, own.roots);
  onTestFinished(() => target[Symbol.asyncDispose]());
  return target;
}

test("blocks are written in place through the device, and each commit is a snapshot of it that launches", async () => {
  const place = await startPlace();
  const own = deviceMachine();
  const target = await open(place, own);
  const volume = await target.create({ key: "k", size: 6 * mebi, job: "job" });
  own.plug(volume);
  const content = new Uint8Array(6 * mebi);

  async function run(name: string, offset: number, bytes: Uint8Array, base?: Volume): Promise<Volume> {
    await using writer = await target.open(volume, { run: name, base, epoch: 1, job: "job" });
    expect(writer.blank).toBeUndefined();
    content.set(bytes, offset);
    await writer.write(offset, bytes);
    await writer.flush();
    const device = own.bytesOf(volume, content.length);
    expect(Buffer.compare(device, content), `seed ${seed}`).toBe(0);
    await place.simulator.writeVolume(volume.id, 0, device);
    const written = async function* (): AsyncGenerator<{ offset: number; length: number }> {
      yield { offset, length: bytes.length };
    };
    const commit = await writer.commit({ written: written() });
    expect((await writer.commit({ written: written() })).id).toBe(commit.id);
    return commit;
  }

  const first = await run("r1", mebi, randomBytes(2 * mebi, seed));
  const before = content.slice();
  const second = await run("r2", 4 * mebi, randomBytes(512, seed + 1), first);
  expect(second.id).not.toBe(first.id);
  for (const [{ id }, bytes] of [[first, before] as const, [second, content] as const])
    expect(Buffer.compare(await place.simulator.snapshotBytes(id, 0, bytes.length), bytes), `seed ${seed}`).toBe(0);
  await using reader = await target.read(second);
  expect(reader.size).toBe(second.size);
  const disks = [{ disk: "sda", boot: true, volume: second }];
  const launched = await target.launch({ firmware: "bios" }, disks, { key: "l", purpose: "test", job: "job" });
  const [root] = place.simulator.volumesOf(launched.id);
  expect(Buffer.compare(await place.simulator.volumeBytes(root!, 0, content.length), content), `seed ${seed}`).toBe(0);
  await target.terminate(launched);
  for (const each of [first, second, volume]) await target.remove(each);
  for await (const { kind, id } of target.owned("job")) expect.fail(`${kind} ${id}`);
});

test("a volume is made once, attached under a free name, found by the job, and removed whole", async () => {
  const place = await startPlace();
  const own = deviceMachine();
  const target = await open(place, own);
  const before = place.simulator.volumesOf(place.simulator.instances.linux);
  const volume = await target.create({ key: "k", size: 5 * mebi, job: "job" });
  expect((await (await open(place, own)).create({ key: "k", size: 5 * mebi, job: "job" })).id).toBe(volume.id);
  // /dev/sdf and /dev/sdg are taken.
  expect(volume).toMatchObject({ size: 2 ** 30, data: { device: "/dev/sdh" } });
  expect(place.simulator.volumesOf(place.simulator.instances.linux)).toEqual([...before, volume.id]);
  const owned = [];
  for await (const { id } of target.owned("job")) owned.push(id);
  expect(owned).toEqual([volume.id]);
  await target.remove(volume);
  await target.remove(volume);
  expect(place.simulator.volumesOf(place.simulator.instances.linux)).toEqual(before);
  const again = await target.create({ key: "k", size: 5 * mebi, job: "job" });
  expect(again.id).not.toBe(volume.id);
});

test("a volume smaller than the disk is refused with both sizes and the remedy; nothing is attached, made or left", async () => {
  const place = await startPlace();
  const target = await open(place, deviceMachine());
  const { linux } = place.simulator.instances;
  const before = place.simulator.volumesOf(linux);
  const volume = await target.create({ key: "k", size: 5 * mebi, job: "job" });
  const refusal = {
    code: "UNSUPPORTED",
    message: `Volume ${volume.id} has 1 GiB, fewer than the ${2 ** 31} bytes of the disk: begin a new job.`,
  };
  const large = (): Promise<Volume> => target.create({ key: "k", size: 2 ** 31, job: "job" });
  await expect(large()).rejects.toMatchObject(refusal);
  // Taken off meanwhile, it is not attached again before its size is looked at.
  await using connection = await AwsConnection.open(place.options);
  await connection.ec2(new DetachVolumeCommand({ VolumeId: volume.id }), { object: volume.id });
  await expect.poll(() => place.simulator.volumesOf(linux)).toEqual(before);
  const calls = place.simulator.faults.counters();
  await expect(large()).rejects.toMatchObject(refusal);
  const after = place.simulator.faults.counters();
  expect(place.simulator.volumesOf(linux)).toEqual(before);
  for (const call of ["AttachVolume", "CreateVolume"]) expect(after[call], call).toBe(calls[call]);
  const owned = [];
  for await (const { kind, id } of target.owned("job")) owned.push([kind, id]);
  expect(owned).toEqual([["volume", volume.id]]);
});

test("a run does not start from a commit of another volume", async () => {
  const place = await startPlace();
  const own = deviceMachine();
  const target = await open(place, own);
  const volume = await target.create({ key: "k", size: 5 * mebi });
  own.plug(volume);
  const ebs = await place.open();
  const other = await ebs.create({ key: "k", size: 5 * mebi });
  const writer = await ebs.open(other, { run: "r", epoch: 1 });
  const foreign = await writer.commit({ written: (async function* () {})() });
  await expect(target.open(volume, { run: "r", base: foreign, epoch: 1 })).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("a volume that the kernel never shows is an error after its time, and nothing is written", async () => {
  const place = await startPlace({}, { timeouts: { pollMs: 5, visibleMs: 50 } });
  const target = await open(place, deviceMachine());
  const volume = await target.create({ key: "k", size: 5 * mebi });
  await expect(target.open(volume, { run: "r", epoch: 1 })).rejects.toMatchObject({
    code: "UNAVAILABLE",
    message: expect.stringContaining(volume.id),
  });
});

test("the option `attached` opens this target, and a plan of it counts snapshots, not blocks", async () => {
  const place = await startPlace();
  const { linux } = place.simulator.instances;
  const target = await provider.target!({ ...place.options, target: { attached: { instance: linux } } });
  onTestFinished(() => target[Symbol.asyncDispose]());
  const figure = { value: mebi, kind: "bound" } as const;
  const found = await target.preflight!({
    disks: [{ disk: "a", size: mebi, mode: "full", read: figure, write: figure }],
  });
  expect(found.calls).toEqual([{ operation: "CreateSnapshot", count: { value: 1, kind: "exact" } }]);
  expect(found.privileges!.needed).toContain("ec2:AttachVolume");
  expect(found.minutes).toBeUndefined();
});
