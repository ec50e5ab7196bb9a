import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BlockReader, DiskSnapshot, ProviderError, Snapshot, SourceConnector } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { openTransport } from "../../src/client/transport.ts";
import { Cloud } from "../../src/cloud.ts";
import { type CloudstackOptions, optionsSchema, provider } from "../../src/index.ts";
import { cloudstackSource } from "../../src/source/cloudstack-source.ts";
import { type SimulatorOptions, type TestCloud, startCloud } from "../cloud.ts";

const size = 3 * 2 ** 20 + 512;
/** Starts and ends inside clusters. */
const bytes = randomBytes(300_000, 11);
const place = 70_000 - (70_000 % 512);
let cloud: TestCloud;
let volume: string;
let content: Buffer;
let notices: string[];

async function begin(given: SimulatorOptions = {}): Promise<void> {
  cloud = await startCloud({ machines: [{ name: "db", disks: [size] }], ...given });
  [volume = ""] = cloud.simulator.volumesOf(cloud.simulator.machines[0]!);
  await cloud.simulator.writeVolume(volume, place, bytes);
  content = await cloud.simulator.volumeBytes(volume, 0, size);
  notices = [];
}
beforeEach(() => begin());
afterEach(() => cloud[Symbol.asyncDispose]());

/** A source that downloads; the account may not even attach volumes. */
async function open(more: Partial<CloudstackOptions> = {}): Promise<SourceConnector> {
  const { appliance: _, ...options } = cloud.options;
  for (const command of ["attachVolume", "createVolume"])
    cloud.simulator.deny(cloud.simulator.tenant.accountId, command);
  return provider.source!(
    { ...options, source: { read: "download" }, ...more },
    { notice: (text) => notices.push(text) },
  );
}

async function snapshotOf(source: SourceConnector): Promise<{ point: Snapshot; disk: DiskSnapshot }> {
  const point = await source.snapshot(await source.machine("db"), { key: "now", job: "out" });
  return { point, disk: point.disks[0]! };
}

async function readAll(reader: BlockReader): Promise<Buffer> {
  const whole = Buffer.alloc(size, 0xee);
  const length = 256 * 1024;
  for (let at = 0; at < size; at += length) await reader.read(at, whole.subarray(at, Math.min(size, at + length)));
  return whole;
}

async function rejected(work: Promise<unknown>): Promise<ProviderError> {
  const error = await work.then(
    () => expect.fail("it resolved"),
    (failure: unknown) => failure as ProviderError,
  );
  // The link is as good as the disk: not even its path may be told.
  expect(`${error.message} ${String(error.cause)} ${JSON.stringify(error)}`).not.toMatch(/userdata/);
  return error;
}

it("reads a snapshot by ranges, without an appliance, and leaves nothing when it is released", async () => {
  await using source = await open();
  const { point, disk } = await snapshotOf(source);
  await cloud.simulator.writeVolume(volume, place, Buffer.alloc(4096, 1));
  await using reader = await source.open(disk);
  expect(reader.size).toBe(size);
  expect(Buffer.compare(await readAll(reader), content)).toBe(0);
  await source.release(point);
  expect(cloud.simulator.snapshotIds()).toEqual([]);
  expect(cloud.simulator.volumes()).toHaveLength(2);
});

it("asks for another link when the one it has runs out in the middle", async () => {
  // A session, since the signatures of keys follow this machine's clock, which stays where it is.
  const { userName: username, password } = cloud.simulator.tenant;
  await using source = await open({ apiKey: undefined, secretKey: undefined, username, password });
  const { disk } = await snapshotOf(source);
  await using reader = await source.open(disk);
  await reader.read(0, Buffer.alloc(131_072));
  cloud.simulator.advance(cloud.simulator.settings.urlLifetimeMs + 1);
  // The session has run out too; it is opened anew here, so that what is counted below is links alone.
  await source.machine("db");
  const parts = [0, 1, 2, 3].map(async (index) => {
    const part = Buffer.alloc(65_536);
    await reader.read(index * 65_536, part);
    expect(Buffer.compare(part, content.subarray(index * 65_536, (index + 1) * 65_536))).toBe(0);
  });
  await Promise.all(parts);
  expect(Buffer.compare(await readAll(reader), content)).toBe(0);
  expect(cloud.simulator.calls.get("extractSnapshot")).toBe(2);
  expect(notices.join()).toContain("has run out");
  expect(notices.join()).not.toMatch(/userdata/);
});

it("gives up a link that the platform calls dead however often it is asked for, and can be asked again", async () => {
  await using source = await open();
  const { disk } = await snapshotOf(source);
  await using reader = await source.open(disk);
  const remove = cloud.simulator.faults.add({ command: "download", action: { kind: "status", status: 403 } });
  const error = await rejected(reader.read(0, Buffer.alloc(131_072)));
  expect(error).toMatchObject({ code: "UNAVAILABLE", retryable: true });
  remove();
  expect(Buffer.compare(await readAll(reader), content)).toBe(0);
});

it("never takes a download that is cut for the whole", async () => {
  await using source = await open();
  const { disk } = await snapshotOf(source);
  await using reader = await source.open(disk);
  // The map is read with the first block; what is cut then is data.
  await reader.read(0, Buffer.alloc(512));
  cloud.simulator.faults.add({ command: "download", times: 1, action: { kind: "lose-answer" } });
  const error = await rejected(reader.read(131_072, Buffer.alloc(65_536)));
  expect(error).toMatchObject({ code: "UNAVAILABLE", retryable: true });
  expect(Buffer.compare(await readAll(reader), content)).toBe(0);
});

it("bears a connection that is cut, a proxy's 502 and a map that is cut", async () => {
  await using source = await open();
  const { disk } = await snapshotOf(source);
  for (const action of [
    { kind: "drop" },
    { kind: "status", status: 502, body: "<html>" },
    { kind: "lose-answer" },
  ] as const) {
    await using reader = await source.open(disk);
    cloud.simulator.faults.add({ command: "download", times: 1, action });
    expect(await rejected(reader.read(131_072, Buffer.alloc(65_536)))).toMatchObject({
      code: "UNAVAILABLE",
      retryable: true,
    });
    expect(Buffer.compare(await readAll(reader), content)).toBe(0);
  }
});

it("ends a read that nobody wants any more while the storage machine hangs", async () => {
  await using source = await open();
  const { disk } = await snapshotOf(source);
  await using reader = await source.open(disk);
  const abort = new AbortController();
  cloud.simulator.faults.add({
    command: "download",
    times: 1,
    action: { kind: "run", run: () => abort.abort(new Error("enough")) },
  });
  cloud.simulator.faults.add({ command: "download", times: 1, action: { kind: "hang" } });
  // The table is read for all that want it; the block itself is what hangs.
  await expect(reader.read(131_072, Buffer.alloc(65_536), { signal: abort.signal })).rejects.toThrow("enough");
});

it("takes an answer of extractSnapshot that was lost for no answer, and asks again", async () => {
  await using source = await open();
  const { disk } = await snapshotOf(source);
  cloud.simulator.faults.add({ command: "extractSnapshot", times: 1, action: { kind: "lose-answer" } });
  await using reader = await source.open(disk);
  expect(Buffer.compare(await readAll(reader), content)).toBe(0);
});

it("says that a snapshot is gone", async () => {
  await using source = await open();
  const { point, disk } = await snapshotOf(source);
  await source.release(point);
  expect(await rejected(source.open(disk))).toMatchObject({ code: "NOT_FOUND" });
});

describe("TLS", () => {
  it("is verified with the authority or the pin of the storage machine", async () => {
    await cloud[Symbol.asyncDispose]();
    await begin({ tls: true });
    const { sha256 = "" } = cloud.simulator.tls ?? {};
    await using trusting = await open({ tls: { pin: sha256 }, storageTls: { pin: sha256 } });
    const { disk } = await snapshotOf(trusting);
    {
      await using reader = await trusting.open(disk);
      expect(Buffer.compare(await readAll(reader), content)).toBe(0);
    }
    // The API's pin says nothing of the storage machine.
    await using strict = await open({ tls: { pin: sha256 } });
    expect(await rejected(strict.open(disk))).toMatchObject({ code: "AUTH" });
    await using wrong = await open({ tls: { pin: sha256 }, storageTls: { pin: "00".repeat(32) } });
    expect(await rejected(wrong.open(disk))).toMatchObject({ code: "AUTH" });
  });
});

it("refuses a link without TLS where the API has TLS, unless that is allowed", async () => {
  const timeouts = { connectMs: 5_000, requestMs: 5_000 };
  const secure = async (more: Partial<CloudstackOptions>): Promise<SourceConnector> => {
    const options = { ...cloud.options, endpoint: "https://cloud.example.org/client/api", ...more };
    const transport = openTransport(cloud.simulator.url, {}, timeouts);
    return cloudstackSource(await Cloud.open({ ...options, source: { read: "download" } }, undefined, transport));
  };
  await using strict = await secure({});
  const { disk } = await snapshotOf(strict);
  const error = await rejected(strict.open(disk));
  expect(error.code).toBe("UNSUPPORTED");
  expect(error.message).toContain("plainStorage");
  expect(cloud.simulator.calls.get("download")).toBeUndefined();
  await using lenient = await secure({ plainStorage: true });
  await using reader = await lenient.open(disk);
  expect(Buffer.compare(await readAll(reader), content)).toBe(0);
});

describe("beforehand", () => {
  it("needs extractSnapshot and no appliance", async () => {
    await using source = await open();
    const machine = await source.machine("db");
    const disks = [{ disk: volume, size, mode: "full", read: known(size), write: known(size) }] as const;
    const good = await source.preflight!(machine, { disks });
    expect(good.findings.filter(({ severity }) => severity === "blocker")).toEqual([]);
    expect(good.privileges!.needed).toContain("extractSnapshot");
    expect(good.privileges!.missing).toEqual([]);
    cloud.simulator.deny(cloud.simulator.tenant.accountId, "extractSnapshot");
    await using poor = await open();
    const bad = await poor.preflight!(machine, { disks });
    expect(bad.privileges!.missing).toEqual(["extractSnapshot"]);
    expect(bad.findings.some(({ severity, subject }) => severity === "blocker" && subject === "extractSnapshot")).toBe(
      true,
    );
  });

  it("is said to be missing before 4.20", async () => {
    await cloud[Symbol.asyncDispose]();
    await begin({ version: "4.19.1.0" });
    await using source = await open();
    expect((await source.preflight!(undefined, { disks: [] })).privileges!.missing).toEqual(["extractSnapshot"]);
  });

  it("takes no other way of reading", () => {
    const { appliance: _, ...options } = cloud.options;
    expect(optionsSchema.safeParse({ ...options, source: { read: "ftp" } }).success).toBe(false);
    expect(optionsSchema.safeParse({ ...options, source: { read: "download" } }).success).toBe(true);
  });
});

function known(value: number): { value: number; kind: "exact" } {
  return { value, kind: "exact" };
}
