import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { LaneWriter, WriterLaneModule } from "@diskferry/core/provider";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { provider } from "../../src/index.ts";
import { freshFolder } from "../folder.ts";
import { commit, fileShapes, listed, targetOf, volumeBytes } from "../shapes.ts";

const seed = seedOf(23);
const size = 4 * 1024 * 1024;
const block = 1024 * 1024;

function sparseFile(path: string): void {
  writeFileSync(path, "");
  truncateSync(path, size);
}

for (const shape of fileShapes) {
  describe(shape.name, () => {
    test("a disk is created once per key, written, committed, read back and removed", async () => {
      const options = shape.options(freshFolder());
      await using target = await targetOf(options);
      const request = { key: "vm/disk 1", size, job: "job" };
      const volume = await target.create(request);
      expect(await target.create(request)).toEqual(volume);
      const data = randomBytes(block, seed);
      const writer = await target.open(volume, { run: "run-1", epoch: 1 });
      expect(writer.size).toBe(size);
      expect(writer.blank).toBe(true);
      await writer.write(block, data);
      await writer.flush();
      const committed = await commit(writer);
      expect(await commit(writer)).toEqual(committed);
      await writer[Symbol.asyncDispose]();
      const expected = new Uint8Array(size);
      expected.set(data, block);
      expect(Buffer.compare(await volumeBytes(target, committed), expected), `seed ${seed}`).toBe(0);
      const owned = await listed(target.owned("job"));
      expect(owned.length).toBe(1);
      expect(await listed(target.owned("another job"))).toEqual([]);
      await target.remove(owned[0]!.volume!);
      expect(await listed(target.owned("job"))).toEqual([]);
      await target.remove(owned[0]!.volume!);
    });

    test("a run that was cut off finds its generation again, another run does not; blank is the first run's alone", async () => {
      const options = shape.options(freshFolder());
      await using target = await targetOf(options);
      const volume = await target.create({ key: "disk", size });
      const first = await target.open(volume, { run: "run-1", epoch: 1 });
      await first.write(0, randomBytes(block, seed));
      await first.flush();
      await first[Symbol.asyncDispose]();
      const again = await target.open(volume, { run: "run-1", epoch: 2 });
      expect([again.generation, again.blank]).toEqual([first.generation, true]);
      const base = await commit(again);
      await again[Symbol.asyncDispose]();
      const second = await target.open(volume, { run: "run-2", base, epoch: 3 });
      expect(second.generation).not.toBe(first.generation);
      expect(second.blank).toBeUndefined();
      await second.write(2 * block, randomBytes(block, seed + 1));
      await second.flush();
      const last = await commit(second);
      await second[Symbol.asyncDispose]();
      const expected = new Uint8Array(size);
      expected.set(randomBytes(block, seed), 0);
      expected.set(randomBytes(block, seed + 1), 2 * block);
      expect(Buffer.compare(await volumeBytes(target, last), expected), `seed ${seed}`).toBe(0);
    });

    test("zeroes take the place of data, for good", async () => {
      const options = shape.options(freshFolder());
      await using target = await targetOf(options);
      const volume = await target.create({ key: "disk", size });
      const first = await target.open(volume, { run: "run-1", epoch: 1 });
      await first.write(0, randomBytes(2 * block, seed));
      const base = await commit(first);
      await first[Symbol.asyncDispose]();
      const second = await target.open(volume, { run: "run-2", base, epoch: 2 });
      await second.zero!(block, block);
      await second.flush();
      const read = new Uint8Array(block).fill(1);
      await second.read!(block, read);
      expect(read.every((byte) => byte === 0)).toBe(true);
      const last = await commit(second);
      await second[Symbol.asyncDispose]();
      const expected = new Uint8Array(size);
      expected.set(randomBytes(2 * block, seed).subarray(0, block), 0);
      expect(Buffer.compare(await volumeBytes(target, last), expected)).toBe(0);
    });

    test("a newer epoch cuts the older writer off in every lane before it gets in", async () => {
      const options = shape.options(freshFolder());
      await using target = await targetOf(options);
      const volume = await target.create({ key: "disk", size });
      const older = await target.open(volume, { run: "run-1", epoch: 1 });
      let lane: LaneWriter | undefined;
      if (older.lane !== undefined) {
        const module = (await import(older.lane.module)) as WriterLaneModule;
        lane = await module.open(older.lane.data);
        await lane.write(0, new Uint8Array(block).fill(1));
      }
      await older.write(0, new Uint8Array(block).fill(1));
      const newer = await target.open(volume, { run: "run-1", epoch: 2 });
      const fenced = { code: "FENCED" };
      await expect(older.write(0, new Uint8Array(block))).rejects.toMatchObject(fenced);
      await expect(older.zero!(0, block)).rejects.toMatchObject(fenced);
      await expect(older.flush()).rejects.toMatchObject(fenced);
      await expect(commit(older)).rejects.toMatchObject(fenced);
      if (lane !== undefined) await expect(lane.write(0, new Uint8Array(block))).rejects.toMatchObject(fenced);
      await expect(target.open(volume, { run: "run-1", epoch: 1 })).rejects.toMatchObject(fenced);
      await newer.write(0, new Uint8Array(block).fill(2));
      const committed = await commit(newer);
      await lane?.[Symbol.asyncDispose]();
      await older[Symbol.asyncDispose]();
      await newer[Symbol.asyncDispose]();
      expect((await volumeBytes(target, committed))[0]).toBe(2);
    });

    test("what was abandoned does not come back as a resumed run's work", async () => {
      const options = shape.options(freshFolder());
      await using target = await targetOf(options);
      const volume = await target.create({ key: "disk", size });
      const first = await target.open(volume, { run: "run-1", epoch: 1 });
      await first.write(0, new Uint8Array(block).fill(7));
      await first.flush();
      await first.abandon();
      await first[Symbol.asyncDispose]();
      const again = await target.open(volume, { run: "run-1", epoch: 1 });
      const into = new Uint8Array(block);
      await again.read!(0, into);
      const isGone = into.every((byte) => byte === 0);
      expect(isGone || (again.generation !== first.generation && again.blank !== true)).toBe(true);
      if (again.blank === true) expect(isGone).toBe(true);
      await again[Symbol.asyncDispose]();
    });

    test("a writer that was closed writes no more", async () => {
      const options = shape.options(freshFolder());
      await using target = await targetOf(options);
      const volume = await target.create({ key: "disk", size });
      const writer = await target.open(volume, { run: "run-1", epoch: 1 });
      await writer[Symbol.asyncDispose]();
      await writer[Symbol.asyncDispose]();
      await expect(writer.write(0, new Uint8Array(block))).rejects.toThrow();
    });

    test("sizes that no disk has are the caller's mistake", async () => {
      await using target = await targetOf(shape.options(freshFolder()));
      await expect(target.create({ key: "disk", size: 1000 })).rejects.toThrow(RangeError);
      await expect(target.create({ key: "disk", size: 0 })).rejects.toThrow(RangeError);
    });
  });
}

describe("raw file", () => {
  test("a new target is sparse, and stays so where nothing was written", async () => {
    const path = join(freshFolder(), "sparse.raw");
    await using target = await targetOf({ path });
    const volume = await target.create({ key: "disk", size: 1024 * block });
    await using writer = await target.open(volume, { run: "run", epoch: 1 });
    await writer.write(512 * block, randomBytes(block, seed));
    await writer.zero!(0, 16 * block);
    await commit(writer);
    expect(statSync(path).size).toBe(1024 * block);
    expect(statSync(path).blocks * 512).toBeLessThanOrEqual(2 * block);
  });

  test.for(["made", "found"])(
    "a file that was written to between being %s and the first run is not taken for blank",
    async (how) => {
      const path = join(freshFolder(), "disk.raw");
      if (how === "found") sparseFile(path);
      await using target = await targetOf({ path });
      const volume = await target.create({ key: "disk", size });
      writeFileSync(path, new Uint8Array(size).fill(3));
      await using writer = await target.open(volume, { run: "run", epoch: 1 });
      expect(writer.blank).toBeUndefined();
    },
  );

  test("a file that exists already as one hole is blank for its first run, and is never removed", async () => {
    const path = join(freshFolder(), "disk.raw");
    sparseFile(path);
    await using target = await targetOf({ path });
    const volume = await target.create({ key: "disk", size });
    const first = await target.open(volume, { run: "one", epoch: 1 });
    expect(first.blank).toBe(true);
    await first.write(0, new Uint8Array(block).fill(3));
    await commit(first);
    await first[Symbol.asyncDispose]();
    const second = await target.open(volume, { run: "two", epoch: 1 });
    expect(second.blank).toBeUndefined();
    await second[Symbol.asyncDispose]();
    await target.remove(volume);
    expect(existsSync(path)).toBe(true);
  });

  test("a file with anything written in it, were it zeroes, is no hole", async () => {
    for (const bytes of [512, size]) {
      const path = join(freshFolder(), "disk.raw");
      sparseFile(path);
      writeFileSync(path, new Uint8Array(bytes), { flag: "r+" });
      await using target = await targetOf({ path });
      await using writer = await target.open(await target.create({ key: "disk", size }), { run: "run", epoch: 1 });
      expect(writer.blank).toBeUndefined();
    }
  });

  test("a file that exists already is written in place, is never blank and never removed", async () => {
    const path = join(freshFolder(), "disk.raw");
    writeFileSync(path, new Uint8Array(size).fill(3));
    await using target = await targetOf({ path });
    const volume = await target.create({ key: "disk", size });
    const writer = await target.open(volume, { run: "run", epoch: 1 });
    expect(writer.blank).toBeUndefined();
    await writer.write(0, new Uint8Array(block));
    await commit(writer);
    await writer[Symbol.asyncDispose]();
    await target.remove(volume);
    expect(existsSync(path)).toBe(true);
    const content = readFileSync(path);
    expect([content[0], content[block]]).toEqual([0, 3]);
  });

  test("one key's file grows, and another's is not taken over unless that was said", async () => {
    const path = join(freshFolder(), "disk.raw");
    await using target = await targetOf({ path });
    await target.create({ key: "one", size });
    expect((await target.create({ key: "one", size: 2 * size })).size).toBe(2 * size);
    await expect(target.create({ key: "two", size })).rejects.toMatchObject({
      code: "EXISTS",
      message: expect.stringContaining("one"),
    });
    writeFileSync(path, new Uint8Array(512).fill(3), { flag: "r+" });
    await using taking = await targetOf({ path, overwrite: true });
    await taking.create({ key: "two", size });
    const writer = await taking.open(await taking.create({ key: "two", size }), { run: "run", epoch: 1 });
    expect(writer.blank).toBeUndefined();
    await writer[Symbol.asyncDispose]();
  });
});

describe("bad targets", () => {
  test("each is refused by name, with what to do, and left as it was", async () => {
    const folder = freshFolder();
    mkdirSync(join(folder, "folder"));
    writeFileSync(join(folder, "small.raw"), new Uint8Array(size - 512).fill(1));
    writeFileSync(join(folder, "odd.raw"), new Uint8Array(size + 100).fill(1));
    writeFileSync(join(folder, "file"), "text");
    const cases: [Parameters<typeof targetOf>[0], string, RegExp][] = [
      [
        { path: join(folder, "small.raw") },
        "CONFIG_INVALID",
        /small\.raw has 4193792 bytes, 512 too few.*nothing was written/,
      ],
      [{ path: join(folder, "odd.raw") }, "CONFIG_INVALID", /odd\.raw has 4194404 bytes.*multiple of 512/],
      [{ path: join(folder, "folder") }, "CONFIG_INVALID", /is a directory/],
      [{ path: "/dev/diskferry-nosuch" }, "NOT_FOUND", /no block device/],
      [{ path: "/dev/null" }, "CONFIG_INVALID", /character device/],
      [{ path: join(folder, "missing", "disk.raw") }, "NOT_FOUND", /missing/],
      [{ directory: join(folder, "file") }, "CONFIG_INVALID", /file is no directory|no directory/],
      [{ directory: join(folder, "file"), format: "raw" }, "CONFIG_INVALID", /no directory/],
    ];
    for (const [options, code, message] of cases) {
      const trying = (async () => {
        await using target = await targetOf(options);
        await target.create({ key: "disk", size });
      })();
      await expect(trying, JSON.stringify(options)).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
    }
    expect(readFileSync(join(folder, "small.raw")).every((byte) => byte === 1)).toBe(true);
    expect(readdirSync(folder).toSorted()).toEqual(["file", "folder", "odd.raw", "small.raw"]);
    expect(existsSync("/dev/diskferry-nosuch")).toBe(false);
  });

  test("a directory keeps a file that is not ours", async () => {
    const folder = freshFolder();
    writeFileSync(join(folder, "disk.raw"), new Uint8Array(size).fill(1));
    await using target = await targetOf({ directory: folder, format: "raw" });
    await expect(target.create({ key: "disk", size })).rejects.toMatchObject({ code: "EXISTS" });
    mkdirSync(join(folder, "disk"));
    writeFileSync(join(folder, "disk", "photo.jpg"), "");
    await using chain = await targetOf({ directory: folder });
    await expect(chain.create({ key: "disk", size })).rejects.toMatchObject({ code: "EXISTS" });
  });

  test("source and target that are the same file are refused, through links and backing files too", async () => {
    const folder = freshFolder();
    const path = join(folder, "disk.raw");
    writeFileSync(path, randomBytes(size, seed));
    symlinkSync(path, join(folder, "link.raw"));
    await using source = await provider.source!({ path });
    const [machine] = await listed(source.machines());
    const snapshot = await source.snapshot(machine!, { key: "k" });
    await using target = await targetOf({ path: join(folder, "link.raw") });
    const volume = await target.create({ key: "disk", size });
    {
      await using reader = await source.open(snapshot.disks[0]!);
      const refusal = { code: "CONFIG_INVALID", message: expect.stringMatching(/same disk.*nothing was written/) };
      await expect(target.open(volume, { run: "run", epoch: 1 })).rejects.toMatchObject(refusal);
      await reader.read(0, new Uint8Array(512));
    }
    await using writer = await target.open(volume, { run: "run", epoch: 1 });
    await expect(source.open(snapshot.disks[0]!)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    expect(writer.size).toBe(size);
    expect(Buffer.compare(readFileSync(path), randomBytes(size, seed))).toBe(0);
  });

  test("a file that shrank since it was created is refused before anything is written", async () => {
    const path = join(freshFolder(), "disk.raw");
    await using target = await targetOf({ path });
    const volume = await target.create({ key: "disk", size });
    truncateSync(path, size - 512);
    await expect(target.open(volume, { run: "run", epoch: 1 })).rejects.toMatchObject({
      message: expect.stringContaining("512 too few"),
    });
  });

  for (const [how, format, spoil] of [
    ["removed", "raw", (path: string): void => rmSync(path)],
    ["cut", "raw", (path: string): void => truncateSync(path, size / 2)],
    ["removed", "qcow2", (path: string): void => rmSync(path)],
  ] as const) {
    test(`a ${format} replica that was ${how} since its last run takes no increment`, async () => {
      const path = join(freshFolder(), `disk.${format}`);
      await using target = await targetOf({ path, format });
      const first = await target.open(await target.create({ key: "disk", size }), { run: "first", epoch: 1 });
      await first.write(0, randomBytes(block, seed));
      const base = await commit(first);
      await first[Symbol.asyncDispose]();
      const untouched = await target.open(await target.create({ key: "disk", size }), { run: "next", base, epoch: 2 });
      await untouched[Symbol.asyncDispose]();
      spoil(path);
      const volume = await target.create({ key: "disk", size });
      const opening = target.open(volume, { run: "second", base, epoch: 3 });
      await expect(opening).rejects.toMatchObject({ code: "NOT_FOUND" });
      await using full = await target.open(volume, { run: "second", epoch: 4 });
      expect(full.size).toBe(size);
    });
  }

  test("a write that waits for another's end is given up without a byte", async () => {
    await using target = await targetOf({ path: join(freshFolder(), "disk.raw") });
    const volume = await target.create({ key: "disk", size });
    await using writer = await target.open(volume, { run: "run-1", epoch: 1 });
    const caller = new AbortController();
    const first = writer.write(0, randomBytes(block, seed));
    const second = writer.write(block, randomBytes(block, seed + 1), { signal: caller.signal });
    caller.abort(new Error("given up"));
    await expect(second).rejects.toThrow("given up");
    await first;
    const read = new Uint8Array(block);
    await writer.read!(block, read);
    expect(read.every((byte) => byte === 0)).toBe(true);
    await writer.write(block, randomBytes(block, seed + 1));
  });

  test("a state file that is not ours is reported, not guessed at", async () => {
    const folder = freshFolder();
    const path = join(folder, "disk.raw");
    await using target = await targetOf({ path });
    await target.create({ key: "disk", size });
    writeFileSync(join(folder, ".diskferry", "disk.raw", "state.json"), "{ broken");
    await expect(target.create({ key: "disk", size })).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining("state.json"),
    });
  });

  test("a target that may not be written to is refused", async () => {
    const folder = freshFolder();
    const path = join(folder, "disk.raw");
    writeFileSync(path, new Uint8Array(size));
    chmodSync(path, 0o444);
    chmodSync(folder, 0o755);
    await using target = await targetOf({ path });
    const isRoot = process.geteuid?.() === 0;
    try {
      // The superuser may write anything: as nobody then.
      if (isRoot) process.seteuid!(65534);
      await expect(target.create({ key: "disk", size })).rejects.toMatchObject({
        code: "DENIED",
        message: expect.stringContaining("disk.raw"),
      });
    } finally {
      if (isRoot) process.seteuid!(0);
    }
  });
});
