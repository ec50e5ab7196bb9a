import { isProviderError, type DiskSnapshot, type SourceConnector } from "@diskferry/core/provider";
import type { VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { readAll, snapshotIdOf, World } from "../world.ts";

const mebi = 1 << 20;
const size = 8 * mebi + 512;
const open: World[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]();
});

interface Opened {
  world: World;
  source: SourceConnector;
  disks: DiskSnapshot[];
  /** What each disk of the snapshot holds. */
  held: Uint8Array[];
}

/** A snapshot of three disks, two of which have one size, under a guest that went on writing. */
async function start(options: VcenterSimulatorOptions = {}, context = {}): Promise<Opened> {
  const disks = Array.from({ length: 9 }, (_, index) => ({ size: index === 0 ? size : mebi }));
  const world = await World.start({ machines: [{ name: "web", disks, tracking: true }], ...options });
  open.push(world);
  const { simulator } = world;
  simulator.write("web", 2000, 1000, randomBytes(3 * mebi, 1));
  simulator.write("web", 2000, size - 700, randomBytes(700, 2));
  for (let key = 2001; key <= 2006; key++) simulator.write("web", key, 0, randomBytes(5000, key));
  for (const key of [2008, 2009]) simulator.write("web", key, 0, randomBytes(5000, key));
  const source = await world.source({ readers: ["nfc"] }, context);
  const snapshot = await source.snapshot(await source.machine("web"), { key: "run" });
  const id = snapshotIdOf(snapshot);
  const held = snapshot.disks.map(({ disk }) => simulator.readDisk("web", Number(disk), { snapshot: id }));
  simulator.write("web", 2000, 0, randomBytes(9000, 3));
  return { world, source, disks: snapshot.disks, held };
}

async function failureOf(work: Promise<unknown>): Promise<{ code: string; retryable: boolean; message: string }> {
  const error: unknown = await work.then(
    () => new Error("resolved"),
    (thrown: unknown) => thrown,
  );
  if (!isProviderError(error)) return { code: String(error), retryable: false, message: "" };
  return { code: error.code, retryable: error.retryable, message: error.message };
}

test("every disk of an export is the one of its slot, byte for byte, and no lease is left", async () => {
  const { world, source, disks, held } = await start();
  expect(disks.map(({ disk }) => disk)).toEqual([
    "2000",
    "2001",
    "2002",
    "2003",
    "2004",
    "2005",
    "2006",
    "2008",
    "2009",
  ]);
  for (const [index, disk] of disks.entries()) {
    expect(Buffer.compare(await readAll(source, disk), held[index]!), disk.disk).toBe(0);
  }
  expect(world.simulator.alive.leases).toBe(0);
  expect(world.simulator.calls.get("HttpNfcLeaseComplete")).toBe(disks.length);
  expect(world.notices.filter((line) => line.includes("is read by nfc"))).toHaveLength(disks.length);
});

test("a disk that is given up half-way aborts its lease", async () => {
  const { world, source, disks } = await start();
  const reader = await source.open(disks[0]!);
  await reader.read(0, new Uint8Array(mebi));
  expect(reader.order).toBe("ascending");
  await reader[Symbol.asyncDispose]();
  await reader[Symbol.asyncDispose]();
  expect(world.simulator.calls.get("HttpNfcLeaseAbort")).toBe(1);
  expect(world.simulator.alive.leases).toBe(0);
});

test.for([true, false])("an export that is cut off is told, also where it ends with success (%s)", async (clean) => {
  const truncate = { kind: "truncate", bytes: 2 * mebi, clean } as const;
  const { source, disks, held } = await start({ faults: [{ method: "GET /nfc", calls: [1], action: truncate }] });
  const found = await failureOf(readAll(source, disks[0]!));
  expect([found.code, found.retryable]).toEqual(["UNAVAILABLE", true]);
  expect(Buffer.compare(await readAll(source, disks[0]!), held[0]!)).toBe(0);
});

test("a lease is kept alive for as long as its disk is read", async () => {
  const { world, source, disks, held } = await start({ leaseTimeoutSeconds: 3 });
  const reader = await source.open(disks[0]!);
  const bytes = new Uint8Array(size);
  await reader.read(0, bytes.subarray(0, mebi));
  await expect
    .poll(() => world.simulator.calls.get("HttpNfcLeaseProgress") ?? 0, { timeout: 20_000 })
    .toBeGreaterThan(6);
  await reader.read(mebi, bytes.subarray(mebi));
  expect(Buffer.compare(bytes, held[0]!)).toBe(0);
  await reader[Symbol.asyncDispose]();
});

test("a lease that ended is told while reading, and the disk is opened anew", async () => {
  const { world, source, disks, held } = await start({ bytesPerSecond: 3 * mebi });
  const reader = await source.open(disks[0]!);
  await reader.read(0, new Uint8Array(65_536));
  await world.simulator.reboot();
  const found = await failureOf(reader.read(65_536, new Uint8Array(size - 65_536)));
  expect([found.code, found.retryable]).toEqual(["UNAVAILABLE", true]);
  await reader[Symbol.asyncDispose]();
  expect(Buffer.compare(await readAll(source, disks[0]!), held[0]!)).toBe(0);
});

test("a lease whose progress is refused for good stops the stream", async () => {
  const refused = { kind: "fault", type: "InvalidState" } as const;
  const { source, disks } = await start({
    leaseTimeoutSeconds: 1,
    bytesPerSecond: mebi,
    faults: [{ method: "HttpNfcLeaseProgress", action: refused }],
  });
  const reader = await source.open(disks[0]!);
  const found = await failureOf(reader.read(0, new Uint8Array(size)));
  expect([found.code, found.retryable]).toEqual(["UNAVAILABLE", true]);
  await reader[Symbol.asyncDispose]();
});

test("a read that is aborted leaves its buffer alone from then on", async () => {
  const { source, disks } = await start({ bytesPerSecond: mebi });
  const reader = await source.open(disks[0]!);
  const controller = new AbortController();
  const reason = new Error("enough");
  const into = new Uint8Array(size);
  const reading = reader.read(0, into, { signal: controller.signal });
  controller.abort(reason);
  await expect(reading).rejects.toBe(reason);
  into.fill(0x5a);
  await reader[Symbol.asyncDispose]();
  expect(into.every((byte) => byte === 0x5a)).toBe(true);
});

test("over TLS with a pinned certificate, links to a host are held to the thumbprint that the server tells", async () => {
  const { source, disks, held, world } = await start({ tls: true, wildcardLeaseHost: true });
  expect(world.simulator.url.startsWith("https:")).toBe(true);
  expect(Buffer.compare(await readAll(source, disks[1]!), held[1]!)).toBe(0);
});

test("a snapshot that somebody removed is NOT_FOUND, and its export ends", async () => {
  const { world, source, disks } = await start({ bytesPerSecond: mebi });
  const reader = await source.open(disks[0]!);
  await reader.read(0, new Uint8Array(512));
  world.simulator.removeSnapshot([...world.simulator.machine("web").snapshots()][0]!.id);
  expect((await failureOf(reader.read(512, new Uint8Array(size - 512)))).code).toBe("UNAVAILABLE");
  await reader[Symbol.asyncDispose]();
  expect((await failureOf(source.open(disks[0]!))).code).toBe("NOT_FOUND");
  expect(world.simulator.alive.leases).toBe(0);
});
