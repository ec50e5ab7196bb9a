import { DeleteSnapshotCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { AwsConnection } from "../../src/connection/connection.ts";
import { type AwsWorld, awsWorld, block, gather, gibi, randomBlock } from "../aws-world.ts";
import { inBlocks, place } from "./taken.ts";

async function remove(world: AwsWorld, id: string): Promise<void> {
  await using connection = await AwsConnection.open(world.options());
  await connection.ec2(new DeleteSnapshotCommand({ SnapshotId: id }), { object: id });
}

test("a block that was freed since is zero, and is not read from the old snapshot", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  for (let index = 0; index < 6; index++) await it.write(index, randomBlock());
  const base = await it.point();
  const since = await it.source.tracker!.checkpoint(base);
  await world.simulator.trimVolume(it.root, 2 * block, 2 * block);
  await it.write(5, randomBlock());
  const now = await it.point();
  const tiles = await gather(it.source.tracker!.changes(now, { since }));
  expect(inBlocks(tiles)).toEqual([
    "unchanged 0+2",
    "zero 2+2",
    "unchanged 4+1",
    "changed 5+1",
    `unchanged 6+${2048 - 6}`,
  ]);
  const reader = await it.source.open(now);
  const into = new Uint8Array(2 * block).fill(1);
  await reader.read(2 * block, into);
  expect(into.every((byte) => byte === 0)).toBe(true);
});

test("after growth new blocks are changed, and what the disk grew by is zero where nothing was written", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  await it.write(1, randomBlock());
  const since = await it.source.tracker!.checkpoint(await it.point());
  world.simulator.growVolume(it.root, 2);
  await world.simulator.writeVolume(it.root, gibi + 3 * block, randomBlock());
  const grown = await it.point();
  expect(grown.size).toBe(2 * gibi);
  const tiles = await gather(it.source.tracker!.changes(grown, { since }));
  expect(inBlocks(tiles)).toEqual(["unchanged 0+2048", "zero 2048+3", "changed 2051+1", `zero 2052+${2048 - 4}`]);
  const part = await gather(it.source.tracker!.changes(grown, { since, from: gibi - block, to: gibi + 4 * block }));
  expect(inBlocks(part)).toEqual(["unchanged 2047+1", "zero 2048+3", "changed 2051+1"]);
});

test("pages of ten thousand are asked for, empty ones are no end, and blocks reported without need do no harm", async () => {
  await using world = await awsWorld({ emptyPageEvery: 2, overReportEvery: 4 });
  await using it = await place(world);
  for (let index = 0; index < 250; index++) await it.write(index * 2, randomBlock(512));
  const before = world.simulator.faults.counters()["ListSnapshotBlocks"] ?? 0;
  const base = await it.point();
  const full = await gather(it.source.tracker!.changes(base));
  expect(full.filter(({ kind }) => kind === "changed").length).toBe(250);
  // 250 blocks would be three pages of the default hundred; the rest are probes and empty pages.
  expect((world.simulator.faults.counters()["ListSnapshotBlocks"] ?? 0) - before).toBeLessThanOrEqual(5);
  const since = await it.source.tracker!.checkpoint(base);
  await it.write(1, randomBlock());
  const changed = await gather(it.source.tracker!.changes(await it.point(), { since }));
  expect(changed.some(({ kind, offset }) => kind === "changed" && offset === block)).toBe(true);
});

test("a listing whose first page is refused fails to be tried again, and never ends as if nothing had changed", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const disk = await it.point();
  world.simulator.faults.add({ fault: "internal-error", operation: "ListSnapshotBlocks", times: 1 });
  await expect(gather(it.source.tracker!.changes(disk))).rejects.toMatchObject({
    code: "UNAVAILABLE",
    retryable: true,
  });
  expect(inBlocks(await gather(it.source.tracker!.changes(disk)))).toEqual(["zero 0+2048"]);
});

test("a checkpoint since which the same snapshot is asked for lists nothing as changed, without a call", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const disk = await it.point();
  const since = await it.source.tracker!.checkpoint(disk);
  expect(inBlocks(await gather(it.source.tracker!.changes(disk, { since })))).toEqual(["unchanged 0+2048"]);
  expect(world.simulator.faults.counters()["ListChangedBlocks"]).toBeUndefined();
});

test("tracking is lost, with its reason, when the base is gone, archived, of another volume, Region or size", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  await it.write(0, randomBlock());
  const base = await it.point();
  const since = (await it.source.tracker!.checkpoint(base))!;
  await it.write(1, randomBlock());
  const now = await it.point();
  const lost = async (checkpoint: string, why: RegExp): Promise<void> => {
    await expect(gather(it.source.tracker!.changes(now, { since: checkpoint }))).rejects.toMatchObject({
      code: "TRACKING_LOST",
      message: expect.stringMatching(why) as string,
    });
  };
  const edited = (more: object): string => JSON.stringify({ ...(JSON.parse(since) as object), ...more });
  await lost(edited({ volumeId: "vol-0123456789abcdef0" }), /the volume was replaced/);
  await lost(edited({ region: "eu-west-1" }), /in eu-west-1 and the snapshot in us-east-1/);
  await lost(edited({ size: 2 * gibi }), /only 1073741824/);
  await lost(edited({ version: 99 }), /version that this one does not know/);
  await lost(edited({ snapshotId: "snap-0123456789abcdef0" }), /snap-0123456789abcdef0 is gone/);
  world.simulator.archiveSnapshot(base.id);
  await lost(since, /archived/);
});

test("tracking is lost when AWS calls two snapshots unrelated", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const [, second] = it.machine.disks;
  const whole = await it.snapshot();
  const other = whole.disks.find(({ disk }) => disk === second!.key)!;
  const mine = whole.disks.find(({ disk }) => disk === it.root)!;
  const since = (await it.source.tracker!.checkpoint(other))!;
  // As two copies look, of which EC2 does not tell the volume.
  const copy = JSON.stringify({ ...(JSON.parse(since) as object), volumeId: "vol-ffffffff" });
  await expect(
    gather(it.source.tracker!.changes({ ...mine, data: { ...mine.data, volumeId: "vol-ffffffff" } }, { since: copy })),
  ).rejects.toMatchObject({ code: "TRACKING_LOST" });
});

test("a base that is removed while it is listed is lost tracking; a snapshot that is removed is not found", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  await it.write(0, randomBlock());
  const base = await it.point();
  const since = await it.source.tracker!.checkpoint(base);
  const now = await it.point();
  await remove(world, now.id);
  await expect(gather(it.source.tracker!.changes(now, { since }))).rejects.toMatchObject({ code: "NOT_FOUND" });
  const later = await it.point();
  await remove(world, base.id);
  await expect(gather(it.source.tracker!.changes(later, { since }))).rejects.toMatchObject({ code: "TRACKING_LOST" });
});

test("a snapshot that a checkpoint stands on is tagged as held, and told of as such", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const snapshot = await it.source.snapshot(it.machine, { key: "held", job: "nightly" });
  expect((await gather(it.source.owned("nightly")))[0]?.description).not.toContain("held");
  await it.source.tracker!.checkpoint(snapshot.disks[0]!);
  expect((await gather(it.source.owned("nightly")))[0]?.description).toContain("held as the base");
  await it.source.release(snapshot);
  expect(await gather(it.source.owned("nightly"))).toEqual([]);
});

test("a page token that ran out after an hour makes the listing go on behind the last block", async () => {
  await using world = await awsWorld({ emptyPageEvery: 0 });
  const volume = world.simulator.addSyntheticVolume({ sizeGib: 6, stride: 1 });
  await using it = await place(world);
  const { disks } = await it.source.snapshot(await it.source.machine(volume), { key: "slow" });
  const tiles = [];
  for await (const tile of it.source.tracker!.changes(disks[0]!)) {
    if (tiles.length === 0) world.simulator.advance(61 * 60_000);
    tiles.push(tile);
  }
  expect(inBlocks(tiles)).toEqual([`changed 0+${6 * 2048}`]);
});

for (const stride of [1, 64]) {
  test(`memory stays flat while ${stride === 1 ? "64 GiB without a hole" : "a volume of 4 TiB"} is listed`, async () => {
    await using world = await awsWorld();
    const sizeGib = stride === 1 ? 64 : 4096;
    const volume = world.simulator.addSyntheticVolume({ sizeGib, stride });
    await using it = await place(world);
    const machine = await it.source.machine(volume);
    const { disks } = await it.source.snapshot(machine, { key: "large" });
    let listed = 0;
    let early = 0;
    let end = 0;
    for await (const { offset, length, kind } of it.source.tracker!.changes(disks[0]!)) {
      expect(offset).toBe(end);
      end = offset + length;
      if (kind !== "changed") continue;
      if (++listed === 20_000) early = await used();
    }
    expect(end).toBe(sizeGib * gibi);
    expect(listed).toBe((sizeGib * gibi) / block / stride);
    // A list of all these blocks with their tokens would be thirty MiB and more.
    expect((await used()) - early).toBeLessThan(12 * 2 ** 20);
  });
}

/** Bytes of the heap that are reachable. */
async function used(): Promise<number> {
  const { setFlagsFromString } = await import("node:v8");
  const { runInNewContext } = await import("node:vm");
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}
