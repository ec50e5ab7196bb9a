import { DescribeVolumesCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import type { LaunchDisk, LaunchedMachine, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { type AwsOptions, createVolume, provider } from "../../src/index.ts";
import { instancesOf } from "../../src/launch/launched-resources.ts";
import { snapshotsWith } from "../../src/target/own-snapshots.ts";
import { type AwsWorld, awsWorld, block } from "../aws-world.ts";
import { killedAtEveryCall } from "../killed-at-every-call.ts";
import { commitRun, sha256, writeBlocks, writtenOf } from "./target-place.ts";

// A process is killed after every single call of AWS: the call was done, its answer never read. Whoever comes next has to find
// what is there. No step is sampled: the scenario is repeated with one more call each time until none is left.

const seed = seedOf(73);
const size = 2 ** 30;
const delays = { startVisibleMs: 0, completeMs: 0, listableMs: 0, changeMs: 0 };
const blocks = (salt: number, ...indices: number[]): Map<number, Uint8Array> =>
  new Map(indices.map((index) => [index, randomBytes(block, seed + 1000 * salt + index)]));

const open = (options: AwsOptions): Promise<TargetProvider> => Promise.resolve(provider.target!(options));

async function holds(world: AwsWorld, commit: Volume, content: ReadonlyMap<number, Uint8Array>): Promise<void> {
  for (const [index, bytes] of content)
    expect(
      Buffer.compare(await world.simulator.snapshotBytes(commit.id, index * block, block), bytes),
      `block ${index}, seed ${seed}`,
    ).toBe(0);
}

/** What of a key stands in the account, by role and state. */
async function standing(world: AwsWorld, key: string): Promise<string[]> {
  await using connection = await AwsConnection.open(world.options());
  const all = await snapshotsWith(connection, { "diskferry:key": key });
  return all.map(({ state, tags }) => `${tags["diskferry:role"]} ${state}`).toSorted();
}

/** As core does: once the commit was begun nothing more is written, and the same listing is told again. */
async function run(
  target: TargetProvider,
  volume: Volume,
  request: { run: string; base?: Volume | undefined; content: ReadonlyMap<number, Uint8Array>; begun: Set<string> },
): Promise<Volume> {
  const { run: name, base, content, begun } = request;
  await using writer = await target.open(volume, { run: name, base, epoch: 1, job: "job" });
  if (!begun.has(name)) await writeBlocks(writer, content);
  await writer.flush();
  begun.add(name);
  return writer.commit({ written: writtenOf(content) });
}

test("a run killed after any call goes on: one volume, one commit, its bytes, nothing half-written", async () => {
  await using world = await awsWorld({ delays });
  const begun = new Set<string>();
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      await using target = await open(options());
      const volume = await target.create({ key: `run ${round}`, size, job: "job" });
      const content = blocks(round, 0, 5, 2047);
      const commit = await run(target, volume, { run: `run ${round}`, content, begun });
      if (attempt === 2) await holds(world, commit, new Map([...content, [1, new Uint8Array(block)]]));
    },
    async (round) => expect(await standing(world, `run ${round}`)).toEqual(["upload completed", "volume completed"]),
  );
  expect(calls).toBeGreaterThan(12);
}, 300_000);

test("an increment killed after any call goes on from its base: what changed, what was freed, and the rest of the base", async () => {
  await using world = await awsWorld({ delays });
  await using setUp = await open(world.options());
  const begun = new Set<string>();
  const bases = new Map<number, { volume: Volume; base: Volume }>();
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      const key = `increment ${round}`;
      if (attempt === 1) {
        const volume = await setUp.create({ key, size, job: "job" });
        bases.set(round, { volume, base: await commitRun(setUp, volume, "first", blocks(0, 0, 1, 2)) });
      }
      const { volume, base } = bases.get(round)!;
      await using target = await open(options());
      const content = new Map([...blocks(round, 1), [2, new Uint8Array(block)]]);
      const commit = await run(target, volume, { run: `next ${round}`, base, content, begun });
      if (attempt === 2) await holds(world, commit, new Map([...blocks(0, 0), ...content]));
      await holds(world, base, blocks(0, 0, 1, 2));
    },
    async (round) =>
      expect(await standing(world, `increment ${round}`)).toEqual([
        "upload completed",
        "upload completed",
        "volume completed",
      ]),
  );
  expect(calls).toBeGreaterThan(8);
}, 300_000);

test("a run that was given up, killed after any call, begins another generation and never the old snapshot", async () => {
  await using world = await awsWorld({ delays });
  await using setUp = await open(world.options());
  const generations = new Map<number, string>();
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      const key = `given up ${round}`;
      const volume = await setUp.create({ key, size, job: "job" });
      if (attempt === 1) {
        await using writer = await setUp.open(volume, { run: "r", epoch: 1, job: "job" });
        await writeBlocks(writer, blocks(1, 0, 1));
        generations.set(round, writer.generation);
      }
      await using target = await open(options());
      await using writer = await target.open(volume, { run: "r", epoch: 1, job: "job" });
      await writer.abandon();
      await using next = await target.open(volume, { run: "r", epoch: 1, job: "job" });
      expect(next.generation).not.toBe(generations.get(round));
      await next.write(3 * block, blocks(2, 3).get(3)!, { digest: sha256(blocks(2, 3).get(3)!) });
      // Were it the snapshot that was given up, its two blocks would make the count wrong.
      if (attempt === 2) await next.commit({ written: writtenOf(blocks(2, 3)) });
    },
    async (round) =>
      expect(await standing(world, `given up ${round}`)).toEqual(["upload completed", "volume completed"]),
  );
  expect(calls).toBeGreaterThan(4);
}, 300_000);

test("removals killed after any call are finished by the next", async () => {
  await using world = await awsWorld({ delays });
  await using setUp = await open(world.options());
  const made = new Map<number, Volume[]>();
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      const key = `removal ${round}`;
      if (attempt === 1) {
        const volume = await setUp.create({ key, size, job: "job" });
        const commit = await commitRun(setUp, volume, "r", blocks(1, 0));
        await using half = await setUp.open(volume, { run: "half", epoch: 1, job: "job" });
        await writeBlocks(half, blocks(1, 0));
        made.set(round, [volume, commit]);
      }
      await using target = await open(options());
      for (const volume of made.get(round)!) await target.remove(volume);
    },
    async (round) => expect(await standing(world, `removal ${round}`)).toEqual([]),
  );
  expect(calls).toBeGreaterThan(5);
}, 300_000);

test("a volume made of a commit, killed after any call, is one volume, and handed over once", async () => {
  await using world = await awsWorld({ delays });
  await using setUp = await open(world.options());
  const commit = await commitRun(setUp, await setUp.create({ key: "k", size, job: "job" }), "r", blocks(1, 0));
  const calls = await killedAtEveryCall(
    world,
    async (options, round) =>
      void (await createVolume({ in: options(), snapshotId: commit.id, zone: "us-east-1a", key: `v ${round}` })),
    async (round) => {
      await using connection = await AwsConnection.open(world.options());
      const Filters = [{ Name: "tag:diskferry:key", Values: [`v ${round}`] }];
      const { Volumes = [] } = await connection.ec2(new DescribeVolumesCommand({ Filters }), { object: "volumes" });
      expect(Volumes).toHaveLength(1);
      expect(Volumes[0]!.Tags?.some(({ Key }) => Key === "diskferry:handed-over")).toBe(true);
    },
  );
  expect(calls).toBeGreaterThan(4);
}, 300_000);

for (const purpose of ["test", "cutover"] as const) {
  test(`a ${purpose} launch and its end, each killed after any call: one machine, both disks, and nothing left over`, async () => {
    await using world = await awsWorld({ delays });
    await using setUp = await open(world.options());
    const disks: LaunchDisk[] = [];
    for (const [at, disk] of ["boot", "data"].entries()) {
      const volume = await setUp.create({ key: disk, size, job: "job" });
      disks.push({ disk, boot: at === 0, volume: await commitRun(setUp, volume, disk, blocks(at, 0)) });
    }
    const { simulator } = world;
    const live = async (launch: string): Promise<string[]> => {
      await using connection = await AwsConnection.open(world.options());
      return (await instancesOf(connection, { launch }, {})).map(({ InstanceId = "" }) => InstanceId);
    };
    const left = async (): Promise<string[]> => {
      await using target = await open(world.options());
      const found: string[] = [];
      for await (const { kind, id } of target.owned("job"))
        if (kind !== "commit" && kind !== "volume") found.push(`${kind} ${id}`);
      return found;
    };
    const machine = { name: "web", cpus: 2, memoryBytes: 4 * 2 ** 30, firmware: "bios" } as const;
    const launched = new Map<number, LaunchedMachine>();
    const calls = await killedAtEveryCall(
      world,
      async (options, round, attempt) => {
        const key = `${purpose} ${round}`;
        await using target = await open(options());
        const made = await target.launch!(machine, disks, { key, purpose, job: "job" });
        if (attempt === 1) return;
        expect(await live(key)).toEqual([made.id]);
        for (const [at, volume] of simulator.volumesOf(made.id).entries())
          expect(Buffer.compare(await simulator.volumeBytes(volume, 0, block), blocks(at, 0).get(0)!)).toBe(0);
        expect(simulator.volumesOf(made.id)).toHaveLength(2);
        await target.terminate!(made);
      },
      async () => expect(await left()).toEqual([]),
    );
    expect(calls).toBeGreaterThan(6);
    const ends = await killedAtEveryCall(
      world,
      async (options, round, attempt) => {
        const key = `${purpose} ended ${round}`;
        if (attempt === 1) launched.set(round, await setUp.launch!(machine, disks, { key, purpose, job: "job" }));
        await using target = await open(options());
        await target.terminate!(launched.get(round)!);
      },
      async () => expect(await left()).toEqual([]),
    );
    expect(ends).toBeGreaterThan(6);
    // The replica is as it was.
    for (const [at, { volume }] of disks.entries()) await holds(world, volume, blocks(at, 0));
  }, 300_000);
}
