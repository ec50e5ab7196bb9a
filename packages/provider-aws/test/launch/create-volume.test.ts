import { DescribeVolumesCommand, EC2Client, CreateTagsCommand } from "@aws-sdk/client-ec2";
import { expect, onTestFinished, test } from "vitest";
import type { OwnedResource, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { createVolume, type CreateVolumeRequest, removeCreatedVolume } from "../../src/index.ts";
import { gather } from "../aws-world.ts";
import { block, commitRun, type Place, startPlace } from "../target/target-place.ts";

const seed = seedOf(41);
const size = 2 ** 30;
const kmsKey = "arn:aws:kms:us-east-1:111111111111:key/0f0f0f0f-0000-4000-8000-000000000000";

interface Ready {
  place: Place;
  target: TargetProvider;
  ec2: EC2Client;
  /** Two commits of one disk, and what each has in its first block. */
  commits: { id: string; bytes: Uint8Array }[];
  request: CreateVolumeRequest;
}

async function ready(): Promise<Ready> {
  const place = await startPlace();
  const target = await place.open();
  const volume = await target.create({ key: "k", size, job: "job" });
  const commits: Ready["commits"] = [];
  let base: Volume | undefined;
  for (const run of ["one", "two"]) {
    const bytes = randomBytes(block, seed + commits.length);
    base = await commitRun(target, volume, run, new Map([[0, bytes]]), base);
    commits.push({ id: base.id, bytes });
  }
  const { simulator, options } = place;
  const ec2 = new EC2Client({
    region: "us-east-1",
    endpoint: simulator.endpoint,
    credentials: simulator.credentials[0]!,
  });
  onTestFinished(() => ec2.destroy());
  const request = { in: options, snapshotId: commits[0]!.id, zone: "us-east-1b", key: "v", job: "job" };
  return { place, target, ec2, commits, request };
}

/** Volumes besides those of the two instances that were there from the start. */
async function volumes({ ec2, place }: Ready): Promise<string[]> {
  const { linux, windows } = place.simulator.instances;
  const known = [...place.simulator.volumesOf(linux), ...place.simulator.volumesOf(windows)];
  const { Volumes = [] } = await ec2.send(new DescribeVolumesCommand({}));
  return Volumes.map(({ VolumeId }) => VolumeId!).filter((id) => !known.includes(id));
}

const created = async (target: TargetProvider): Promise<(OwnedResource & { volume?: Volume })[]> =>
  (await gather(target.owned("job"))).filter(({ kind }) => kind === "created-volume");

test("a volume is made of a commit with type, IOPS and throughput in the zone asked for, once per key", async () => {
  const world = await ready();
  const request = { ...world.request, iops: 3000, throughput: 300 };
  const made = await createVolume(request);
  expect(made).toEqual({ volumeId: expect.stringMatching(/^vol-/) as string, zone: "us-east-1b", size });
  const found = await world.place.simulator.volumeBytes(made.volumeId, 0, block);
  expect(Buffer.compare(found, world.commits[0]!.bytes), `seed ${seed}`).toBe(0);
  expect(await createVolume(request)).toEqual(made);
  expect(world.place.simulator.faults.counters()["CreateVolume"]).toBe(1);
  const wrong = createVolume({ ...request, key: "w", type: "st1" });
  await expect(wrong).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  expect(await volumes(world)).toEqual([made.volumeId]);
});

test("a key that has a volume of another commit, or in another zone, is refused: it would hold other bytes", async () => {
  const world = await ready();
  const { volumeId } = await createVolume(world.request);
  for (const other of [{ snapshotId: world.commits[1]!.id }, { zone: "us-east-1c" }])
    await expect(createVolume({ ...world.request, ...other })).rejects.toMatchObject({
      code: "EXISTS",
      message: expect.stringMatching(new RegExp(`${volumeId}.*${world.commits[0]!.id}.*Use another key`)) as string,
    });
  expect(await volumes(world)).toEqual([volumeId]);
});

test("a volume that was made and never handed over is owned by its job, and clean-up removes it", async () => {
  const world = await ready();
  const { simulator } = world.place;
  const stop = new AbortController();
  // The process ends while the volume is made: the call was heard, and its answer by nobody.
  const next = simulator.faults.next.bind(simulator.faults);
  simulator.faults.next = (operation) => {
    if (operation === "CreateVolume") stop.abort();
    return next(operation);
  };
  await expect(createVolume({ ...world.request, signal: stop.signal })).rejects.toThrow(/abort/);
  simulator.faults.next = next;
  await expect.poll(() => volumes(world)).toHaveLength(1);
  const [orphan] = await created(world.target);
  expect(orphan).toMatchObject({ id: (await volumes(world))[0]!, description: expect.stringContaining("abandoned") });
  await world.target.remove(orphan!.volume!);
  await world.target.remove(orphan!.volume!);
  expect(await volumes(world)).toEqual([]);
  expect(await created(world.target)).toEqual([]);
  // The key is free again.
  await createVolume(world.request);
  expect(await volumes(world)).toHaveLength(1);
});

test("a volume that was handed over is told of, and left by clean-up: somebody may have written to it", async () => {
  const world = await ready();
  const { volumeId } = await createVolume(world.request);
  const [owned] = await created(world.target);
  expect(owned).toMatchObject({ id: volumeId, description: expect.stringContaining("removeCreatedVolume") });
  expect(owned!.volume).toBeUndefined();
  const handle = { id: volumeId, size, data: { kind: "created", region: "us-east-1" } };
  await expect(world.target.remove(handle)).rejects.toMatchObject({ code: "DENIED" });
  expect(await volumes(world)).toEqual([volumeId]);
  await removeCreatedVolume(world.request);
  await removeCreatedVolume(world.request);
  expect(await volumes(world)).toEqual([]);
});

test("a volume that is attached is never removed, and none of somebody else's", async () => {
  const world = await ready();
  const { simulator } = world.place;
  const [theirs] = simulator.volumesOf(simulator.instances.linux);
  const handle = (id: string): Volume => ({ id, size, data: { kind: "created", region: "us-east-1" } });
  await expect(world.target.remove(handle(theirs!))).rejects.toMatchObject({ code: "DENIED" });
  const own = [
    ["diskferry:key", "v"],
    ["diskferry:role", "created"],
    ["CreatedBy", "diskferry"],
  ].map(([Key, Value]) => ({ Key, Value }));
  await world.ec2.send(new CreateTagsCommand({ Resources: [theirs!], Tags: own }));
  const inUse = { code: "IN_USE", message: expect.stringContaining(simulator.instances.linux) as string };
  await expect(world.target.remove(handle(theirs!))).rejects.toMatchObject(inUse);
  await expect(removeCreatedVolume(world.request)).rejects.toMatchObject(inUse);
  expect(simulator.volumesOf(simulator.instances.linux)).toContain(theirs);
});

test("a key that KMS refuses ends the volume in error: it is said, and nothing is left", async () => {
  const world = await ready();
  world.place.simulator.denyKey(kmsKey);
  for (let attempt = 0; attempt < 2; attempt++) {
    await expect(createVolume({ ...world.request, kmsKey })).rejects.toMatchObject({
      code: "DENIED",
      retryable: false,
      message: expect.stringMatching(/in error.*removed.*kms:CreateGrant/) as string,
    });
    expect(await volumes(world)).toEqual([]);
  }
  // The same key, with what is allowed.
  await createVolume(world.request);
  expect(await volumes(world)).toHaveLength(1);
});
