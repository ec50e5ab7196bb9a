import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { SourceConnector, Volume } from "@diskferry/core/provider";
import {
  type ChangeTracking,
  type NbdBackend,
  type NbdClient,
  type NbdServer,
  connectNbd,
  memoryBackend,
  serveNbd,
  trackChanges,
} from "@diskferry/nbd";
import type { ConformanceHarness, SourceHarness, TargetHarness } from "@diskferry/provider-testkit";
import { type LocalOptions, provider } from "../../src/index.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { textOf } from "../shapes.ts";
import { fanOut } from "./fan-out.ts";

const mebi = 1024 * 1024;
/** A point in time here is the content that is there: nothing is made, so nothing is owned, released or found again by its key. */
const snapshotless = "a local disk has no snapshots of its own";
/** When the guest writes on, what it overwrote is gone; `consistency` then says `none`. */
const unfixed = "the guest writes the disk in place, and that is what is read";
/** No multiple of any block but a sector. */
const oddSize = 4 * mebi + 512;

/** What is judged, and how it is taken down. */
export interface Judged extends AsyncDisposable {
  harness: ConformanceHarness;
}

function still(harness: ConformanceHarness): Judged {
  return { harness, [Symbol.asyncDispose]: () => Promise.resolve() };
}

function writeAt(path: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(path, "r+");
  try {
    writeSync(fd, bytes, 0, bytes.byteLength, offset);
  } finally {
    closeSync(fd);
  }
}

const badConfig = { path: "/dev/null", uri: "nbd://127.0.0.1/", colour: "blue" };

/** Raw files as a machine of two disks, written by a live guest. */
export function rawSource(folder: string): Judged {
  const [one, two] = [join(folder, "one.raw"), join(folder, "two.raw")];
  for (const path of [one, two]) {
    writeFileSync(path, "");
    truncateSync(path, oddSize);
  }
  const config: LocalOptions = {
    machine: "vm",
    disks: [
      { key: "vda", path: one },
      { key: "vdb", path: two },
    ],
  };
  let size = oddSize;
  const source: SourceHarness = {
    open: () => provider.source!(config),
    machine: "vm",
    disk: "vda",
    writeGuest: (offset, bytes) => writeAt(one, offset, bytes),
    trimGuest: (offset, length) =>
      void execFileSync("fallocate", ["-p", "-o", String(offset), "-l", String(length), one]),
    second: { key: "vdb", write: (offset, bytes) => writeAt(two, offset, bytes) },
    snapshotless,
    unfixed,
    grow: () => truncateSync(one, (size += mebi)),
  };
  return still({
    name: "raw files",
    definition: { provider, config: { path: one }, badConfig, uri: `local:${one}?frozen=true` },
    source,
  });
}

/**
 * A qcow2 chain that grows as one does that is backed up by external snapshots: what was snapshot is not written to any
 * more, the guest goes on in a new overlay, and a link leads to the newest.
 */
export function qcow2Source(folder: string): Judged {
  const links = { vda: join(folder, "vda.qcow2"), vdb: join(folder, "vdb.qcow2") };
  let count = 0;
  const tops: Record<string, string> = {};
  const create = (key: keyof typeof links, ...args: string[]): void => {
    const path = join(folder, `${key}-${++count}.qcow2`);
    execFileSync(
      "qemu-img",
      ["create", "-q", "-f", "qcow2", ...args.slice(0, -1), path, args.at(-1)!].filter((arg) => arg !== ""),
    );
    symlinkSync(path, `${links[key]}.new`);
    renameSync(`${links[key]}.new`, links[key]);
    tops[key] = path;
  };
  create("vda", String(4 * mebi + 512));
  create("vdb", String(2 * mebi));
  const seen = new Set<string>();
  const touch = (key: keyof typeof links): string => {
    if (seen.delete(key)) create(key, "-b", tops[key]!, "-F", "qcow2", "");
    return links[key];
  };
  const write = (key: keyof typeof links, offset: number, bytes: Uint8Array): void => {
    const path = touch(key);
    const data = join(folder, "data");
    writeFileSync(data, bytes);
    execFileSync("qemu-io", ["-f", "qcow2", "-c", `write -q -s ${data} ${offset} ${bytes.byteLength}`, path], {
      stdio: "ignore",
    });
  };
  const config: LocalOptions = {
    machine: "vm",
    disks: [
      { key: "vda", path: links.vda },
      { key: "vdb", path: links.vdb },
    ],
  };
  return still({
    name: "qcow2 chains",
    definition: { provider, config: { path: links.vda }, badConfig, uri: `qcow2:${links.vda}` },
    source: {
      async open(): Promise<SourceConnector> {
        const source = await provider.source!(config);
        const snapshot = source.snapshot.bind(source);
        return Object.assign(source, {
          snapshot: async (...args: Parameters<SourceConnector["snapshot"]>) => {
            seen.add("vda").add("vdb");
            return snapshot(...args);
          },
        });
      },
      machine: "vm",
      disk: "vda",
      writeGuest: (offset, bytes) => write("vda", offset, bytes),
      trimGuest: (offset, length) => {
        const path = touch("vda");
        execFileSync("qemu-io", ["-f", "qcow2", "-c", `write -q -z -u ${offset} ${length}`, path], { stdio: "ignore" });
      },
      second: { key: "vdb", write: (offset, bytes) => write("vdb", offset, bytes) },
      snapshotless,
      grow: () => {
        const path = touch("vda");
        execFileSync("qemu-img", ["resize", "-q", "-f", "qcow2", path, `+${mebi}`]);
      },
    },
  });
}

/** Memory that tells which of its blocks hold nothing but zeroes, as a file tells of its holes. */
function sparseBackend(bytes: Uint8Array): NbdBackend {
  const unit = 4096;
  return {
    ...memoryBackend(bytes),
    async *extents(from, length) {
      for (let offset = from - (from % unit); offset < from + length; offset += unit) {
        const block = bytes.subarray(offset, offset + unit);
        const zero = block.every((byte) => byte === 0);
        yield { offset, length: block.byteLength, hole: zero, zero };
      }
    },
  };
}

/**
 * Exports that a live guest writes through the server, which marks what it changes in a bitmap. Whoever runs the server
 * clears it at the moment the first point in time of a connection is fixed, as for a job's first run, and leaves it alone
 * after that: the suite records nothing, so that every later listing is one since that first point. When tracking breaks,
 * the server is one that was started again, whose bitmap of the same name knows nothing of what was written before.
 */
export async function nbdSource(folder: string): Promise<Judged> {
  const name = "backup";
  const disks: Record<string, { backend: NbdBackend; tracking: ChangeTracking }> = {};
  const track = (size: number): ChangeTracking => trackChanges({ name, size, granularity: 4096 });
  const put = (key: string, bytes: Uint8Array): void => {
    disks[key] = { backend: sparseBackend(bytes), tracking: track(bytes.byteLength) };
  };
  let bytes = new Uint8Array(oddSize);
  put("vda", bytes);
  // Of the same size, so that nothing but its name tells its checkpoint from another's.
  put("vdb", new Uint8Array(oddSize));
  const server = await serveNbd({
    listen: { path: join(folder, "source") },
    exports: (key) => {
      const disk = disks[key];
      return disk && { backend: disk.backend, tracking: [disk.tracking] };
    },
  });
  const guest = async (key: string, act: (disk: NbdClient) => Promise<void>): Promise<void> => {
    await using disk = await connectNbd(server.uri(key));
    await act(disk);
  };
  /** As a server does that is started again. Once another client has been served, those cut off have noticed. */
  const restart = async (): Promise<void> => {
    for (const connection of server.connections()) connection.destroy();
    await guest("vda", (disk) => disk.flush());
  };
  const bitmap = `diskferry:changes:${name}`;
  const config: LocalOptions = {
    machine: "vm",
    disks: [
      { key: "vda", uri: server.uri("vda"), bitmap },
      { key: "vdb", uri: server.uri("vdb"), bitmap },
    ],
  };
  return {
    harness: {
      name: "NBD exports",
      definition: { provider, config: { uri: server.uri("vda") }, badConfig, uri: server.uri("vda") },
      source: {
        async open(): Promise<SourceConnector> {
          let isFirst = true;
          const source = await provider.source!(config);
          const snapshot = source.snapshot.bind(source);
          return Object.assign(source, {
            snapshot: async (...args: Parameters<SourceConnector["snapshot"]>) => {
              if (isFirst) for (const { tracking } of Object.values(disks)) tracking.reset();
              isFirst = false;
              return snapshot(...args);
            },
          });
        },
        machine: "vm",
        disk: "vda",
        writeGuest: (offset, data) => guest("vda", (disk) => disk.write(offset, data)),
        trimGuest: (offset, length) => guest("vda", (disk) => disk.trim(offset, length)),
        second: { key: "vdb", write: (offset, data) => guest("vdb", (disk) => disk.write(offset, data)) },
        snapshotless,
        unfixed,
        breakTracking: async () => {
          for (const disk of Object.values(disks)) disk.tracking = track(disk.backend.size);
          await restart();
        },
        grow: async () => {
          const larger = new Uint8Array(bytes.byteLength + mebi);
          larger.set(bytes);
          put("vda", (bytes = larger));
          await restart();
        },
      },
    },
    [Symbol.asyncDispose]: () => server.close(),
  };
}

function pathOf(volume: Volume): string {
  const path = volume.data?.["path"];
  return typeof path === "string" ? path : join(textOf(volume, "folder"), textOf(volume, "file"));
}

async function readImage(volume: Volume, offset: number, length: number): Promise<Uint8Array> {
  await using reader = await openQcow2Reader(pathOf(volume));
  const start = Math.floor(offset / 512) * 512;
  const into = new Uint8Array(Math.ceil((offset + length - start) / 512) * 512);
  await reader.read(start, into);
  return into.subarray(offset - start, offset - start + length);
}

function readRaw(volume: Volume, offset: number, length: number): Uint8Array {
  const fd = openSync(pathOf(volume), "r");
  try {
    const into = new Uint8Array(length);
    readSync(fd, into, 0, length, offset);
    return into;
  } finally {
    closeSync(fd);
  }
}

/** A target in a directory. */
export function directoryTarget(
  folder: string,
  format: "raw" | "qcow2" | "qcow2-chain",
  more: LocalOptions = {},
): Judged {
  const directory = join(folder, "target");
  mkdirSync(directory);
  const config: LocalOptions = { directory, format, ...more };
  const size = format === "raw" ? oddSize : 4 * mebi + 64 * 1024 + 512;
  const target: TargetHarness = {
    open: () => provider.target!(config),
    size,
    readVolume: format === "raw" ? readRaw : readImage,
  };
  if (format === "raw") {
    target.existingDisk = join(folder, "existing.raw");
    writeFileSync(target.existingDisk, Buffer.alloc(size, 7));
  } else if (format === "qcow2") {
    target.existingDisk = join(folder, "existing.qcow2");
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", target.existingDisk, String(size)]);
    execFileSync("qemu-io", ["-c", "write -q -P 7 0 1M", target.existingDisk], { stdio: "ignore" });
  }
  return still({ name: `${format} in a directory`, target });
}

/** Exports as targets, each volume one of its own; the server can be killed, and then keeps what it had flushed alone. */
export async function nbdTarget(folder: string): Promise<Judged> {
  const socket = join(folder, "target");
  const disks = new Map<string, Uint8Array>();
  const durable = new Map<string, Uint8Array>();
  let server: NbdServer;
  const backendOf = (name: string): NbdBackend => {
    let bytes = disks.get(name);
    if (bytes === undefined) {
      bytes = new Uint8Array(oddSize);
      disks.set(name, bytes);
      durable.set(name, bytes.slice());
    }
    const all = bytes;
    return { ...memoryBackend(all), flush: () => durable.get(name)!.set(all) };
  };
  const serve = async (): Promise<void> => {
    server = await serveNbd({
      listen: { path: socket },
      exports: (name) => ({ backend: backendOf(name) }),
      limits: { connections: 1000 },
    });
  };
  await serve();
  const uriOf = (name: string): string => `nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`;
  return {
    harness: {
      name: "NBD exports in place",
      target: {
        open: () =>
          Promise.resolve(
            fanOut(
              (key) => provider.target!({ uri: uriOf(key) }),
              (volume) => textOf(volume, "key"),
            ),
          ),
        size: oddSize,
        readVolume: (volume, offset, length) => disks.get(textOf(volume, "key"))!.slice(offset, offset + length),
        async crash(): Promise<void> {
          for (const connection of server.connections()) connection.destroy();
          await server.close({ deadlineMs: 1 });
          for (const [name, bytes] of durable) disks.get(name)!.set(bytes);
          await serve();
        },
      },
    },
    [Symbol.asyncDispose]: () => server.close(),
  };
}

/** One file in place per volume. */
export function fileTarget(folder: string, extension: "raw" | "qcow2"): Judged {
  const size = extension === "raw" ? oddSize : 4 * mebi + 64 * 1024 + 512;
  const nameOf = (key: string): string => join(folder, `${key.replaceAll(/[^a-z0-9-]/gi, "_")}.${extension}`);
  const open = (path: string): ReturnType<NonNullable<typeof provider.target>> => provider.target!({ path });
  return still({
    name: `${extension} in place`,
    target: {
      open: () =>
        Promise.resolve(
          fanOut(
            (key) => open(nameOf(key)),
            (volume) => textOf(volume, "key"),
          ),
        ),
      size,
      readVolume: extension === "raw" ? readRaw : readImage,
    },
  });
}
