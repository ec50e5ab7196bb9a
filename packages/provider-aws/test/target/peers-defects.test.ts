import { describe, expect, test } from "vitest";
import { memoryPlace, MemoryStateStore, replicate } from "@diskferry/core";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { block, commitRun, sha256, startPlace, writeBlocks, writtenOf } from "./target-place.ts";

// What coldsnap and flexible-snapshot-proxy get wrong about writing; each has its test that shows ours right. Those about
// resuming, lineage, zeroes under encryption and a parent, and "snapshot does not exist" are in uploads.test.ts; coldsnap #353,
// two downloads into one directory that hang, is in test/aws-source.test.ts of the repository.

const size = 2 ** 30;
const seed = seedOf(31);
const bytesOf = (index: number): Uint8Array => randomBytes(block, seed + index);
const some = (...indices: number[]): Map<number, Uint8Array> =>
  new Map(indices.map((index) => [index, bytesOf(index)]));

describe("the aggregate (flexible-snapshot-proxy sends none)", () => {
  test("goes along: a commit with the right count and a wrong digest is refused", async () => {
    const { open } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    await writeBlocks(writer, some(0, 1));
    const lying = new Map([...some(0), [1, bytesOf(7)] as const]);
    await expect(writer.commit({ written: writtenOf(lying) })).rejects.toMatchObject({ code: "CORRUPT" });
  });

  test("an empty listing after blocks were put completes no empty snapshot (flexible-snapshot-proxy, copy and sync)", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    const writer = await target.open(volume, { run: "r", epoch: 1, job: "job" });
    await writeBlocks(writer, some(0));
    await expect(writer.commit({ written: writtenOf(new Map()) })).rejects.toMatchObject({ code: "CORRUPT" });
    for await (const { kind, id } of target.owned("job")) if (kind === "commit") expect.fail(`${id} was committed`);
    await expect(simulator.snapshotBytes(writer.generation, 0, 1)).rejects.toThrow();
  });
});

describe("one owner of retries (coldsnap 0.6: 12 tries over the SDK's 3, of every error)", () => {
  test.for([
    "internal-error",
    "unavailable",
    "throttle",
    "resource-throttle",
    "write-timeout",
    "reset",
    "truncate",
  ] as const)("%s: the provider sends the block once and says that it may pass", async (fault) => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    await writeBlocks(writer, some(0));
    const before = simulator.faults.counters()["PutSnapshotBlock"]!;
    simulator.faults.add({ fault, operation: "PutSnapshotBlock" });
    const refused = writer.write(block, bytesOf(1), { digest: sha256(bytesOf(1)) });
    await expect(refused).rejects.toMatchObject({
      retryable: true,
      message: expect.stringContaining(writer.generation),
    });
    expect(simulator.faults.counters()["PutSnapshotBlock"]! - before).toBe(1);
  });

  test("a request that hangs is given up after its time (coldsnap #437)", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    await writeBlocks(writer, some(0));
    const hasty = await (await open({ timeouts: { blockMs: 300, pollMs: 5 } })).open(volume, { run: "r", epoch: 1 });
    simulator.faults.add({ fault: "hang", operation: "PutSnapshotBlock", times: 1 });
    const hanging = hasty.write(block, bytesOf(1), { digest: sha256(bytesOf(1)) });
    await expect(hanging).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
    await writeBlocks(writer, some(1));
    await writer.commit({ written: writtenOf(some(0, 1)) });
  });

  test("keys that expire in the middle of an upload are exchanged, and the block is sent again with the new ones", async () => {
    const { open, simulator, options } = await startPlace();
    const keys = options.credentials as { accessKeyId: string; secretAccessKey: string };
    let asked = 0;
    const target = await open({
      credentials: () => {
        asked++;
        return Promise.resolve(keys);
      },
    });
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    const before = asked;
    simulator.faults.add({ fault: "expired-credentials", operation: "PutSnapshotBlock", times: 1 });
    await writeBlocks(writer, some(0));
    expect(asked - before).toBe(1);
    await writer.commit({ written: writtenOf(some(0)) });
  });

  test("a run through throttles, errors, resets and a hang ends in success with equal bytes", async () => {
    const { open, simulator } = await startPlace({}, { timeouts: { blockMs: 4000, pollMs: 5 } });
    const place = memoryPlace();
    place.addMachine({ id: "m", disks: [{ key: "sda", size: 24 * block + 512 }] });
    const written = new Map<number, Uint8Array>();
    for (let index = 0; index < 24; index += 2) {
      written.set(index, bytesOf(index));
      place.write("m", "sda", index * block, bytesOf(index));
    }
    const tail = randomBytes(512, seed);
    place.write("m", "sda", 24 * block, tail);
    for (const fault of [
      "throttle",
      "resource-throttle",
      "internal-error",
      "unavailable",
      "reset",
      "write-timeout",
    ] as const)
      simulator.faults.add({ fault, operation: "PutSnapshotBlock", probability: 0.3, times: 2 });
    simulator.faults.add({ fault: "hang", operation: "PutSnapshotBlock", calls: { first: 7, last: 7 } });
    simulator.faults.add({ fault: "throttle", operation: "CompleteSnapshot", times: 2 });
    const job = {
      id: "storm",
      machine: "m",
      source: place.source,
      target: await open(),
      store: new MemoryStateStore(),
    };
    const report = await replicate(job);
    const { id } = report.disks[0]!.volume!;
    for (const [index, bytes] of written)
      expect(
        Buffer.compare(await simulator.snapshotBytes(id, index * block, block), bytes),
        `block ${index}, seed ${seed}`,
      ).toBe(0);
    // The block in which the disk ends, filled up with zeroes (flexible-snapshot-proxy's fanout drops it).
    const last = await simulator.snapshotBytes(id, 24 * block, block);
    expect(Buffer.compare(last.subarray(0, 512), tail), `the last block, seed ${seed}`).toBe(0);
    expect(last.subarray(512).every((byte) => byte === 0)).toBe(true);
  }, 120_000);
});

describe("concurrency", () => {
  test("two writes of one block never run at once, and the later one wins", async () => {
    const { open, simulator } = await startPlace({ latencyMs: 10 });
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    await Promise.all([1, 2, 3, 4].map((salt) => writer.write(0, bytesOf(salt), { digest: sha256(bytesOf(salt)) })));
    const committed = await writer.commit({ written: writtenOf(new Map([[0, bytesOf(4)]])) });
    expect(Buffer.compare(await simulator.snapshotBytes(committed.id, 0, block), bytesOf(4)), `seed ${seed}`).toBe(0);
  });

  test("several volumes are written at once, as several are read (coldsnap #353)", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const commits = await Promise.all(
      ["a", "b", "c"].map(async (key) => {
        const volume = await target.create({ key, size });
        return commitRun(target, volume, key, some(0, 1, 2, 3));
      }),
    );
    expect(new Set(commits.map(({ id }) => id)).size).toBe(3);
    for (const { id } of commits)
      expect(Buffer.compare(await simulator.snapshotBytes(id, 3 * block, block), bytesOf(3)), `seed ${seed}`).toBe(0);
  });
});

describe("digests", () => {
  test("of the engine go to AWS as they are; none is computed again", async () => {
    const { open } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    expect(writer.digest).toBe("sha256");
    // Bytes and digest disagree: who hashes by himself would not notice, and AWS does.
    const wrong = writer.write(0, bytesOf(0), { digest: sha256(bytesOf(1)) });
    await expect(wrong).rejects.toMatchObject({ code: "CORRUPT" });
  });
});
