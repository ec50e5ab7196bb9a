import { realpathSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { provider } from "../src/index.ts";
import { createQcow2 } from "../src/qcow2/create-qcow2.ts";
import { localFiles } from "../src/qcow2/image-file.ts";
import { openQcow2Writer } from "../src/qcow2/qcow2-writer.ts";
import { openRawWriter } from "../src/raw/raw-writer.ts";
import { freshFolder } from "./folder.ts";

// What a flush asks the system for: a simulated power loss sees only that it was called.

type Done = (error: NodeJS.ErrnoException | null) => void;

const asked = vi.hoisted(() => ({
  synced: [] as string[],
  /** Called with what goes on once the disk has answered. */
  answer: (go: () => void): void => go(),
  failure: undefined as NodeJS.ErrnoException | undefined,
}));

vi.mock("node:fs", async (original) => {
  const real = await original<typeof import("node:fs")>();
  const told = (name: "fsync" | "fdatasync") => (fd: number, done: Done) => {
    asked.synced.push(`${name} ${real.readlinkSync(`/proc/self/fd/${fd}`)}`);
    asked.answer(() => (asked.failure === undefined ? real[name](fd, done) : done(asked.failure)));
  };
  const fsyncSync = (fd: number): void => {
    asked.synced.push(`fsync ${real.readlinkSync(`/proc/self/fd/${fd}`)}`);
    real.fsyncSync(fd);
  };
  return { ...real, fsync: told("fsync"), fsyncSync, fdatasync: told("fdatasync") };
});

afterEach(() => {
  asked.synced.length = 0;
  asked.answer = (go) => go();
  asked.failure = undefined;
});

function emptyFile(): string {
  const path = join(realpathSync(freshFolder()), "disk.raw");
  writeFileSync(path, "");
  truncateSync(path, 4 << 20);
  return path;
}

/** Whether a flush waits for the disk's answer. */
async function expectPatience(flush: () => Promise<unknown>, synced: string[]): Promise<void> {
  const held: (() => void)[] = [];
  asked.answer = (go) => void held.push(go);
  let isDone = false;
  const flushed = flush().then(() => (isDone = true));
  for (let call = 0; call < synced.length; call++) {
    await vi.waitFor(() => expect(held).toHaveLength(1));
    expect(isDone).toBe(false);
    held.shift()!();
  }
  await flushed;
  asked.answer = (go) => go();
  expect(asked.synced).toEqual(synced);
  asked.synced.length = 0;
}

test("a raw file is durable when its flush resolves, and its name with the first", async () => {
  const path = emptyFile();
  await using writer = await openRawWriter(path, { generation: "1" });
  await writer.write(0, new Uint8Array(64 << 10).fill(1));
  await expectPatience(() => writer.flush(), [`fdatasync ${path}`, `fsync ${dirname(path)}`]);
  await writer.write(0, new Uint8Array(1 << 20).fill(2));
  await expectPatience(() => writer.flush(), [`fdatasync ${path}`]);
  await expectPatience(() => writer.commit({ written: none() }), [`fdatasync ${path}`]);
});

test("a raw file is durably empty before it is called blank: what it held does not come back with a power loss", async () => {
  const hole = emptyFile();
  await using target = await provider.target!({ path: hole });
  await expectPatience(() => target.create({ key: "disk", size: 4 << 20 }), [`fsync ${hole}`]);
  const emptied = join(dirname(hole), "emptied.raw");
  writeFileSync(emptied, "");
  await using second = await provider.target!({ path: emptied });
  await second.create({ key: "disk", size: 4 << 20 });
  expect(asked.synced).toEqual([`fsync ${emptied}`]);
});

test("a raw file that could not be made durable is neither flushed nor written to any more", async () => {
  const path = emptyFile();
  await using writer = await openRawWriter(path, { generation: "1" });
  await writer.write(0, new Uint8Array(512).fill(1));
  asked.failure = Object.assign(new Error("EIO"), { code: "EIO" });
  await expect(writer.flush()).rejects.toMatchObject({ code: "UNAVAILABLE" });
  asked.failure = undefined;
  await expect(writer.flush()).rejects.toMatchObject({ code: "UNAVAILABLE" });
  await expect(writer.write(0, new Uint8Array(512))).rejects.toMatchObject({ code: "UNAVAILABLE" });
});

test("the file of an image is durable when its sync resolves, and no flush of an image goes without", async () => {
  const path = join(realpathSync(freshFolder()), "disk.qcow2");
  await createQcow2({ path, size: 1 << 20 });
  asked.synced.length = 0;
  const file = await localFiles().open(path, "write");
  await expectPatience(() => file.sync(), [`fdatasync ${path}`]);
  await file.close();
  await using writer = await openQcow2Writer(path, { run: "one" });
  await writer.write(0, new Uint8Array(64 << 10).fill(1));
  asked.synced.length = 0;
  await writer.flush();
  expect(asked.synced).toContain(`fdatasync ${path}`);
});

async function* none(): AsyncGenerator<never> {}
