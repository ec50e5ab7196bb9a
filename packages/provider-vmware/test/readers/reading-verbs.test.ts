import { channel } from "node:diagnostics_channel";
import { afterEach, expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { readAll, snapshotIdOf, World } from "../world.ts";

const size = 2 << 20;
const open: World[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]();
});

/** Every request that undici makes while `work` runs, as `GET /folder`. */
async function requestsOf(work: () => Promise<void>): Promise<string[]> {
  const made: string[] = [];
  const note = (message: unknown): void => {
    const { method, path } = (message as { request: { method: string; path: string } }).request;
    made.push(`${method} /${path.split(/[/?]/)[1]}`);
  };
  const requests = channel("undici:request:create");
  requests.subscribe(note);
  try {
    await work();
  } finally {
    requests.unsubscribe(note);
  }
  return made;
}

test.for([
  // The lease is a session's wish to read; it changes nothing of the machine.
  ["nfc", ["ExportSnapshot", "HttpNfcLeaseComplete", "HttpNfcLeaseProgress"]],
  ["folder", []],
] as const)("%s opens and reads a disk by reading verbs alone", async ([reader, ofLease]) => {
  const world = await World.start({ machines: [{ name: "web", disks: [{ size }], tracking: true }] });
  open.push(world);
  const { simulator } = world;
  simulator.write("web", 2000, 0, randomBytes(size / 2, 1));
  const source = await world.source({ readers: [reader], protocol: "soap" });
  const snapshot = await source.snapshot(await source.machine("web"), { key: "run" });
  const held = simulator.readDisk("web", 2000, { snapshot: snapshotIdOf(snapshot) });
  const before = new Map(simulator.calls);
  const requests = await requestsOf(async () => {
    expect(Buffer.compare(await readAll(source, snapshot.disks[0]!), held)).toBe(0);
  });
  const ofStorage = requests.filter((request) => !request.endsWith(" /sdk"));
  expect(ofStorage.length).toBeGreaterThan(0);
  expect(ofStorage.filter((request) => request !== `GET /${reader}` && request !== `HEAD /${reader}`)).toEqual([]);
  const methods = [...simulator.calls].filter(([method, count]) => count > (before.get(method) ?? 0));
  // Filters and collectors of properties are a session's own.
  const reading = /^(GET |HEAD |Retrieve|Query|CurrentTime$|WaitForUpdates|CreateFilter$|(Create|Destroy)Property)/;
  const others = methods.map(([method]) => method).filter((method) => !reading.test(method));
  expect(others.filter((method) => !ofLease.some((allowed) => allowed === method))).toEqual([]);
});
