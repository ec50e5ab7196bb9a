import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { beforeEach, expect, test, vi } from "vitest";
import type {
  BlockReader,
  DiskSnapshot,
  LaneWriter,
  ReaderLaneModule,
  SourceConnector,
  Tile,
  WriterLaneModule,
} from "@diskferry/core/provider";
import { connectNbd, holdNbdPlace, memoryBackend, serveNbd, type NbdExtent } from "@diskferry/nbd";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { startNbdkit, startQemuNbd, startQemuStorageDaemon } from "../../../../test/servers.ts";
import { type LocalOptions, provider } from "../../src/index.ts";
import { tilesOf } from "../../src/source/nbd-disk.ts";
import { freshFolder } from "../folder.ts";
import { bytesOf, commit, listed, targetOf, volumeBytes } from "../shapes.ts";

const seed = seedOf(53);
const size = 8 * 1024 * 1024;
const block = 1024 * 1024;

// What is remembered of exports goes to a folder that the test removes.
beforeEach(() => {
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  return () => vi.unstubAllEnvs();
});

async function momentOf(source: SourceConnector): Promise<DiskSnapshot> {
  const [machine] = await listed(source.machines());
  return (await source.snapshot(machine!, { key: "key" })).disks[0]!;
}

function sourceOf(options: LocalOptions): Promise<SourceConnector> {
  return provider.source!(options);
}

function changedOf(tiles: readonly Tile[]): [number, number, string][] {
  return tiles.filter(({ kind }) => kind !== "unchanged").map(({ offset, length, kind }) => [offset, length, kind]);
}

test("tiles keep to the grid: a block of which two things are told is changed", async () => {
  async function* extents(): AsyncGenerator<NbdExtent> {
    const kinds: [number, number, number][] = [
      [0, 4096, 3],
      [4096, 512, 3],
      [4608, 512, 0],
      [5120, 3072, 3],
      [8192, 4096, 1],
      [12288, 512, 3],
      [12800, 7680, 3],
      [20480, 1024, 3],
    ];
    for (const [offset, length, flags] of kinds) yield { offset, length, flags: { "base:allocation": flags } };
  }
  expect(await listed(tilesOf(extents(), undefined, 4096, 21504))).toEqual([
    { offset: 0, length: 4096, kind: "zero" },
    { offset: 4096, length: 8192, kind: "changed" },
    { offset: 12288, length: 9216, kind: "zero" },
  ]);
});

test("what is opened of a source shares its connections, and when one is lost all are opened anew", async () => {
  const bytes = randomBytes(size, seed);
  const socket = join(freshFolder(), "socket");
  await using server = await serveNbd({
    listen: { path: socket },
    exports: () => ({ backend: memoryBackend(bytes), readOnly: true }),
  });
  const uri = `nbd+unix:///?socket=${socket}`;
  {
    await using source = await sourceOf({ uri });
    const disk = await momentOf(source);
    for (const _ of [1, 2]) {
      await using reader = await source.open(disk);
      expect(reader.lane!.limit).toBe(4);
      expect(Buffer.compare(await bytesOf(reader), bytes)).toBe(0);
      await vi.waitFor(() => expect(server.connections()).toHaveLength(connectionsOf(reader)));
    }
    const before = new Set(server.connections());
    {
      await using reader = await source.open(disk);
      server.connections()[1]!.destroy();
      await expect(
        (async () => {
          for (;;) await bytesOf(reader);
        })(),
      ).rejects.toMatchObject({ code: "UNAVAILABLE" });
    }
    await using reader = await source.open(disk);
    expect(Buffer.compare(await bytesOf(reader), bytes)).toBe(0);
    await vi.waitFor(() => expect(server.connections()).toHaveLength(connectionsOf(reader)));
    expect(server.connections().filter((each) => before.has(each))).toEqual([]);
  }
  await vi.waitFor(() => expect(server.connections()).toEqual([]));
});

/** How many connections a reader's thread has: a busy machine may take a short way for a long one. */
function connectionsOf(reader: BlockReader): number {
  return reader.preferredLength === block ? 2 : 4;
}

test.for([0, 20])(
  "connections are there when a copy begins, more of them where reads take long (%i ms)",
  async (ms) => {
    const bytes = randomBytes(size, seed);
    const memory = memoryBackend(bytes);
    const backend: typeof memory = {
      ...memory,
      async read(...call): Promise<void> {
        if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
        await memory.read(...call);
      },
    };
    const socket = join(freshFolder(), "socket");
    await using server = await serveNbd({ listen: { path: socket }, exports: () => ({ backend, readOnly: true }) });
    {
      await using source = await sourceOf({ uri: `nbd+unix:///?socket=${socket}` });
      const disk = await momentOf(source);
      // Nothing was read of it yet but what tells how long the way is.
      await vi.waitFor(() => expect(server.connections().length).toBeGreaterThan(1));
      await using reader = await source.open(disk);
      if (ms > 0) expect(reader.preferredLength).toBe(4 * block);
      expect(Buffer.compare(await bytesOf(reader), bytes)).toBe(0);
      await vi.waitFor(() => expect(server.connections()).toHaveLength(connectionsOf(reader)));
    }
    await vi.waitFor(() => expect(server.connections()).toEqual([]));
  },
);

test("a place at a server is held until it is disposed, and no session is begun", async () => {
  const socket = join(freshFolder(), "socket");
  let begun = 0;
  await using server = await serveNbd({
    listen: { path: socket },
    exports: () => ({ backend: (begun++, memoryBackend(new Uint8Array(512))) }),
    limits: { connections: 1 },
  });
  const uri = `nbd+unix:///?socket=${socket}`;
  {
    await using _held = await holdNbdPlace(uri);
    await expect(holdNbdPlace(uri, { connectTimeoutMs: 200 })).rejects.toMatchObject({ code: "UNAVAILABLE" });
  }
  await using _again = await holdNbdPlace(uri);
  expect([begun, server.connections()]).toEqual([0, []]);
});

describeWithPeers(["qemu-nbd", "qemu-storage-daemon", "qemu-img", "qemu-io"], "NBD sources served by QEMU", () => {
  const qemu = (command: string, ...args: string[]): void =>
    void execFileSync(command, args, { stdio: ["ignore", "ignore", "pipe"] });

  test("a server that takes one client serves machine, tiles and reads over one connection", async () => {
    const path = join(freshFolder(), "disk.raw");
    const bytes = new Uint8Array(size);
    bytes.set(randomBytes(block, seed), 2 * block);
    writeFileSync(path, bytes);
    execFileSync("fallocate", ["--dig-holes", path]);
    await using server = await startQemuNbd(["-f", "raw", "-r", "-e", "1", path]);
    await using source = await sourceOf({ uri: server.uri, frozen: true });
    const disk = await momentOf(source);
    await using reader = await source.open(disk);
    expect(reader.size).toBe(size);
    const tiles = await listed(source.tracker!.changes(disk));
    expect(changedOf(tiles).filter(([, , kind]) => kind === "changed")).toEqual([[2 * block, block, "changed"]]);
    expect(await source.tracker!.checkpoint(disk)).toBeUndefined();
    expect(Buffer.compare(await bytesOf(reader), bytes), `seed ${seed}`).toBe(0);
  });

  test("several connections where the server takes them, and no more lanes than it takes", async () => {
    const path = join(freshFolder(), "disk.raw");
    const bytes = randomBytes(size, seed);
    writeFileSync(path, bytes);
    await using server = await startQemuNbd(["-f", "raw", "-r", "-e", "3", path]);
    await using source = await sourceOf({ uri: server.uri });
    await using reader = await source.open(await momentOf(source));
    expect(reader.lane!.limit).toBe(2);
    const module = (await import(reader.lane!.module)) as ReaderLaneModule;
    await using one = await module.open(reader.lane!.data);
    await using two = await module.open(reader.lane!.data);
    for (const each of [one, two, reader]) expect(Buffer.compare(await bytesOf(each), bytes)).toBe(0);
  }, 30_000);

  test("a dirty bitmap tells what changed since; the token is bound to bitmap, server and size", async () => {
    const path = join(freshFolder(), "disk.qcow2");
    qemu("qemu-img", "create", "-q", "-f", "qcow2", path, String(size));
    qemu("qemu-io", "-c", "write -P 1 0 4M", path);
    qemu("qemu-img", "bitmap", "--add", "-g", "65536", path, "b0");
    let since: string | undefined;
    const options = (uri: string): LocalOptions => ({ uri, bitmap: "b0", frozen: true, machine: "vm", key: "vda" });
    {
      await using server = await startQemuNbd(["-f", "qcow2", "-r", "-B", "b0", path]);
      await using source = await sourceOf(options(server.uri));
      since = await source.tracker!.checkpoint(await momentOf(source));
      expect(since).toBeDefined();
      const [machine] = await listed(source.machines());
      expect(await source.tracker!.status!(machine!, "vda")).toMatchObject({ supported: true, enabled: true });
    }
    qemu("qemu-io", "-c", "write -P 2 1M 64k", "-c", "write -P 2 6M 64k", "-c", "write -z 3M 128k", path);
    await using server = await startQemuNbd(["-f", "qcow2", "-r", "-e", "2", "-B", "b0", path]);
    await using source = await sourceOf(options(server.uri));
    const disk = await momentOf(source);
    const lost = { code: "TRACKING_LOST" };
    // Its machine and key were stated, so it is the same disk wherever it is served; else the address tells.
    const here = since!;
    await using unnamed = await sourceOf({ uri: server.uri, bitmap: "b0" });
    await expect(listed(unnamed.tracker!.changes(await momentOf(unnamed), { since: here }))).rejects.toMatchObject(
      lost,
    );
    expect(changedOf(await listed(source.tracker!.changes(disk, { since: here })))).toEqual([
      [block, 65536, "changed"],
      [3 * block, 131072, "zero"],
      [6 * block, 65536, "changed"],
    ]);
    const part = await listed(source.tracker!.changes(disk, { since: here, from: 2 * block, to: 4 * block }));
    expect([part[0]!.offset, part.at(-1)!.offset + part.at(-1)!.length]).toEqual([2 * block, 4 * block]);
    for (const wrong of [
      "{",
      here.replace("b0", "b1"),
      here.replace(String(size), String(size / 2)),
      '["another",1,2,3]',
    ]) {
      await expect(listed(source.tracker!.changes(disk, { since: wrong })), wrong).rejects.toMatchObject(lost);
    }
  });

  test("of two dirty bitmaps in turn the one that the checkpoint names is read, and the other is the next checkpoint", async () => {
    const path = join(freshFolder(), "disk.qcow2");
    qemu("qemu-img", "create", "-q", "-f", "qcow2", path, String(size));
    for (const name of ["b0", "b1"]) qemu("qemu-img", "bitmap", "--add", "-g", "65536", path, name);
    await using server = await startQemuStorageDaemon(path, ["b0", "b1"]);
    const options = (bitmap: string): LocalOptions => ({ uri: server.uri, bitmap, frozen: true, machine: "vm" });
    await using before = await sourceOf(options("b0"));
    const since = await before.tracker!.checkpoint(await momentOf(before));
    expect(since).toMatch(/\bb0\b/);
    {
      await using guest = await connectNbd(server.uri);
      await guest.write(block, randomBytes(65536, seed));
    }
    await using source = await sourceOf(options("b1"));
    const disk = await momentOf(source);
    expect(changedOf(await listed(source.tracker!.changes(disk, { since })))).toEqual([[block, 65536, "changed"]]);
    expect(await source.tracker!.checkpoint(disk)).toMatch(/\bb1\b/);
  });

  test("a server that shows no such bitmap leaves no checkpoint, and says what it shows", async () => {
    const path = join(freshFolder(), "disk.qcow2");
    qemu("qemu-img", "create", "-q", "-f", "qcow2", path, String(size));
    await using server = await startQemuNbd(["-f", "qcow2", "-r", path]);
    await using source = await sourceOf({ uri: server.uri, bitmap: "b0" });
    expect(await source.tracker!.checkpoint(await momentOf(source))).toBeUndefined();
    const [machine] = await listed(source.machines());
    expect(await source.tracker!.status!(machine!, "disk")).toMatchObject({
      enabled: false,
      detail: expect.stringContaining("shown: none"),
    });
  });

  test("a server that died is UNAVAILABLE to its reader, and a new one is found by opening again", async () => {
    const path = join(freshFolder(), "disk.raw");
    const bytes = randomBytes(size, seed);
    writeFileSync(path, bytes);
    await using first = await startQemuNbd(["-f", "raw", "-r", path], { transport: "tcp" });
    await using source = await sourceOf({ uri: first.uri, frozen: true });
    const disk = await momentOf(source);
    const reader = await source.open(disk);
    first.kill("SIGKILL");
    await first.exited;
    await expect(reader.read(0, new Uint8Array(block))).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await reader[Symbol.asyncDispose]();
    await expect(source.open(disk)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });
});

describeWithPeers(["qemu-nbd", "nbdkit"], "NBD targets", () => {
  test("a run is written in lanes, flushed, cut off, resumed under the same generation and read back", async () => {
    const path = join(freshFolder(), "disk.raw");
    writeFileSync(path, new Uint8Array(size).fill(9));
    await using server = await startQemuNbd(["-f", "raw", "-e", "8", path]);
    await using target = await targetOf({ uri: server.uri });
    const volume = await target.create({ key: "disk", size: size - 512, job: "job" });
    expect(volume.size).toBe(size);
    const writer = await target.open(volume, { run: "run", epoch: 1 });
    expect(writer.blank).toBeUndefined();
    await writer.write(0, randomBytes(block, seed));
    const lanes: LaneWriter[] = [];
    if (writer.lane !== undefined) {
      const module = (await import(writer.lane.module)) as WriterLaneModule;
      lanes.push(await module.open(writer.lane.data));
    }
    const lane = lanes[0] ?? writer;
    await lane.write(block, randomBytes(block, seed + 1));
    await lane.zero!(2 * block, 6 * block);
    for (const each of lanes) writer.lane!.merge?.(await each.settle());
    await writer.flush();
    await writer[Symbol.asyncDispose]();
    for (const each of lanes) await each[Symbol.asyncDispose]();
    await using later = await targetOf({ uri: server.uri });
    const again = await later.open(volume, { run: "run", epoch: 2 });
    expect(again.generation).toBe(writer.generation);
    await expect(target.open(volume, { run: "run", epoch: 1 })).rejects.toMatchObject({ code: "FENCED" });
    const last = await commit(again);
    await again[Symbol.asyncDispose]();
    const other = await later.open(volume, { run: "another", base: last, epoch: 3 });
    expect(other.generation).not.toBe(writer.generation);
    await other[Symbol.asyncDispose]();
    const expected = new Uint8Array(size);
    expected.set(randomBytes(block, seed), 0);
    expected.set(randomBytes(block, seed + 1), block);
    expect(Buffer.compare(await volumeBytes(later, last), expected), `seed ${seed}`).toBe(0);
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
    expect((await listed(later.owned("job"))).length).toBe(1);
    await later.remove(last);
    expect(await listed(later.owned("job"))).toEqual([]);
  });

  test("too small, read-only, without flush, of an odd size: each is refused by name and left as it was", async () => {
    const path = join(freshFolder(), "disk.raw");
    writeFileSync(path, new Uint8Array(size).fill(9));
    await using small = await startQemuNbd(["-f", "raw", path]);
    await using smallTarget = await targetOf({ uri: small.uri });
    await expect(smallTarget.create({ key: "k", size: size + 512 })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringMatching(/512 too few.*nothing was written/),
    });
    const refused = async (uri: string): Promise<unknown> => {
      await using target = await targetOf({ uri });
      const volume = await target.create({ key: "k", size: block });
      await (await target.open(volume, { run: "run", epoch: 1 }))[Symbol.asyncDispose]();
      return undefined;
    };
    await using readOnly = await startQemuNbd(["-f", "raw", "-r", path]);
    await expect(refused(readOnly.uri)).rejects.toMatchObject({
      code: "DENIED",
      message: expect.stringContaining("read-only"),
    });
    await using odd = await startNbdkit(["memory", String(size + 100)]);
    await expect(refused(odd.uri)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("multiple of 512"),
    });
    await using noFlush = await startNbdkit([
      "eval",
      "get_size=echo 8M",
      "pread=dd if=/dev/zero count=$3 iflag=count_bytes",
      "pwrite=cat > /dev/null",
      "can_flush=exit 3",
      "can_fua=echo none",
    ]);
    await expect(refused(noFlush.uri)).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringContaining("no flush"),
    });
    expect(readFileSync(path).every((byte) => byte === 9)).toBe(true);
  });

  test("once the session is lost a writer takes nothing more, and says that repeating the call is of no use", async () => {
    const path = join(freshFolder(), "disk.raw");
    writeFileSync(path, new Uint8Array(size));
    await using server = await startQemuNbd(["-f", "raw", path]);
    await using target = await targetOf({ uri: server.uri });
    const volume = await target.create({ key: "disk", size });
    await using writer = await target.open(volume, { run: "run", epoch: 1 });
    await writer.write(0, randomBytes(block, seed));
    server.kill("SIGKILL");
    await server.exited;
    const gone = { code: "UNAVAILABLE", retryable: false };
    await expect(writer.flush()).rejects.toMatchObject(gone);
    await expect(writer.write(0, randomBytes(block, seed))).rejects.toMatchObject(gone);
    await expect(writer.flush()).rejects.toMatchObject(gone);
  });

  test("an export that is source and target at once is refused", async () => {
    const path = join(freshFolder(), "disk.raw");
    writeFileSync(path, new Uint8Array(size));
    await using server = await startQemuNbd(["-f", "raw", "-e", "4", path]);
    await using source = await sourceOf({ uri: server.uri });
    await using reader = await source.open(await momentOf(source));
    await using target = await targetOf({ uri: server.uri });
    const volume = await target.create({ key: "disk", size });
    await expect(target.open(volume, { run: "run", epoch: 1 })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("same disk"),
    });
    await reader.read(0, new Uint8Array(512));
  });
});

describeWithPeers(["qemu-nbd"], "NBD over TLS", () => {
  test("keys come from the file that the options name, in lanes too; a wrong key and no TLS are refused", async () => {
    const folder = freshFolder();
    const path = join(folder, "disk.raw");
    const bytes = randomBytes(size, seed);
    writeFileSync(path, bytes);
    const keys = join(folder, "keys.psk");
    writeFileSync(keys, `ferry:${"5a".repeat(32)}\n`);
    const wrong = join(folder, "wrong.psk");
    writeFileSync(wrong, `ferry:${"5b".repeat(32)}\n`);
    const object = `tls-creds-psk,id=tls0,endpoint=server,dir=${folder}`;
    await using server = await startQemuNbd(
      ["--object", object, "--tls-creds", "tls0", "-f", "raw", "-r", "-e", "4", path],
      { tls: true },
    );
    const withKeys = (pskFile: string): LocalOptions => ({ uri: server.uri, tls: { pskFile, username: "ferry" } });
    await using source = await sourceOf(withKeys(keys));
    const disk = await momentOf(source);
    expect(JSON.stringify(disk)).not.toContain("5a5a");
    await using reader = await source.open(disk);
    expect(Buffer.compare(await bytesOf(reader), bytes)).toBe(0);
    const module = (await import(reader.lane!.module)) as ReaderLaneModule;
    await using lane = await module.open(structuredClone(reader.lane!.data));
    expect(Buffer.compare(await bytesOf(lane), bytes)).toBe(0);
    await using stranger = await sourceOf(withKeys(wrong));
    await expect(listed(stranger.machines())).rejects.toMatchObject({ name: "ProviderError" });
    await using plain = await sourceOf({ uri: server.uri.replace("nbds", "nbd") });
    await expect(listed(plain.machines())).rejects.toMatchObject({ name: "ProviderError" });
    await using missing = await sourceOf(withKeys(join(folder, "none.psk")));
    await expect(listed(missing.machines())).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("none.psk"),
    });
  });
});

test("a server that is not there is UNAVAILABLE, one that is no NBD server is told apart", async () => {
  const folder = freshFolder();
  await using source = await sourceOf({ uri: `nbd+unix:///?socket=${join(folder, "none")}` });
  await expect(listed(source.machines())).rejects.toMatchObject({ message: expect.stringContaining("none") });
  const socket = join(folder, "other");
  const server = createServer((connection) => connection.resume().end("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(20)));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  try {
    await using wrong = await sourceOf({ uri: `nbd+unix:///?socket=${socket}` });
    await expect(listed(wrong.machines())).rejects.toMatchObject({ name: "ProviderError" });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});
