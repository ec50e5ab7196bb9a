import { execFileSync } from "node:child_process";
import {
  closeSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { MemoryStateStore, openSource, openTarget, transfer } from "@diskferry/core";
import { afterEach, expect, test, vi } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { provider } from "../../src/index.ts";
import { DirectFile } from "../../src/raw/direct-file.ts";
import { openRaw } from "../../src/raw/raw-file.ts";
import { open as openLane } from "../../src/raw/raw-writer-lane.ts";
import { openRawWriter } from "../../src/raw/raw-writer.ts";
import { freshFolder } from "../folder.ts";

const MIB = 2 ** 20;
const seed = seedOf(23);

afterEach(() => vi.restoreAllMocks());

/** An empty file, and whether its file system is one whose files are written past the page cache. */
function fileOf(size: number): { path: string; isTaking: boolean } {
  const path = join(freshFolder(), "disk.raw");
  writeFileSync(path, "");
  truncateSync(path, size);
  return { path, isTaking: [0xef53, 0x5846_5342].includes(statfsSync(path).type) };
}

/** How long each direct write was, and how much of it was taken. */
function watched(): [length: number, taken: number][] {
  const seen: [number, number][] = [];
  const { write } = DirectFile.prototype;
  vi.spyOn(DirectFile.prototype, "write").mockImplementation(async function (this: DirectFile, offset, data) {
    const taken = await write.call(this, offset, data);
    seen.push([data.byteLength, taken]);
    return taken;
  });
  return seen;
}

test("a copy's blocks go past the page cache, but for those that are short or do not end at a page", async () => {
  const size = 5 * MIB + 512;
  const bytes = randomBytes(size, seed);
  bytes.fill(0, 2 * MIB + 64 * 1024, 3 * MIB - 128 * 1024);
  const from = join(freshFolder(), "from.raw");
  writeFileSync(from, bytes);
  const { path, isTaking } = fileOf(size);
  const seen = watched();
  await using source = await openSource(provider, { path: from, format: "raw" });
  await using target = await openTarget(provider, { path, format: "raw" });
  let machine = "";
  for await (const found of source.machines()) machine = found.id;
  const store = new MemoryStateStore();
  const report = await transfer({ id: "direct", source, machine, target, store, options: { workers: 0 } });
  expect(report.status).toBe("done");
  expect(Buffer.compare(readFileSync(path), bytes), `seed ${seed}`).toBe(0);
  const lengths = seen.map(([length]) => length).toSorted((left, right) => left - right);
  expect(lengths).toEqual(isTaking ? [MIB, MIB, MIB, MIB] : []);
  for (const [length, taken] of seen) expect(taken).toBe(length);
});

test("long, short and clearing writes beside one another, of a writer and its lane, leave what was sent", async () => {
  const size = 24 * MIB + 512;
  const { path } = fileOf(size);
  const random = randomFrom(seed);
  const below = (limit: number): number => Math.floor(random() * limit);
  const expected = new Uint8Array(randomBytes(size, seed));
  writeFileSync(path, expected);
  // As a copy's blocks lie: in memory that begins at a page.
  const blocks = Array.from({ length: 6 }, () => new Uint8Array(new SharedArrayBuffer(MIB, { maxByteLength: MIB })));
  let pieces = 0;
  for (let round = 0; round < 6; round++) {
    await using writer = await openRawWriter(path, { generation: String(round) });
    await using lane = await openLane(writer.lane!.data);
    const writing: ((block: Uint8Array) => Promise<void>)[] = [];
    for (let at = 0; at < size;) {
      const unit = [512, 4096, 64 * 1024][below(3)]!;
      const length = Math.min(random() < 0.4 ? MIB - (at % MIB) : unit * (1 + below(16)), size - at);
      const offset = at;
      const to = random() < 0.5 ? writer : lane;
      at += length;
      pieces++;
      if (random() < 0.3) {
        expected.fill(0, offset, offset + length);
        writing.push(() => to.zero!(offset, length));
      } else {
        const bytes = randomBytes(length, below(1e9));
        expected.set(bytes, offset);
        writing.push((block) => {
          block.set(bytes);
          return to.write(offset, block.subarray(0, length));
        });
      }
    }
    let next = 0;
    const each = async (block: Uint8Array): Promise<void> => {
      while (next < writing.length) await writing[next++]!(block);
    };
    await Promise.all(blocks.map(each));
    await writer.flush();
    expect(Buffer.compare(readFileSync(path), expected), `round ${round}, seed ${seed}`).toBe(0);
  }
  expect(pieces).toBeGreaterThan(200);
});

test("what was cleared takes no room where there was none, and reads as zeroes around no page's beginning", async () => {
  const size = 8 * MIB;
  const { path } = fileOf(size);
  await using writer = await openRawWriter(path, { generation: "1" });
  await using lane = await openLane(writer.lane!.data);
  await writer.zero!(0, size);
  await lane.zero!(0, size);
  expect(statSync(path).blocks).toBe(0);
  // One sector in the middle of a page of zeroes is seen, and its neighbours stay.
  const sectors = new Uint8Array(4096).fill(1, 1024, 1536);
  writeFileSync(path, sectors, { flag: "r+" });
  await writer.zero!(512, 512);
  expect(readFileSync(path).subarray(0, 4096)).toEqual(Buffer.from(sectors));
  await writer.zero!(1024, 512);
  expect(readFileSync(path).every((byte) => byte === 0)).toBe(true);
  const expected = new Uint8Array(randomBytes(size, seed));
  writeFileSync(path, expected, { flag: "r+" });
  for (const [to, offset, length] of [
    [writer, 512, 2 * MIB],
    [lane, 3 * MIB - 512, 2 * MIB + 1024],
    [writer, 7 * MIB + 1536, 512],
    [lane, size - 512, 512],
  ] as const) {
    expected.fill(0, offset, offset + length);
    await to.zero!(offset, length);
  }
  expect(Buffer.compare(readFileSync(path), expected), `seed ${seed}`).toBe(0);
});

test("memory that does not begin at a page is written as usual, and not tried again", async () => {
  const { path } = fileOf(8 * MIB);
  const seen = watched();
  // What malloc gives begins 16 bytes behind a page (glibc) or anywhere; one of these views does not begin at a page.
  const memory = new ArrayBuffer(4 * MIB + 4096);
  const views = [0, 4096].map((start) => new Uint8Array(memory, start, 2 * MIB));
  const shifted = new Uint8Array(new Uint8Array(2 * MIB + 512).buffer, 512, 2 * MIB);
  const bytes = randomBytes(2 * MIB, seed);
  {
    await using writer = await openRawWriter(path, { generation: "1" });
    for (const [index, view] of [...views, shifted].entries()) {
      view.set(bytes);
      await writer.write(index * 2 * MIB, view);
    }
    await writer.flush();
  }
  const written = readFileSync(path);
  for (let index = 0; index < 3; index++)
    expect(Buffer.compare(written.subarray(index * 2 * MIB, (index + 1) * 2 * MIB), bytes), `seed ${seed}`).toBe(0);
  // Once refused is enough, and what is seen to be askew is not even tried.
  expect(seen.filter(([, taken]) => taken === 0).length).toBeLessThanOrEqual(1);
  expect(seen.length).toBeLessThanOrEqual(2);
});

test("a write that the disk took a part of is finished, and one that fails fails", async () => {
  const { path, isTaking } = fileOf(2 * MIB);
  const bytes = randomBytes(MIB, seed);
  const partly = vi.spyOn(DirectFile.prototype, "write");
  vi.spyOn(DirectFile.prototype, "takes").mockReturnValue(true);
  await using writer = await openRawWriter(path, { generation: "1" });
  partly.mockResolvedValue(4096);
  writeFileSync(path, bytes.subarray(0, isTaking ? 4096 : 0), { flag: "r+" });
  await writer.write(0, bytes);
  expect(Buffer.compare(readFileSync(path).subarray(0, MIB), bytes), `seed ${seed}`).toBe(0);
  partly.mockRejectedValue(Object.assign(new Error("full"), { code: "ENOSPC" }));
  await using lane = await openLane(writer.lane!.data);
  for (const to of isTaking ? [writer, lane] : [])
    await expect(to.write(MIB, bytes)).rejects.toMatchObject({ code: "UNAVAILABLE", provider: "local" });
});

test("a write that still waits for a thread when its writer is closed never goes into the next file that is opened", async () => {
  const { path, isTaking } = fileOf(2 * MIB);
  const folder = freshFolder();
  const fifos = Array.from({ length: 32 }, (_, index) => join(folder, `fifo-${index}`));
  execFileSync("mkfifo", fifos);
  const file = openRaw(path, { write: true });
  const direct = DirectFile.open(file);
  expect(direct === undefined).toBe(!isTaking);
  // Each holds a thread until somebody writes to it.
  const held = fifos.map((fifo) => open(fifo, "r"));
  const block = new Uint8Array(new SharedArrayBuffer(MIB, { maxByteLength: MIB })).fill(7);
  const written = direct?.write(MIB, block);
  direct?.close();
  expect(direct?.takes(0, block)).toBe(isTaking ? false : undefined);
  const next = fileOf(2 * MIB);
  const victim = openSync(next.path, "r+");
  const writers = fifos.map((fifo) => openSync(fifo, "r+"));
  for (const handle of await Promise.all(held)) await handle.close();
  expect(await written).toBe(isTaking ? MIB : undefined);
  expect(readFileSync(next.path).every((byte) => byte === 0)).toBe(true);
  expect(
    readFileSync(path)
      .subarray(MIB)
      .every((byte) => byte === (isTaking ? 7 : 0)),
  ).toBe(true);
  const leading = readdirSync("/proc/self/fd").filter((fd) => isLinkTo(`/proc/self/fd/${fd}`, path));
  expect(leading).toEqual([String(file.fd)]);
  for (const fd of [...writers, victim, file.fd]) closeSync(fd);
});

function isLinkTo(link: string, path: string): boolean {
  try {
    return readlinkSync(link) === path;
  } catch {
    // The descriptor by which the folder was read is gone.
    return false;
  }
}

test("another file that took the name is not written to", () => {
  const { path, isTaking } = fileOf(MIB);
  const file = openRaw(path, { write: true });
  try {
    const direct = DirectFile.open(file);
    expect(direct === undefined).toBe(!isTaking);
    direct?.close();
    expect(DirectFile.open({ ...file, place: "file:0:0" })).toBeUndefined();
  } finally {
    closeSync(file.fd);
  }
});
