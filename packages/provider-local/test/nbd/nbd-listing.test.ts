import { beforeEach, expect, onTestFinished, test, vi } from "vitest";
import type { DiskSnapshot, SourceConnector, Tile } from "@diskferry/core/provider";
import { type AllocationExtent, type NbdBackend, serveNbd } from "@diskferry/nbd";
import { join } from "node:path";
import { provider } from "../../src/index.ts";
import { freshFolder } from "../folder.ts";
import { listed } from "../shapes.ts";

const size = 4 * 1024 * 1024;

beforeEach(() => {
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  return () => vi.unstubAllEnvs();
});

/** A disk whose first `data` bytes are allocated, and how often it was asked what is. */
class Disk implements NbdBackend {
  readonly size = size;
  readonly multiConnection = true;
  data = 512 * 1024;
  asked = 0;
  /** What the next answer waits for. */
  hold: Promise<unknown> | undefined;

  read(_offset: number, into: Uint8Array): void {
    into.fill(1);
  }

  async *extents(from: number, length: number): AsyncGenerator<AllocationExtent> {
    this.asked += 1;
    const { data } = this;
    await this.hold;
    if (from < data) yield { offset: from, length: Math.min(length, data - from), hole: false, zero: false };
    const start = Math.max(from, data);
    if (from + length > start) yield { offset: start, length: from + length - start, hole: true, zero: true };
  }
}

async function sourceOf(backend: NbdBackend): Promise<SourceConnector> {
  const server = await serveNbd({ listen: { path: join(freshFolder(), "socket") }, exports: { "": { backend } } });
  const source = await provider.source!({ uri: server.uri() });
  onTestFinished(async () => {
    await source[Symbol.asyncDispose]();
    await server.close({ deadlineMs: 100 });
  });
  return source;
}

async function snapshotOf(source: SourceConnector, key: string): Promise<DiskSnapshot> {
  const [machine] = await listed(source.machines());
  return (await source.snapshot(machine!, { key })).disks[0]!;
}

async function changedBytes(source: SourceConnector, snapshot: DiskSnapshot, from = 0): Promise<number> {
  const tiles: Tile[] = await listed(source.tracker!.changes(snapshot, { from }));
  expect(tiles.reduce((sum, { length }) => sum + length, 0)).toBe(size - from);
  return tiles.filter(({ kind }) => kind === "changed").reduce((sum, { length }) => sum + length, 0);
}

test("what is allocated is asked for when the point in time is fixed, and anew by whoever lists it again", async () => {
  const disk = new Disk();
  const source = await sourceOf(disk);
  const snapshot = await snapshotOf(source, "one");
  await vi.waitFor(() => expect(disk.asked).toBe(1));
  disk.data *= 2;
  expect(await changedBytes(source, snapshot)).toBe(disk.data / 2);
  expect(disk.asked).toBe(1);
  expect(await changedBytes(source, snapshot)).toBe(disk.data);
  expect(disk.asked).toBe(2);
});

test("an answer about another point in time, or about all of the disk where a part is asked for, is not used", async () => {
  const disk = new Disk();
  const source = await sourceOf(disk);
  const before = await snapshotOf(source, "one");
  await vi.waitFor(() => expect(disk.asked).toBe(1));
  const after = await snapshotOf(source, "two");
  await vi.waitFor(() => expect(disk.asked).toBe(2));
  disk.data *= 2;
  expect(await changedBytes(source, before)).toBe(disk.data);
  expect(await changedBytes(source, after, 65_536)).toBe(disk.data - 65_536);
  expect(await changedBytes(source, after)).toBe(disk.data / 2);
});

test("a server that fails when it is asked ahead is asked again", async () => {
  const disk = new Disk();
  const source = await sourceOf(disk);
  disk.hold = Promise.reject(new Error("the medium had a hiccup"));
  disk.hold.catch(() => {});
  const snapshot = await snapshotOf(source, "one");
  await vi.waitFor(() => expect(disk.asked).toBe(1));
  disk.hold = undefined;
  expect(await changedBytes(source, snapshot)).toBe(disk.data);
});

test("a server that never answers keeps nobody who gives up, lists anew or closes", async () => {
  const disk = new Disk();
  const source = await sourceOf(disk);
  const silence = Promise.withResolvers<void>();
  onTestFinished(() => silence.resolve());
  disk.hold = silence.promise;
  const snapshot = await snapshotOf(source, "one");
  await vi.waitFor(() => expect(disk.asked).toBe(1));
  const giving = new AbortController();
  const listing = listed(source.tracker!.changes(snapshot, { signal: giving.signal }));
  const reason = new Error("enough");
  setTimeout(() => giving.abort(reason), 50);
  await expect(listing).rejects.toBe(reason);
  const next = await snapshotOf(source, "two");
  await vi.waitFor(() => expect(disk.asked).toBe(2));
  disk.hold = undefined;
  expect(await changedBytes(source, { ...next, id: snapshot.id })).toBe(disk.data);
  await source[Symbol.asyncDispose]();
});
