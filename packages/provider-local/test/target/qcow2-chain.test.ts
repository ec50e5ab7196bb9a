import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { TargetProvider, Volume } from "@diskferry/core/provider";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import type { LocalOptions } from "../../src/index.ts";
import { type RecoveryPoint, expired } from "../../src/target/recovery-points.ts";
import { freshFolder } from "../folder.ts";
import { commit, listed, targetOf, textOf, volumeBytes } from "../shapes.ts";

const seed = seedOf(31);
const size = 8 * 1024 * 1024;
const block = 1024 * 1024;

/** A chain that is run again and again, with what each of its points must read as. */
class Chain {
  readonly folder = freshFolder();
  readonly contents = new Map<string, Uint8Array>();
  readonly images = join(this.folder, "disk");
  volume: Volume | undefined;
  last: Volume | undefined;
  count = 0;
  content: Uint8Array = new Uint8Array(size);

  target(options: Partial<LocalOptions> = {}): Promise<TargetProvider> {
    return targetOf({ directory: this.folder, ...options });
  }

  /** One run, which writes a block of its own. */
  async run(target: TargetProvider): Promise<Volume> {
    this.count++;
    this.volume = await target.create({ key: "disk", size });
    await using writer = await target.open(this.volume, {
      run: `run ${this.count}`,
      base: this.last,
      epoch: this.count,
    });
    const offset = ((this.count * 3) % 8) * block;
    const data = randomBytes(block, seed + this.count);
    await writer.write(offset, data);
    await writer.flush();
    this.last = await commit(writer);
    this.content = Uint8Array.from(this.content);
    this.content.set(data, offset);
    this.contents.set(textOf(this.last, "file"), this.content);
    return this.last;
  }

  points(): string[] {
    return readdirSync(this.images)
      .filter((name) => /^\d.*\.qcow2$/.test(name))
      .toSorted();
  }

  /** Every point that is left reads as it was committed. */
  async judge(target: TargetProvider): Promise<void> {
    for (const file of this.points()) {
      const volume: Volume = { ...this.last!, data: { ...this.last!.data, file } };
      const same = Buffer.compare(await volumeBytes(target, volume), this.contents.get(file)!) === 0;
      expect(same, `seed ${seed}, ${file}`).toBe(true);
    }
  }
}

function point(number: number, daysAgo: number): RecoveryPoint {
  const committedAt = new Date(now.getTime() - daysAgo * 86_400_000).toISOString();
  return { file: `${number}`, run: `run ${number}`, size, committedAt };
}
const now = new Date("2026-11-21T12:00:00Z");
const ten = Array.from({ length: 10 }, (_, index) => point(index, 10 - index));
const names = (points: readonly RecoveryPoint[]): string => points.map(({ file }) => file).join(" ");

test("count and age are floors, both: what either asks for stays", () => {
  const left = (retention: LocalOptions["retention"], kept: string[] = []): string =>
    names(expired(ten, retention, new Set(kept), now));
  expect(left(undefined)).toBe("");
  expect(left({})).toBe("");
  expect(left({ count: 3 })).toBe("0 1 2 3 4 5 6");
  expect(left({ ageDays: 4.5 })).toBe("0 1 2 3 4 5");
  expect(left({ count: 3, ageDays: 7.5 })).toBe("0 1 2");
  expect(left({ count: 8, ageDays: 1 })).toBe("0 1");
  expect(left({ count: 20 })).toBe("");
});

test("the last recovery point and those in use stay, whatever retention says", () => {
  expect(names(expired(ten, { ageDays: 0 }, new Set(), now))).toBe("0 1 2 3 4 5 6 7 8");
  expect(names(expired(ten, { count: 1 }, new Set(["0", "5"]), now))).toBe("1 2 3 4 6 7 8");
  expect(names(expired([point(1, 100)], { count: 1, ageDays: 1 }, new Set(), now))).toBe("");
});

test("a point whose time cannot be read counts as young", () => {
  expect(names(expired([{ ...point(1, 1), committedAt: "?" }, point(2, 0)], { ageDays: 0 }, new Set(), now))).toBe("");
});

test("each run makes one recovery point, and all of them stay readable", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  for (let run = 0; run < 4; run++) await chain.run(target);
  expect(chain.points().map((name) => name.slice(0, 7))).toEqual(["000001-", "000002-", "000003-", "000004-"]);
  await chain.judge(target);
});

test("retention merges old points away, and those that are left read as before", async () => {
  const chain = new Chain();
  await using target = await chain.target({ retention: { count: 2 } });
  for (let run = 0; run < 6; run++) {
    await chain.run(target);
    await chain.judge(target);
  }
  expect(chain.points().map((name) => name.slice(0, 7))).toEqual(["000005-", "000006-"]);
  expect(readdirSync(chain.images).filter((name) => name.endsWith(".json")).length).toBe(3);
});

test("the point that the run started from stays until the next run, since the record still names it", async () => {
  const chain = new Chain();
  await using target = await chain.target({ retention: { count: 1 } });
  for (let run = 0; run < 3; run++) await chain.run(target);
  expect(chain.points().map((name) => name.slice(0, 7))).toEqual(["000002-", "000003-"]);
});

test("a point that is being read is not removed", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  const first = await chain.run(target);
  await chain.run(target);
  {
    await using reader = await target.read!(first);
    await reader.read(0, new Uint8Array(512));
    await expect(target.remove(first)).rejects.toMatchObject({ code: "IN_USE" });
  }
  await target.remove(first);
  await chain.judge(target);
  expect(chain.points().length).toBe(1);
});

test("a point is not removed while a run writes on top of it", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  const first = await chain.run(target);
  const writer = await target.open(chain.volume!, { run: "under way", base: first, epoch: 9 });
  await writer.write(0, randomBytes(block, seed));
  await writer.flush();
  await writer[Symbol.asyncDispose]();
  await expect(target.remove(first)).rejects.toMatchObject({
    code: "IN_USE",
    message: expect.stringContaining("pending-"),
  });
  await chain.judge(target);
});

test("killed between the note and the new name, the same run commits the same point", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  await chain.run(target);
  const before = readdirSync(chain.images);
  const last = await chain.run(target);
  // As it was after the note was written: the image still has its passing name.
  const file = textOf(last, "file");
  const pending = before.find((name) => name.startsWith("pending-"));
  expect(pending).toBeUndefined();
  const writer = await target.open(chain.volume!, { run: "run 3", base: last, epoch: 3 });
  await writer.write(0, randomBytes(block, seed + 99));
  await writer.flush();
  await writer[Symbol.asyncDispose]();
  const note = {
    file: "000003-20261121T120000Z.qcow2",
    run: "run 3",
    base: file,
    size,
    committedAt: now.toISOString(),
  };
  writeFileSync(join(chain.images, `${note.file}.json`), JSON.stringify(note));
  const again = await target.open(chain.volume!, { run: "run 3", base: last, epoch: 3 });
  expect(again.generation).toBe(writer.generation);
  expect((await commit(again)).data!["file"]).toBe(note.file);
  await again[Symbol.asyncDispose]();
  expect(chain.points().at(-1)).toBe(note.file);
});

test("a point on which others stand takes no more writes from the run that made it", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  const first = await chain.run(target);
  await chain.run(target);
  await using writer = await target.open(chain.volume!, { run: "run 1", epoch: 5 });
  expect(await commit(writer)).toEqual(first);
  await expect(writer.write(0, new Uint8Array(block))).rejects.toMatchObject({ code: "IN_USE" });
  expect(writer.lane).toBeUndefined();
  await chain.judge(target);
});

test("a base that is gone is named, and nothing is begun", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  const first = await chain.run(target);
  rmSync(join(chain.images, textOf(first, "file")));
  const opening = target.open(chain.volume!, { run: "next", base: first, epoch: 2 });
  await expect(opening).rejects.toMatchObject({
    code: "NOT_FOUND",
    message: expect.stringContaining(textOf(first, "file")),
  });
  expect(readdirSync(chain.images).some((name) => name.startsWith("pending-"))).toBe(false);
});

test("recovery points are listed one by one, so that a clean-up can keep those that a record names", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  const volume = await target.create({ key: "disk", size, job: "job" });
  const points = [await chain.run(target), await chain.run(target)];
  const owned = await listed(target.owned("job"));
  expect(owned.map((each) => each.volume?.id)).toEqual(points.toReversed().map(({ id }) => id));
  expect(owned.some(({ id }) => id === volume.id)).toBe(false);
  for (const each of owned) await target.remove(each.volume!);
  expect(existsSync(chain.images)).toBe(false);
});

test("a disk that grew gets a larger point over the smaller one", async () => {
  const chain = new Chain();
  await using target = await chain.target();
  const first = await chain.run(target);
  const volume = await target.create({ key: "disk", size: 2 * size });
  expect(volume.size).toBe(2 * size);
  await using writer = await target.open(volume, { run: "larger", base: first, epoch: 2 });
  await writer.write(size, randomBytes(block, seed));
  const last = await commit(writer);
  const bytes = await volumeBytes(target, last);
  expect(bytes.length).toBe(2 * size);
  expect(Buffer.compare(bytes.subarray(0, size), chain.content)).toBe(0);
  expect(Buffer.compare(bytes.subarray(size, size + block), randomBytes(block, seed))).toBe(0);
  expect(bytes.subarray(size + block).every((byte) => byte === 0)).toBe(true);
  expect((await target.create({ key: "disk", size })).size).toBe(2 * size);
});

describeWithPeers(["qemu-img"], "chains judged by qemu-img", () => {
  test("points are valid and read the same to qemu, before and after retention", async () => {
    const chain = new Chain();
    await using target = await chain.target({ retention: { count: 3 }, compression: "zlib" });
    for (let run = 0; run < 5; run++) await chain.run(target);
    const raw = join(chain.folder, "expected.raw");
    for (const file of chain.points()) {
      const image = join(chain.images, file);
      execFileSync("qemu-img", ["check", image]);
      writeFileSync(raw, chain.contents.get(file)!);
      execFileSync("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", image, raw]);
    }
    expect(existsSync(raw)).toBe(true);
  });
});
