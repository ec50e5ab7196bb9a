import { type DiskSnapshot, isProviderError, type SourceConnector } from "@diskferry/core/provider";
import type { MachineSpec, VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { readAll, snapshotIdOf, World } from "../world.ts";

const mebi = 1 << 20;
const size = 6 * mebi + 512;
const open: World[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]();
});

interface Opened {
  world: World;
  source: SourceConnector;
  disks: DiskSnapshot[];
  held: Uint8Array[];
}

async function start(machine: Partial<MachineSpec> = {}, options: VcenterSimulatorOptions = {}): Promise<Opened> {
  const spec = { name: "web server", disks: [{ size }, { size: mebi }], tracking: true, ...machine };
  const world = await World.start({ machines: [spec], datacenter: "Köln 1", ...options });
  open.push(world);
  const { simulator } = world;
  simulator.populate("web server", 2000, 0, randomBytes(2 * mebi, 1));
  simulator.populate("web server", 2000, size - 512, randomBytes(512, 2));
  const source = await world.source({ readers: ["folder"] });
  const snapshot = await source.snapshot(await source.machine("web server"), { key: "run" });
  const held = snapshot.disks.map(({ disk }) =>
    simulator.readDisk("web server", Number(disk), { snapshot: snapshotIdOf(snapshot) }),
  );
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

test.for(["poweredOff", "poweredOn"] as const)(
  "a %s machine's flat files are its snapshot, in ranges",
  async (power) => {
    const { world, source, disks, held } = await start({ power });
    if (power === "poweredOn") world.simulator.write("web server", 2000, 0, randomBytes(9000, 5));
    for (const [index, disk] of disks.entries()) {
      expect(Buffer.compare(await readAll(source, disk), held[index]!)).toBe(0);
    }
    await using reader = await source.open(disks[0]!);
    const parts = [3 * mebi, 512, 0].map((at) => ({ at, into: new Uint8Array(65_536) }));
    await Promise.all(parts.map(({ at, into }) => reader.read(at, into)));
    for (const { at, into } of parts) expect(Buffer.compare(into, held[0]!.subarray(at, at + into.length))).toBe(0);
  },
);

test("a disk with another snapshot below is a delta, which this reader says", async () => {
  const { world, source } = await start();
  world.simulator.takeSnapshot("web server", "somebody's");
  const second = await source.snapshot(await source.machine("web server"), { key: "second" });
  const found = await failureOf(source.open(second.disks[0]!));
  expect(found.code).toBe("UNSUPPORTED");
  expect(found.message).toMatch(/is a delta in this snapshot/);
});

test("bytes are not believed once the snapshot is gone, whose deltas then merge into the file", async () => {
  const { world, source, disks } = await start({ power: "poweredOff" });
  await using reader = await source.open(disks[0]!);
  await reader.read(0, new Uint8Array(4096));
  world.simulator.removeSnapshot([...world.simulator.machine("web server").snapshots()][0]!.id);
  expect((await failureOf(reader.read(0, new Uint8Array(4096)))).code).toBe("NOT_FOUND");
});

test.for([true, false])("an answer cut short is told, however it ends (%s)", async (clean) => {
  const truncate = { kind: "truncate", bytes: 100_000, clean } as const;
  const { source, disks } = await start({}, { faults: [{ method: "GET /folder", calls: [2], action: truncate }] });
  await using reader = await source.open(disks[0]!);
  const found = await failureOf(reader.read(0, new Uint8Array(mebi)));
  expect([found.code, found.retryable]).toEqual(["UNAVAILABLE", true]);
});

test("an ended session is begun anew, and the next read goes on", async () => {
  const { world, source, disks, held } = await start();
  await using reader = await source.open(disks[0]!);
  world.simulator.expireSessions();
  const found = await failureOf(reader.read(0, new Uint8Array(4096)));
  expect([found.code, found.retryable]).toEqual(["UNAVAILABLE", true]);
  const into = new Uint8Array(4096);
  await reader.read(0, into);
  expect(Buffer.compare(into, held[0]!.subarray(0, 4096))).toBe(0);
});

test("a datastore that may not be browsed is told by the privilege", async () => {
  const found = await failureOf(start({}, { missingPrivileges: ["Datastore.Browse"] }));
  expect(found.message).toMatch(/nothing was changed. folder: Datastore.Browse is missing; add Datastore.Browse/);
});

test("a server that ignores ranges is refused, not believed", async () => {
  const whole = { kind: "status", status: 200, body: "x".repeat(4096) } as const;
  const { source, disks } = await start({}, { faults: [{ method: "GET /folder", action: whole }] });
  expect((await failureOf(source.open(disks[0]!))).code).toBe("UNSUPPORTED");
});

test("an encrypted disk is never read as what lies on the datastore, however the reader that decrypts fails", async () => {
  const { world } = await start({ disks: [{ size, encrypted: true }] });
  const vddk = { nbdkit: "/nowhere/nbdkit" };
  const source = await world.source({ readers: ["vddk", "nfc", "folder"], vddk });
  const snapshot = await source.snapshot(await source.machine("web server"), { key: "run" });
  const found = await failureOf(source.open(snapshot.disks[0]!));
  expect(found.code).toBe("UNSUPPORTED");
  expect(found.message).toMatch(/nfc: .*encrypted.*folder: .*encrypted/s);
  expect(world.simulator.calls.get("ExportSnapshot")).toBeUndefined();
  expect(world.simulator.calls.get("GET /folder")).toBeUndefined();
});
