import { EBSClient, ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Volume } from "@diskferry/core/provider";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { block, commitRun, region, sha256, startPlace, writeBlocks, writtenOf } from "./target-place.ts";

const seed = seedOf(7);
const bytesOf = (index: number, salt = 0): Uint8Array => randomBytes(block, seed + 1000 * salt + index);
const some = (indices: number[], salt = 0): Map<number, Uint8Array> =>
  new Map(indices.map((index) => [index, bytesOf(index, salt)]));
const size = 2 ** 30;

async function holds(
  simulator: { snapshotBytes(id: string, offset: number, length: number): Promise<Buffer> },
  { id }: Volume,
  blocks: ReadonlyMap<number, Uint8Array>,
): Promise<void> {
  for (const [index, bytes] of blocks)
    expect(
      Buffer.compare(await simulator.snapshotBytes(id, index * block, block), bytes),
      `block ${index}, seed ${seed}`,
    ).toBe(0);
}

describe("one run writes one snapshot", () => {
  test("a run that is opened again goes on in the same pending snapshot, also on another connection", async () => {
    const { open, simulator } = await startPlace();
    const volume = await (await open()).create({ key: "k", size, job: "job" });
    const first = await (await open()).open(volume, { run: "r", epoch: 1, job: "job" });
    await writeBlocks(first, some([0, 5]));
    await first[Symbol.asyncDispose]();
    const second = await (await open()).open(volume, { run: "r", epoch: 2, job: "job" });
    expect(second.generation).toBe(first.generation);
    await writeBlocks(second, some([7]));
    const committed = await second.commit({ written: writtenOf(some([0, 5, 7])) });
    expect(committed.id).toBe(first.generation);
    await holds(simulator, committed, some([0, 5, 7]));
    // One for the volume and one for the run.
    expect(simulator.faults.counters()["StartSnapshot"]).toBe(2);
  });

  test("a write that is repeated because one of its blocks was refused puts that one alone, and other bytes always", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    const writer = await target.open(volume, { run: "r", epoch: 1, job: "job" });
    await writeBlocks(writer, some([9]));
    const pair = (salt: number): Uint8Array => Buffer.concat([bytesOf(0, salt), bytesOf(1, salt)]);
    const digests = (salt: number): Uint8Array => Buffer.concat([sha256(bytesOf(0, salt)), sha256(bytesOf(1, salt))]);
    const puts = (): number => simulator.faults.counters()["PutSnapshotBlock"] ?? 0;
    const write = (salt: number): Promise<void> => writer.write(0, pair(salt), { digest: digests(salt) });
    const refuse = (): void => simulator.faults.add({ fault: "throttle", operation: "PutSnapshotBlock", times: 1 });
    const before = puts();
    refuse();
    await expect(write(1)).rejects.toMatchObject({ code: "THROTTLED", retryable: true });
    expect(puts() - before).toBe(2);
    await write(1);
    expect(puts() - before).toBe(3);
    // What a write that succeeded has put is put again by another: nobody remembers it any more.
    await write(1);
    expect(puts() - before).toBe(5);
    refuse();
    await expect(write(1)).rejects.toMatchObject({ code: "THROTTLED" });
    await write(2);
    expect(puts() - before).toBe(9);
    // Nor is it taken for there when other bytes were put in between.
    refuse();
    await expect(write(3)).rejects.toMatchObject({ code: "THROTTLED" });
    await writeBlocks(writer, some([0, 1], 2));
    await write(3);
    expect(puts() - before).toBe(15);
    // Nor when they may have been: the answer to that was lost.
    refuse();
    await expect(write(4)).rejects.toMatchObject({ code: "THROTTLED" });
    for (const index of [0, 1]) {
      simulator.faults.add({ fault: "truncate", operation: "PutSnapshotBlock", times: 1 });
      await expect(writeBlocks(writer, some([index], 5))).rejects.toMatchObject({ code: "UNAVAILABLE" });
    }
    await write(4);
    expect(puts() - before).toBe(21);
    const blocks = new Map([...some([0, 1], 4), ...some([9])]);
    const committed = await writer.commit({ written: writtenOf(blocks) });
    await holds(simulator, committed, blocks);
  });

  test("a StartSnapshot whose answer was lost is repeated with the same token and begins no second snapshot", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    simulator.faults.add({ fault: "truncate", operation: "StartSnapshot", times: 1 });
    const writer = await target.open(volume, { run: "r", epoch: 1, job: "job" });
    const uploads = [];
    for await (const owned of target.owned("job")) if (owned.kind === "upload") uploads.push(owned.id);
    expect(uploads).toEqual([writer.generation]);
  });

  test("a snapshot that is in error is noticed, removed and begun anew with another generation", async () => {
    const { open, simulator, notices } = await startPlace({}, { target: { timeoutMinutes: 10 } });
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    const first = await target.open(volume, { run: "r", epoch: 1, job: "job" });
    await writeBlocks(first, some([0]));
    simulator.advance(11 * 60_000);
    await expect(first.write(block, bytesOf(1), { digest: sha256(bytesOf(1)) })).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: false,
    });
    const second = await target.open(volume, { run: "r", epoch: 1, job: "job" });
    expect(second.generation).not.toBe(first.generation);
    expect(notices.join()).toContain(first.generation);
    await writeBlocks(second, some([3]));
    const committed = await second.commit({ written: writtenOf(some([3])) });
    await holds(
      simulator,
      committed,
      new Map([
        [0, new Uint8Array(block)],
        [3, bytesOf(3)],
      ]),
    );
  });

  test("the snapshot lives for three days without a block, and every block begins them anew", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    for (const index of [0, 1, 2]) {
      simulator.advance(4300 * 60_000);
      await writeBlocks(writer, some([index]));
    }
    await holds(simulator, await writer.commit({ written: writtenOf(some([0, 1, 2])) }), some([0, 1, 2]));
  });

  test("a first block waits until AWS knows the snapshot that was begun a moment ago", async () => {
    const { open, simulator } = await startPlace({ delays: { startVisibleMs: 400 } });
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const committed = await commitRun(target, volume, "r", some([0, 1]));
    await holds(simulator, committed, some([0, 1]));
    expect(simulator.faults.counters()["PutSnapshotBlock"]).toBeGreaterThan(2);
  });

  test("abandoning removes the pending snapshot, and the run begins another", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    const first = await target.open(volume, { run: "r", epoch: 1, job: "job" });
    await writeBlocks(first, some([0]));
    await first.abandon();
    await expect(simulator.snapshotBytes(first.generation, 0, 1)).rejects.toThrow();
    const second = await (await open()).open(volume, { run: "r", epoch: 1, job: "job" });
    expect(second.generation).not.toBe(first.generation);
  });
});

describe("what a run must not go on in", () => {
  test("a snapshot that was begun without the base that the run starts from now, or from another", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    const base = await commitRun(target, volume, "r1", some([0, 1]));
    const full = await target.open(volume, { run: "r2", epoch: 1, job: "job" });
    await writeBlocks(full, some([5]));
    const increment = await target.open(volume, { run: "r2", base, epoch: 1, job: "job" });
    expect(increment.generation).not.toBe(full.generation);
    expect(increment.blank).toBe(false);
    await writeBlocks(increment, some([2]));
    const committed = await increment.commit({ written: writtenOf(some([2])) });
    await holds(simulator, committed, new Map([...some([0, 1, 2]), [5, new Uint8Array(block)]]));
  });

  test("a volume whose making was cut off is completed by the next call", async () => {
    const { open, simulator } = await startPlace();
    const stop = new AbortController();
    const { faults } = simulator;
    const next = faults.next.bind(faults);
    faults.next = (operation) => {
      if (operation === "CompleteSnapshot") stop.abort();
      return operation === "CompleteSnapshot" ? "reset" : next(operation);
    };
    await expect((await open()).create({ key: "k", size, job: "job", signal: stop.signal })).rejects.toThrow();
    faults.next = next;
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    // Left pending it would be lost after an hour.
    simulator.advance(2 * 3_600_000);
    expect((await target.create({ key: "k", size, job: "job" })).id).toBe(volume.id);
    const owned = [];
    for await (const { id } of target.owned("job")) owned.push(id);
    expect(owned).toEqual([volume.id]);
  });
});

describe("the commit", () => {
  test("is told the count and the LINEAR checksum of just the blocks that were put, and AWS agrees", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const blocks = some([0, 1, 9, 100, 2047]);
    await holds(simulator, await commitRun(target, volume, "r", blocks), blocks);
  });

  test("of a run that wrote nothing makes a snapshot that equals its base", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const base = await commitRun(target, volume, "r1", some([4]));
    const same = await commitRun(target, volume, "r2", new Map(), base);
    expect(same.id).not.toBe(base.id);
    await holds(simulator, same, some([4]));
  });

  test("with another listing than what was put is refused, and nothing of it stays", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    await writeBlocks(writer, some([0, 1]));
    await expect(writer.commit({ written: writtenOf(some([0])) })).rejects.toMatchObject({ code: "CORRUPT" });
    await expect(simulator.snapshotBytes(writer.generation, 0, 1)).rejects.toThrow();
    const again = await target.open(volume, { run: "r", epoch: 1 });
    expect(again.generation).not.toBe(writer.generation);
  });

  test("whose answer was lost is waited for, not repeated blindly", async () => {
    const { open, simulator } = await startPlace({ delays: { completeMs: 50 } });
    const target = await open();
    const volume = await target.create({ key: "k", size });
    simulator.faults.add({ fault: "truncate", operation: "CompleteSnapshot", times: 1 });
    const committed = await commitRun(target, volume, "r", some([0]));
    await holds(simulator, committed, some([0]));
  });

  test("that a killed process asked for is taken up by the next", async () => {
    const { open, simulator } = await startPlace({ delays: { completeMs: 300 } });
    const volume = await (await open()).create({ key: "k", size });
    const first = await (await open()).open(volume, { run: "r", epoch: 1 });
    await writeBlocks(first, some([0]));
    const stop = new AbortController();
    const dying = first.commit({ written: writtenOf(some([0])), signal: stop.signal });
    dying.catch(() => {});
    // The volume's own snapshot was completed before.
    await expect.poll(() => simulator.faults.counters()["CompleteSnapshot"], { timeout: 20_000 }).toBe(2);
    await new Promise((go) => setTimeout(go, 50));
    stop.abort();
    await expect(dying).rejects.toThrow();
    const second = await (await open()).open(volume, { run: "r", epoch: 2 });
    const committed = await second.commit({ written: writtenOf(some([0])) });
    expect(committed.id).toBe(first.generation);
    await holds(simulator, committed, some([0]));
  });

  test("waits for `completed` and for the first listing, so that the commit can be read at once", async () => {
    const { open, simulator } = await startPlace({ emptyPageEvery: 0, delays: { completeMs: 60, listableMs: 200 } });
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const committed = await commitRun(target, volume, "r", some([2]));
    // AWS's own client, which waits for nothing.
    const client = new EBSClient({ region, endpoint: simulator.endpoint, credentials: simulator.credentials[0]! });
    onTestFinished(() => client.destroy());
    const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: committed.id }));
    expect(Blocks?.map(({ BlockIndex }) => BlockIndex)).toEqual([2]);
    await using reader = await target.read!(committed);
    const into = new Uint8Array(block);
    await reader.read(2 * block, into);
    expect(Buffer.compare(into, bytesOf(2)), `seed ${seed}`).toBe(0);
  });

  test("of a small increment is noticed soon after AWS completed it, however rarely a long one is looked at", async () => {
    const { open, options } = await startPlace({ delays: { completeMs: 400 } });
    const target = await open({ timeouts: { ...options.timeouts, pollMs: 30_000 } });
    const volume = await target.create({ key: "k", size });
    const began = performance.now();
    await commitRun(target, volume, "r", some([0]));
    expect(performance.now() - began).toBeLessThan(15_000);
  });

  test("that goes into error says so, and is not retried in place", async () => {
    const { open, simulator } = await startPlace({}, { target: { timeoutMinutes: 10 } });
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    await writeBlocks(writer, some([0]));
    simulator.advance(11 * 60_000);
    await expect(writer.commit({ written: writtenOf(some([0])) })).rejects.toMatchObject({ retryable: false });
  });
});

describe("an increment", () => {
  test("moves only changed blocks and inherits the rest from its parent", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const base = await commitRun(target, volume, "r1", some([0, 1, 2, 3, 4, 5, 6, 7]));
    const before = simulator.faults.counters()["PutSnapshotBlock"]!;
    const next = await commitRun(target, volume, "r2", some([3], 1), base);
    expect(simulator.faults.counters()["PutSnapshotBlock"]! - before).toBe(1);
    await holds(simulator, next, new Map([...some([0, 1, 2, 4, 5, 6, 7]), ...some([3], 1)]));
    await holds(simulator, base, some([3]));
  });

  test("grows with the disk", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const base = await commitRun(target, volume, "r1", some([0]));
    const grown = await target.create({ key: "k", size: size + 1 });
    expect(grown).toMatchObject({ id: volume.id, size: 2 * size });
    const next = await commitRun(target, grown, "r2", some([2100]), base);
    expect(next.size).toBe(2 * size);
    await holds(simulator, next, some([0, 2100]));
    expect((await target.create({ key: "k", size })).size).toBe(2 * size);
  });
});

describe("zeroes", () => {
  test("need not be written only without parent and encryption", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const first = await target.open(volume, { run: "r1", epoch: 1 });
    expect(first.blank).toBe(true);
    await writeBlocks(first, some([0]));
    const base = await first.commit({ written: writtenOf(some([0])) });
    const second = await target.open(volume, { run: "r2", base, epoch: 1 });
    expect(second.blank).toBe(false);
    simulator.encryptByDefault("111111111111", region, true);
    // The account's default is nobody's option: only the snapshot tells.
    const third = await target.open(volume, { run: "r3", epoch: 1 });
    expect(third.blank).toBe(false);
    // Opened again, nobody sees the answer of StartSnapshot any more.
    const again = await (await open()).open(volume, { run: "r3", epoch: 1 });
    expect(again).toMatchObject({ generation: third.generation, blank: false });
  });

  test("are written over an encrypted snapshot's random bytes", async () => {
    const { open, simulator } = await startPlace({}, { target: { encrypted: true } });
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const writer = await target.open(volume, { run: "r", epoch: 1 });
    await writer.zero!(0, 4 * block);
    const zeroes = new Map([0, 1, 2, 3].map((index) => [index, new Uint8Array(block)]));
    const committed = await writer.commit({ written: writtenOf(zeroes) });
    await holds(simulator, committed, zeroes);
    expect((await simulator.snapshotBytes(committed.id, 4 * block, block)).some((byte) => byte !== 0)).toBe(true);
  });

  test("are written over a parent's bytes", async () => {
    const { open, simulator } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const base = await commitRun(target, volume, "r1", some([0, 1]));
    const writer = await target.open(volume, { run: "r2", base, epoch: 1 });
    await writer.zero!(block, block);
    const zero = new Map([[1, new Uint8Array(block)]]);
    const committed = await writer.commit({ written: writtenOf(zero) });
    await holds(simulator, committed, new Map([[0, bytesOf(0)], ...zero]));
  });
});

describe("tags and retention", () => {
  test("everything made carries the product, the job and the user's tags from its first moment", async () => {
    const { open, simulator } = await startPlace({}, { product: "Acme", tags: { team: "blue" } });
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job", name: "web sda" });
    simulator.deny("111111111111", "ec2:CreateTags");
    const committed = await commitRun(target, volume, "r", some([0]));
    const listed = [];
    for await (const { kind, id } of target.owned("job")) listed.push([kind, id]);
    expect(listed).toEqual([
      ["commit", committed.id],
      ["volume", volume.id],
    ]);
    const other = await open({ product: "Other" });
    for await (const owned of other.owned("job")) expect.fail(`${owned.id} is shown to another product`);
  });

  test("retention keeps what either floor keeps, and always the run's base", async () => {
    const { open, simulator } = await startPlace();
    const first = await open();
    const volume = await first.create({ key: "k", size, job: "job" });
    let base: Volume | undefined;
    const commits: string[] = [];
    for (const run of ["r1", "r2", "r3"]) {
      base = await commitRun(first, volume, run, some([0], commits.length), base);
      commits.push(base.id);
    }
    const alive = async (): Promise<string[]> => {
      const found: string[] = [];
      for await (const { kind, id } of first.owned("job")) if (kind === "commit") found.push(id);
      return commits.filter((id) => found.includes(id));
    };
    expect(await alive()).toEqual(commits);
    const young = await open({ target: { keep: { count: 1, ageDays: 1 } } });
    commits.push((await commitRun(young, volume, "r4", some([1]), base)).id);
    // Each is younger than a day.
    expect(await alive()).toEqual(commits);
    const strict = await open({ target: { keep: { count: 1 } } });
    const oldBase = { ...base!, id: commits[1]! };
    commits.push((await commitRun(strict, volume, "r5", some([2]), oldBase)).id);
    // The base of the run and its own commit; it is not the newest that counts as base.
    expect(await alive()).toEqual([commits[1], commits[4]]);
    await holds(simulator, { id: commits[4]!, size }, new Map([...some([0], 1), ...some([2])]));
  });

  test("a commit removes what earlier runs left half-written, and leaves what later ones write", async () => {
    const { open } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size, job: "job" });
    const dead = await target.open(volume, { run: "dead", epoch: 1, job: "job" });
    await new Promise((go) => setTimeout(go, 5));
    const own = await target.open(volume, { run: "own", epoch: 2, job: "job" });
    await new Promise((go) => setTimeout(go, 5));
    const later = await target.open(volume, { run: "later", epoch: 3, job: "job" });
    await writeBlocks(own, some([0]));
    await own.commit({ written: writtenOf(some([0])) });
    const left: string[] = [];
    for await (const { kind, id } of target.owned("job")) if (kind === "upload") left.push(id);
    expect(left).toEqual([later.generation]);
    expect(left).not.toContain(dead.generation);
  });

  test("a base is not removed while a run stands on it", async () => {
    const { open } = await startPlace();
    const target = await open();
    const volume = await target.create({ key: "k", size });
    const base = await commitRun(target, volume, "r1", some([0]));
    const writer = await target.open(volume, { run: "r2", base, epoch: 1 });
    await expect(target.remove(base)).rejects.toMatchObject({ code: "IN_USE" });
    await writer.abandon();
    await target.remove(base);
    await expect(target.open(volume, { run: "r3", base, epoch: 1 })).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
