import { expect, test } from "vitest";
import type { Tile } from "@diskferry/core/provider";
import type { AwsFault } from "@diskferry/simulators";
import { awsWorld, block, gather, gibi, randomBlock } from "../aws-world.ts";
import { place } from "./taken.ts";

/** Reads one block with the token of its tile. */
async function hints(source: { tracker?: { changes(disk: never): AsyncIterable<Tile> } }, disk: unknown) {
  const tiles = await gather(source.tracker!.changes(disk as never));
  return new Map(tiles.filter(({ kind }) => kind === "changed").map(({ offset, hint }) => [offset / block, hint]));
}

const damages: [AwsFault, string][] = [
  ["flip", "CORRUPT"],
  ["empty", "CORRUPT"],
  ["truncate", "UNAVAILABLE"],
  ["read-failed", "UNAVAILABLE"],
  ["internal-error", "UNAVAILABLE"],
  ["reset", "UNAVAILABLE"],
  ["throttle", "THROTTLED"],
  ["resource-throttle", "THROTTLED"],
  ["hang", "UNAVAILABLE"],
];

for (const [fault, code] of damages) {
  test(`a block that meets "${fault}" is asked for once, fails as ${code} to be tried again, and is right then`, async () => {
    await using world = await awsWorld();
    await using it = await place(world, fault === "hang" ? { timeouts: { blockMs: 5000 } } : {});
    const { faults } = world.simulator;
    const bytes = randomBlock();
    await it.write(3, bytes);
    const disk = await it.point();
    const reader = await it.source.open(disk);
    const hint = (await hints(it.source, disk)).get(3);
    const into = new Uint8Array(block).fill(0x5a);
    faults.add({ fault, operation: "GetSnapshotBlock", times: 1 });
    const before = faults.counters()["GetSnapshotBlock"] ?? 0;
    await expect(reader.read(3 * block, into, { hint })).rejects.toMatchObject({ code, retryable: true });
    expect((faults.counters()["GetSnapshotBlock"] ?? 0) - before).toBe(1);
    await reader.read(3 * block, into, { hint });
    expect(Buffer.compare(into, bytes)).toBe(0);
  });
}

test("a refusal is final after one call, and names the action and the resource", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const { faults } = world.simulator;
  await it.write(0, randomBlock());
  const disk = await it.point();
  const reader = await it.source.open(disk);
  world.simulator.deny("111111111111", "ebs:GetSnapshotBlock");
  await expect(reader.read(0, new Uint8Array(block))).rejects.toMatchObject({
    code: "DENIED",
    retryable: false,
    message: expect.stringMatching(
      /ebs:GetSnapshotBlock on arn:aws:ec2:us-east-1::snapshot\/snap-\w+ is denied/,
    ) as string,
  });
  expect(faults.counters()["GetSnapshotBlock"]).toBe(1);
});

test("nothing is written into a buffer after its read was given up in the middle", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const bytes = randomBlock().fill(0x11);
  for (let index = 0; index < 16; index++) await it.write(index, bytes);
  const reader = await it.source.open(await it.point());
  const into = new Uint8Array(16 * block);
  const controller = new AbortController();
  const reading = reader.read(0, into, { signal: controller.signal });
  const watch = setInterval(() => {
    if (into.some((byte) => byte !== 0)) controller.abort(new Error("given up"));
  }, 1);
  await expect(reading).rejects.toThrow("given up");
  clearInterval(watch);
  into.fill(0x5a);
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(into.every((byte) => byte === 0x5a)).toBe(true);
});

test("blocks that the snapshot does not list are zeroes, and no block is asked for", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const last = gibi / block - 1;
  const bytes = randomBlock();
  await it.write(last, bytes);
  const reader = await it.source.open(await it.point());
  const into = new Uint8Array(64 * block).fill(1);
  await reader.read(0, into);
  expect(into.every((byte) => byte === 0)).toBe(true);
  expect(world.simulator.faults.counters()["GetSnapshotBlock"]).toBeUndefined();
  const end = new Uint8Array(2 * block).fill(1);
  await reader.read(gibi - 2 * block, end);
  expect(Buffer.compare(end, Buffer.concat([Buffer.alloc(block), bytes]))).toBe(0);
});

test("reads without tokens list by the page, not by the block", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const { faults } = world.simulator;
  const bytes = randomBlock();
  for (let index = 0; index < 120; index += 2) await it.write(index, bytes);
  const reader = await it.source.open(await it.point());
  const before = faults.counters()["ListSnapshotBlocks"] ?? 0;
  await Promise.all(
    Array.from({ length: 120 }, async (_, index) => {
      const into = new Uint8Array(block);
      await reader.read(index * block, into);
      expect(Buffer.compare(into, index % 2 === 0 ? bytes : Buffer.alloc(block))).toBe(0);
    }),
  );
  // One page, and at most one more that was empty.
  expect((faults.counters()["ListSnapshotBlocks"] ?? 0) - before).toBeLessThanOrEqual(2);
});

test("a token that ran out after seven days is exchanged, and the read goes on", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const bytes = randomBlock();
  await it.write(5, bytes);
  const disk = await it.point();
  const hint = (await hints(it.source, disk)).get(5);
  const reader = await it.source.open(disk);
  world.simulator.advance(8 * 86_400_000);
  const into = new Uint8Array(block);
  await reader.read(5 * block, into, { hint });
  expect(Buffer.compare(into, bytes)).toBe(0);
});

test("where a new listing ends the tokens of the last one, many readers at once exchange them together", async () => {
  await using world = await awsWorld({ strictTokens: true });
  await using it = await place(world);
  const { faults } = world.simulator;
  const blocks = Array.from({ length: 48 }, () => randomBlock());
  for (const [index, bytes] of blocks.entries()) await it.write(index, bytes);
  const disk = await it.point();
  const stale = await hints(it.source, disk);
  await hints(it.source, disk);
  const reader = await it.source.open(disk);
  const before = faults.counters()["ListSnapshotBlocks"] ?? 0;
  await Promise.all(
    blocks.map(async (bytes, index) => {
      const into = new Uint8Array(block);
      await reader.read(index * block, into, { hint: stale.get(index) });
      expect(Buffer.compare(into, bytes)).toBe(0);
    }),
  );
  expect((faults.counters()["ListSnapshotBlocks"] ?? 0) - before).toBeLessThanOrEqual(6);
});
