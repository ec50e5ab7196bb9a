import { execFileSync } from "node:child_process";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { DiskSnapshot, ReaderLaneModule, Snapshot, SourceConnector, Tile } from "@diskferry/core/provider";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { type LocalOptions, provider } from "../../src/index.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { freshFolder } from "../folder.ts";
import { bytesOf, listed } from "../shapes.ts";

const seed = seedOf(41);
const size = 4 * 1024 * 1024;

async function snapshotOf(source: SourceConnector, key = "key"): Promise<Snapshot> {
  const [machine] = await listed(source.machines());
  return source.snapshot(machine!, { key });
}

function sourceOf(options: LocalOptions): Promise<SourceConnector> {
  return provider.source!(options);
}

/** Through JSON and another connector, as after a restart. */
function restarted(disk: DiskSnapshot): DiskSnapshot {
  return JSON.parse(JSON.stringify(disk)) as DiskSnapshot;
}

async function tilesOf(source: SourceConnector, disk: DiskSnapshot, since?: string): Promise<Tile[]> {
  return listed(source.tracker!.changes(disk, { since }));
}

function rawDisk(): { path: string; bytes: Uint8Array } {
  const path = join(freshFolder(), "disk.raw");
  const bytes = randomBytes(size, seed);
  writeFileSync(path, bytes);
  return { path, bytes };
}

test("a disk without a machine is a machine of one disk, found by path or name", async () => {
  const { path } = rawDisk();
  await using source = await sourceOf({ path });
  const [machine] = await listed(source.machines());
  expect(machine).toMatchObject({ id: path, name: "disk.raw", disks: [{ key: "disk", size }] });
  expect(await source.machine("disk.raw")).toEqual(machine);
  await expect(source.machine("another")).rejects.toMatchObject({
    code: "NOT_FOUND",
    message: expect.stringContaining(path),
  });
});

test("several disks are one machine, in one point in time, and two of one key are refused", async () => {
  const [one, two] = [rawDisk(), rawDisk()];
  const disks = [
    { key: "sda", path: one.path, boot: true },
    { key: "sdb", path: two.path, frozen: true },
  ];
  await using source = await sourceOf({ machine: "web", disks });
  const machine = await source.machine("web");
  expect(machine.disks).toMatchObject([{ key: "sda", boot: true }, { key: "sdb" }]);
  const snapshot = await source.snapshot(machine, { key: "k" });
  expect([snapshot.consistency, snapshot.disks.length]).toEqual(["none", 2]);
  expect((await source.snapshot(machine, { key: "k", disks: ["sdb"] })).consistency).toBe("crash");
  const wrong = sourceOf({
    machine: "web",
    disks: [
      { path: one.path, key: "a" },
      { path: two.path, key: "a" },
    ],
  });
  await expect(wrong).rejects.toMatchObject({ code: "CONFIG_INVALID", message: expect.stringContaining("key a") });
});

test("the same content has the same point in time, also after a restart; another content has another", async () => {
  const { path, bytes } = rawDisk();
  await using source = await sourceOf({ path, frozen: true });
  const first = await snapshotOf(source);
  await using again = await sourceOf({ path, frozen: true });
  expect((await snapshotOf(again)).id).toBe(first.id);
  await using reader = await again.open(restarted(first.disks[0]!));
  expect(Buffer.compare(await bytesOf(reader), bytes)).toBe(0);
  writeFileSync(path, bytes);
  expect((await snapshotOf(again)).id).not.toBe(first.id);
});

test("a point in time that was overwritten is gone after a restart, and a frozen one at once", async () => {
  const { path, bytes } = rawDisk();
  await using frozen = await sourceOf({ path, frozen: true });
  await using live = await sourceOf({ path });
  const [frozenDisk] = (await snapshotOf(frozen)).disks;
  const [liveDisk] = (await snapshotOf(live)).disks;
  await using reader = await frozen.open(frozenDisk!);
  writeFileSync(path, bytes);
  await expect(reader.read(0, new Uint8Array(512))).rejects.toMatchObject({
    code: "CORRUPT",
    message: expect.stringContaining("written to while"),
  });
  await expect(frozen.open(frozenDisk!)).rejects.toMatchObject({ code: "NOT_FOUND" });
  await (await live.open(liveDisk!))[Symbol.asyncDispose]();
  await using later = await sourceOf({ path });
  await expect(later.open(restarted(liveDisk!))).rejects.toMatchObject({
    code: "NOT_FOUND",
    message: expect.stringContaining("start a new run"),
  });
  truncateSync(path, size / 2);
  await expect(live.open(liveDisk!)).rejects.toMatchObject({ code: "NOT_FOUND" });
});

// NOT_FOUND is what lets core begin a new run; anything else keeps the interrupted one for later.
test("a point in time is gone where its machine's disk is of another kind now, or on another server", async () => {
  const { path } = rawDisk();
  const image = join(freshFolder(), "disk.qcow2");
  await createQcow2({ path: image, size });
  const named = { machine: "web", key: "vda" };
  await using raw = await sourceOf({ ...named, path });
  await using qcow2 = await sourceOf({ ...named, path: image });
  await using nbd = await sourceOf({ ...named, uri: "nbd://127.0.0.1:1/disk" });
  const [ofRaw] = (await snapshotOf(raw)).disks;
  const [ofQcow2] = (await snapshotOf(qcow2)).disks;
  const ofOther = { ...ofRaw!, data: { uri: "nbd://127.0.0.1:2/disk" } };
  for (const [source, disk] of [
    [raw, ofQcow2!],
    [raw, ofOther],
    [qcow2, ofRaw!],
    [qcow2, ofOther],
    [nbd, ofRaw!],
    [nbd, ofQcow2!],
    [nbd, ofOther],
  ] as const) {
    const gone = { code: "NOT_FOUND", message: expect.stringContaining("start a new run") };
    await expect(source.open(disk)).rejects.toMatchObject(gone);
    await expect(tilesOf(source, disk)).rejects.toMatchObject(gone);
  }
});

test("a raw disk tracks nothing: its checkpoint is none, and a listing since one says that tracking is lost", async () => {
  const { path } = rawDisk();
  await using source = await sourceOf({ path });
  const [disk] = (await snapshotOf(source)).disks;
  expect(await source.tracker!.checkpoint(disk!)).toBeUndefined();
  expect(await tilesOf(source, disk!)).toEqual([{ offset: 0, length: size, kind: "changed" }]);
  await expect(tilesOf(source, disk!, "token")).rejects.toMatchObject({ code: "TRACKING_LOST" });
});

test("what looks like another format than its name has to be stated", async () => {
  const folder = freshFolder();
  const write = (name: string, start: string): string => {
    const path = join(folder, name);
    const bytes = Buffer.alloc(size);
    bytes.write(start, "latin1");
    writeFileSync(path, bytes);
    return path;
  };
  const trap = write("disk.raw", "QFI\u00fb");
  await expect(sourceOf({ path: trap })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: expect.stringMatching(/state format qcow2, or raw/),
  });
  await using source = await sourceOf({ path: trap, format: "raw" });
  const [disk] = (await snapshotOf(source)).disks;
  await using reader = await source.open(disk!);
  expect(Buffer.compare(await bytesOf(reader), readFileSync(trap))).toBe(0);
  await expect(sourceOf({ path: write("disk.qcow2", "hello") })).rejects.toMatchObject({
    message: expect.stringMatching(/does not begin like one/),
  });
  await expect(sourceOf({ path: trap, format: "qcow2" }).then((each) => snapshotOf(each))).rejects.toMatchObject({
    message: expect.stringContaining(trap),
  });
  await expect(sourceOf({ path: write("disk.img", "hello"), format: "qcow2" })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
  });
  for (const [start, name] of [
    ["KDMV", "VMDK"],
    ["vhdxfile", "VHDX"],
    ["conectix", "VHD"],
    ["<<< Oracle VM VirtualBox", "VDI"],
  ] as const) {
    const path = write(`image.${name}`, start);
    await expect(sourceOf({ path })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringMatching(new RegExp(`${name}.*qemu-nbd`)),
    });
  }
});

test("a directory is no source", async () => {
  const folder = freshFolder();
  await expect(sourceOf({ directory: folder })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: expect.stringContaining(folder),
  });
  await expect(sourceOf({ path: folder })).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  await expect(sourceOf({ path: join(folder, "missing.raw") })).rejects.toMatchObject({ code: "NOT_FOUND" });
});

describeWithPeers(["qemu-img", "qemu-io"], "qcow2 sources made by qemu", () => {
  const qemu = (command: string, ...args: string[]): void =>
    void execFileSync(command, args, { stdio: ["ignore", "ignore", "pipe"] });

  function chain(): { folder: string; base: string } {
    const folder = freshFolder();
    const base = join(folder, "base.qcow2");
    qemu("qemu-img", "create", "-q", "-f", "qcow2", base, String(size));
    qemu("qemu-io", "-c", "write -P 17 0 1M", "-c", "write -P 18 2M 64k", base);
    return { folder, base };
  }

  function overlay(folder: string, name: string, base: string): string {
    const path = join(folder, name);
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path);
    return path;
  }

  test("what was put on an overlay since is all that changed, zeroes as zeroes", async () => {
    const { folder, base } = chain();
    await using before = await sourceOf({ path: base, frozen: true, machine: "vm", key: "vda" });
    const [disk] = (await snapshotOf(before)).disks;
    const since = await before.tracker!.checkpoint(disk!);
    const first = await tilesOf(before, disk!);
    expect(first.reduce((end, tile) => (tile.offset === end ? end + tile.length : NaN), 0)).toBe(size);
    expect(first.filter(({ kind }) => kind === "changed")).toEqual([
      { offset: 0, length: 1048576, kind: "changed" },
      { offset: 2097152, length: 65536, kind: "changed" },
    ]);
    const top = overlay(folder, "top.qcow2", base);
    qemu("qemu-io", "-c", "write -P 19 3M 64k", "-c", "write -z 0 64k", top);
    await using after = await sourceOf({ path: top, frozen: true, machine: "vm", key: "vda" });
    const [next] = (await snapshotOf(after)).disks;
    const tiles = await tilesOf(after, next!, since);
    expect(tiles.filter(({ kind }) => kind !== "unchanged")).toEqual([
      { offset: 0, length: 65536, kind: "zero" },
      { offset: 3145728, length: 65536, kind: "changed" },
    ]);
    await using reader = await after.open(next!);
    const bytes = await bytesOf(reader);
    expect([bytes[0], bytes[65536], bytes[3145728]]).toEqual([0, 17, 19]);
  });

  test("tracking is lost when the copied image was written to, has left the chain, or the disk grew", async () => {
    const { folder, base } = chain();
    await using before = await sourceOf({ path: base, machine: "vm", key: "vda" });
    const [disk] = (await snapshotOf(before)).disks;
    const since = await before.tracker!.checkpoint(disk!);
    const lost = { code: "TRACKING_LOST" };
    const top = overlay(folder, "top.qcow2", base);
    const tilesSince = async (token: string): Promise<Tile[]> => {
      await using source = await sourceOf({ path: top, machine: "vm", key: "vda" });
      return await tilesOf(source, (await snapshotOf(source)).disks[0]!, token);
    };
    expect((await tilesSince(since!)).every(({ kind }) => kind === "unchanged")).toBe(true);
    await expect(tilesSince("nonsense")).rejects.toMatchObject(lost);
    qemu("qemu-img", "resize", "-q", top, String(2 * size));
    await expect(tilesSince(since!)).rejects.toMatchObject(lost);
    qemu("qemu-img", "resize", "-q", "--shrink", top, String(size));
    qemu("qemu-io", "-c", "write -P 1 0 64k", base);
    await expect(tilesSince(since!)).rejects.toMatchObject(lost);
    const flat = join(folder, "flat.qcow2");
    qemu("qemu-img", "convert", "-O", "qcow2", top, flat);
    await using other = await sourceOf({ path: flat, machine: "vm", key: "vda" });
    await expect(tilesOf(other, (await snapshotOf(other)).disks[0]!, since)).rejects.toMatchObject(lost);
  });

  test("a frozen chain that is written to is noticed, in the lanes as well", async () => {
    const { folder, base } = chain();
    const top = overlay(folder, "top.qcow2", base);
    await using source = await sourceOf({ path: top, frozen: true });
    const [disk] = (await snapshotOf(source)).disks;
    await using reader = await source.open(disk!);
    const module = (await import(reader.lane!.module)) as ReaderLaneModule;
    await using lane = await module.open(reader.lane!.data);
    await reader.read(0, new Uint8Array(65536));
    const into = new Uint8Array(65536);
    await lane.read(0, into);
    expect(into[0]).toBe(17);
    qemu("qemu-io", "-c", "write -P 1 0 64k", base);
    await expect(reader.read(0, into)).rejects.toMatchObject({ code: "CORRUPT" });
    await expect(lane.read(0, into)).rejects.toMatchObject({ code: "CORRUPT" });
  });

  test("a target that is the backing file of the source is refused", async () => {
    const { folder, base } = chain();
    const top = overlay(folder, "top.qcow2", base);
    await using source = await sourceOf({ path: top });
    const [disk] = (await snapshotOf(source)).disks;
    await using reader = await source.open(disk!);
    await using target = await provider.target!({ path: base, overwrite: true });
    const volume = await target.create({ key: "disk", size });
    await expect(target.open(volume, { run: "run", epoch: 1 })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("share the same bytes"),
    });
    await reader.read(0, new Uint8Array(512));
  });
});
