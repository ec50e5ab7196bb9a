import { appendFileSync, mkdirSync, renameSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { freshFolder } from "../folder.ts";
import { openRawReader } from "../../src/index.ts";
import { contentStamp, openRaw } from "../../src/raw/raw-file.ts";
import { open as openLane } from "../../src/raw/raw-reader-lane.ts";

const seed = seedOf(7);

function diskOf(length: number): { path: string; bytes: Uint8Array } {
  const path = join(freshFolder(), "disk.raw");
  const bytes = randomBytes(length, seed);
  writeFileSync(path, bytes);
  return { path, bytes };
}

test("reads what the file holds, in the middle and up to its very end, on this thread and in a lane", async () => {
  const { path, bytes } = diskOf(1024 * 1024 + 512);
  await using reader = await openRawReader(path);
  await using lane = await openLane(reader.lane!.data);
  expect([reader.size, reader.blockSize]).toEqual([bytes.length, 512]);
  for (const each of [reader, lane]) {
    for (const [offset, length] of [
      [0, 512],
      [65536, 65536],
      [1024 * 1024, 512],
    ] as const) {
      const into = new Uint8Array(length);
      await each.read(offset, into);
      expect(Buffer.compare(into, bytes.subarray(offset, offset + length)), `seed ${seed} at ${offset}`).toBe(0);
    }
  }
});

test("a read beyond the end is the caller's mistake", async () => {
  const { path } = diskOf(4096);
  await using reader = await openRawReader(path);
  await expect(reader.read(4096, new Uint8Array(512))).rejects.toThrow(RangeError);
  await expect(reader.read(-512, new Uint8Array(512))).rejects.toThrow(RangeError);
});

test("a file that is cut short while it is read is reported, never read as zeroes", async () => {
  const { path } = diskOf(8192);
  await using reader = await openRawReader(path);
  truncateSync(path, 4096);
  await expect(reader.read(4096, new Uint8Array(4096))).rejects.toMatchObject({ code: "CORRUPT" });
});

test("a frozen file that is written to is reported by every lane, also when its time is set back", async () => {
  const { path, bytes } = diskOf(8192);
  utimesSync(path, new Date(1000), new Date(1000));
  const file = openRaw(path);
  const stamp = contentStamp(file.fd);
  await using reader = await openRawReader(path, { stamp });
  await using lane = await openLane(reader.lane!.data);
  await reader.read(0, new Uint8Array(512));
  await lane.read(0, new Uint8Array(512));
  writeFileSync(path, bytes);
  utimesSync(path, new Date(1000), new Date(1000));
  await expect(reader.read(0, new Uint8Array(512))).rejects.toMatchObject({ code: "CORRUPT" });
  await expect(lane.read(0, new Uint8Array(512))).rejects.toMatchObject({ code: "CORRUPT" });
});

test("a lane refuses another file that took the name", async () => {
  const { path } = diskOf(4096);
  await using reader = await openRawReader(path);
  writeFileSync(`${path}.other`, new Uint8Array(4096));
  renameSync(`${path}.other`, path);
  await expect(openLane(reader.lane!.data)).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("an aborted read rejects with the signal's reason", async () => {
  const { path } = diskOf(4096);
  await using reader = await openRawReader(path);
  const reason = new Error("stopped");
  await expect(reader.read(0, new Uint8Array(512), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

test("what is no disk is refused by name, with a remedy, and never waited for", async () => {
  const folder = freshFolder();
  const fifo = join(folder, "fifo");
  execFileSync("mkfifo", [fifo]);
  mkdirSync(join(folder, "folder"));
  writeFileSync(join(folder, "odd.raw"), new Uint8Array(1000));
  symlinkSync(join(folder, "loop"), join(folder, "loop"));
  const socket = join(folder, "socket");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const cases: [string, string, RegExp][] = [
    [fifo, "CONFIG_INVALID", /fifo is a FIFO/],
    [join(folder, "folder"), "CONFIG_INVALID", /is a directory; name a regular file/],
    [socket, "CONFIG_INVALID", /is a socket.*nbd\+unix/],
    ["/dev/null", "CONFIG_INVALID", /is a character device/],
    [join(folder, "odd.raw"), "CONFIG_INVALID", /odd\.raw has 1000 bytes.*multiple of 512.*truncate/],
    [join(folder, "missing.raw"), "NOT_FOUND", /missing\.raw does not exist/],
    [join(folder, "loop"), "CONFIG_INVALID", /leads to itself/],
    [join(folder, "odd.raw", "x"), "CONFIG_INVALID", /no directory/],
  ];
  try {
    for (const [path, code, message] of cases) {
      await expect(openRawReader(path), path).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    }
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("a file that grew is read as far as the disk went", async () => {
  const { path } = diskOf(4096);
  await using reader = await openRawReader(path, { size: 4096 });
  appendFileSync(path, new Uint8Array(512));
  await reader.read(3584, new Uint8Array(512));
  await expect(reader.read(4096, new Uint8Array(512))).rejects.toThrow(RangeError);
});
