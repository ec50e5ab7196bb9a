import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BlockWriter, ProviderError, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { openTransport } from "../../src/client/transport.ts";
import { Cloud } from "../../src/cloud.ts";
import { type CloudstackOptions, optionsSchema, provider } from "../../src/index.ts";
import { uploadTarget } from "../../src/upload/upload-target.ts";
import { type TestCloud, startCloud } from "../cloud.ts";

const size = 3 * 2 ** 20 + 512;
const bytes = randomBytes(200_704, 3);
const place = 69_632;
let cloud: TestCloud;
let spool: string;
let notices: string[];
let disk: Buffer;

beforeEach(async () => {
  cloud = await startCloud();
  spool = await mkdtemp(join(tmpdir(), "diskferry-spool-"));
  notices = [];
  disk = Buffer.alloc(size);
  disk.set(bytes, place);
  disk.set(bytes.subarray(0, 512), size - 512);
});
afterEach(async () => {
  await cloud[Symbol.asyncDispose]();
  await rm(spool, { recursive: true, force: true });
});

function openTarget(more: Partial<CloudstackOptions> = {}): Promise<TargetProvider> {
  const { appliance: _, launch: __, ...options } = cloud.options;
  return Promise.resolve(
    provider.target!({ ...options, mode: "upload", spool, ...more }, { notice: (text) => notices.push(text) }),
  );
}

async function gather(writer: BlockWriter): Promise<void> {
  // Out of order and twice, as workers do.
  await writer.write(size - 512, bytes.subarray(0, 512));
  await writer.write(place, Buffer.alloc(bytes.byteLength, 7));
  await writer.write(place, bytes);
  await writer.flush();
}

const commit = (writer: BlockWriter, signal?: AbortSignal): Promise<Volume> =>
  writer.commit({
    signal,
    written: (async function* () {
      yield { offset: place, length: bytes.byteLength };
    })(),
  });

async function rejected(work: Promise<unknown>): Promise<ProviderError> {
  const error = await work.then(
    () => expect.fail("it resolved"),
    (failure: unknown) => failure as ProviderError,
  );
  // Where the upload goes is as good as a key.
  expect(`${error.message} ${String(error.cause)}`).not.toMatch(/\/upload\//);
  return error;
}

async function demandUploaded({ id }: Volume): Promise<void> {
  const found = cloud.simulator.volumes().find((volume) => volume.id === id);
  expect(found).toMatchObject({ state: "Uploaded", size });
  expect(Buffer.compare(await cloud.simulator.volumeBytes(id, 0, size), disk)).toBe(0);
}

/** All there is but the appliance's own. */
const others = (): ReturnType<typeof cloud.simulator.volumes> =>
  cloud.simulator.volumes().filter(({ type }) => type === "DATADISK");

/**
 * CloudStack refuses to delete a volume that still may get its bytes. Such a row holds none; that it stays is said, and
 * the job's clean-up lists it.
 */
async function demandNoBytes(target: TargetProvider): Promise<void> {
  const left = others();
  expect(left.filter(({ state, size: length }) => state !== "NotUploaded" || length !== 0)).toEqual([]);
  expect(notices.filter((text) => text.includes("could not be removed"))).toHaveLength(left.length);
  const owned: string[] = [];
  for await (const { id } of target.owned("move")) owned.push(id);
  for (const { id } of left) expect(owned).toContain(id);
}

it("uploads a disk that was written in any order, and nothing before its commit", async () => {
  await using target = await openTarget();
  const volume = await target.create({ key: "disk", size, name: "web 1", job: "move" });
  await using writer = await target.open(volume, { run: "one", epoch: 1 });
  await gather(writer);
  expect(others()).toEqual([]);
  const committed = await commit(writer);
  await demandUploaded(committed);
  // Again, by the same writer and by one of another process: it is the same volume, and nothing is sent.
  expect(await commit(writer)).toEqual(committed);
  await using again = await openTarget();
  await using second = await again.open(volume, { run: "one", epoch: 2 });
  expect(await commit(second)).toEqual(committed);
  expect(cloud.simulator.calls.get("upload")).toBe(1);
  const owned: string[] = [];
  for await (const { kind, volume: each } of again.owned("move")) {
    owned.push(kind);
    await again.remove(each!);
  }
  expect(owned).toEqual(["spool", "volume"]);
  expect(others()).toEqual([]);
  expect(await readdir(spool)).toEqual([]);
});

it("goes on after a kill with what was gathered, and uploads from the start", async () => {
  await using target = await openTarget();
  const volume = await target.create({ key: "disk", size, job: "move" });
  const first = await target.open(volume, { run: "one", epoch: 1 });
  const { generation } = first;
  await gather(first);
  const restore = cloud.simulator.faults.add({ command: "upload", action: { kind: "drop" } });
  await rejected(commit(first));
  restore();
  await demandNoBytes(target);
  await first[Symbol.asyncDispose]();
  await using next = await openTarget();
  await using writer = await next.open(await next.create({ key: "disk", size }), { run: "one", epoch: 2 });
  expect(writer.generation).toBe(generation);
  await demandUploaded(await commit(writer));
  expect(others().filter(({ state }) => state === "Uploaded")).toHaveLength(1);
});

describe("a failed upload leaves no bytes behind, and the next begins anew", () => {
  it.each([
    ["a proxy's 502", { kind: "status", status: 502, body: "Bad Gateway" }],
    ["a refusal", { kind: "status", status: 400, body: "signature validation failed." }],
    ["a cut connection", { kind: "drop" }],
  ] as const)("%s", async (_what, action) => {
    await using target = await openTarget();
    const volume = await target.create({ key: "disk", size, job: "move" });
    await using writer = await target.open(volume, { run: "one", epoch: 1 });
    await gather(writer);
    const restore = cloud.simulator.faults.add({ command: "upload", action });
    const error = await rejected(commit(writer));
    restore();
    expect(["UNAVAILABLE", "UNEXPECTED"]).toContain(error.code);
    expect(error.retryable).toBe(false);
    await demandNoBytes(target);
    await demandUploaded(await commit(writer));
  });

  it("an upload that is given up", async () => {
    await using target = await openTarget();
    await using writer = await target.open(await target.create({ key: "disk", size }), { run: "one", epoch: 1 });
    await gather(writer);
    const abort = new AbortController();
    cloud.simulator.faults.add({
      command: "upload",
      times: 1,
      action: { kind: "run", run: () => abort.abort(new Error("enough")) },
    });
    await expect(commit(writer, abort.signal)).rejects.toThrow("enough");
    await demandUploaded(await commit(writer));
    expect(others().filter(({ state }) => state === "Uploaded")).toHaveLength(1);
  });

  it("an image that is not the one its checksum was made of", async () => {
    await using target = await openTarget();
    await using writer = await target.open(await target.create({ key: "disk", size }), { run: "one", epoch: 1 });
    await gather(writer);
    cloud.simulator.faults.add({
      command: "getUploadParamsForVolume",
      times: 1,
      action: { kind: "run", run: () => writer.write(place, Buffer.alloc(4096, 1)) },
    });
    expect((await rejected(commit(writer))).message).toContain("checksum validation failed");
    expect(others()).toEqual([]);
    await writer.write(place, bytes);
    await demandUploaded(await commit(writer));
  });

  it("an answer that never comes of the call that makes the volume", async () => {
    await using target = await openTarget();
    const volume = await target.create({ key: "disk", size, job: "move" });
    await using writer = await target.open(volume, { run: "one", epoch: 1 });
    await gather(writer);
    cloud.simulator.faults.add({ command: "getUploadParamsForVolume", times: 1, action: { kind: "lose-answer" } });
    expect((await rejected(commit(writer))).code).toBe("UNAVAILABLE");
    await demandNoBytes(target);
    await demandUploaded(await commit(writer));
  });
});

it.each([
  ["a proxy's 502", { kind: "status", status: 502, body: "Bad Gateway" }],
  ["a cut connection", { kind: "drop" }],
] as const)("sends by the same link again what never arrived (%s): there is one volume", async (_what, action) => {
  await using target = await openTarget();
  await using writer = await target.open(await target.create({ key: "disk", size }), { run: "one", epoch: 1 });
  await gather(writer);
  cloud.simulator.faults.add({ command: "upload", times: 2, action });
  await demandUploaded(await commit(writer));
  expect(cloud.simulator.calls.get("getUploadParamsForVolume")).toBe(1);
  expect(cloud.simulator.calls.get("upload")).toBe(3);
  expect(others()).toHaveLength(1);
});

describe("a row that a dead link left goes as soon as the platform has given it up", () => {
  async function leaveRow(target: TargetProvider): Promise<Volume> {
    const volume = await target.create({ key: "disk", size, job: "move" });
    await using writer = await target.open(volume, { run: "one", epoch: 1 });
    await gather(writer);
    const restore = cloud.simulator.faults.add({ command: "upload", action: { kind: "drop" } });
    await rejected(commit(writer));
    restore();
    expect(others().map(({ state }) => state)).toEqual(["NotUploaded"]);
    return volume;
  }

  it("by the next attempt, of another run too: one volume is left", async () => {
    await using target = await openTarget();
    const volume = await leaveRow(target);
    cloud.simulator.advance(2 * 3_600_000);
    expect(others().map(({ state }) => state)).toEqual(["UploadAbandoned"]);
    cloud.simulator.advance(-2 * 3_600_000);
    await using writer = await target.open(volume, { run: "two", epoch: 2 });
    await gather(writer);
    await demandUploaded(await commit(writer));
    expect(others()).toHaveLength(1);
  });

  it("by the removal of the disk", async () => {
    await using target = await openTarget();
    const volume = await leaveRow(target);
    cloud.simulator.advance(2 * 3_600_000);
    cloud.simulator.advance(-2 * 3_600_000);
    await target.remove(volume);
    expect(others()).toEqual([]);
    expect(await readdir(spool)).toEqual([]);
  });

  it("and never a volume of that key that somebody attaches and writes", async () => {
    await using attaching = await provider.target!(cloud.options);
    const replica = await attaching.create({ key: "disk", size, job: "move" });
    await using target = await openTarget();
    await target.remove(await target.create({ key: "disk", size, job: "move" }));
    expect(others().map(({ id }) => id)).toEqual([replica.id]);
  });
});

it("takes an upload whose answer was lost for what it became", async () => {
  await using target = await openTarget();
  await using writer = await target.open(await target.create({ key: "disk", size }), { run: "one", epoch: 1 });
  await gather(writer);
  cloud.simulator.faults.add({ command: "upload", times: 1, action: { kind: "lose-answer" } });
  await demandUploaded(await commit(writer));
  expect(cloud.simulator.calls.get("upload")).toBe(1);
});

it("ends older writers: they neither write nor flush nor upload, and their bytes are not in the next run's disk", async () => {
  await using target = await openTarget();
  const volume = await target.create({ key: "disk", size });
  await using old = await target.open(volume, { run: "one", epoch: 1 });
  await old.write(0, Buffer.alloc(4096, 9));
  await using writer = await target.open(volume, { run: "two", epoch: 2 });
  expect((await rejected(old.write(4096, Buffer.alloc(4096, 9)))).code).toBe("FENCED");
  expect((await rejected(old.flush())).code).toBe("FENCED");
  expect((await rejected(commit(old))).code).toBe("FENCED");
  expect((await rejected(target.open(volume, { run: "one", epoch: 1 }))).code).toBe("FENCED");
  await gather(writer);
  await demandUploaded(await commit(writer));
  expect(others()).toHaveLength(1);
});

it("uploads the whole again as a new volume when a run starts from the last one, which keeps its bytes", async () => {
  await using target = await openTarget();
  const volume = await target.create({ key: "disk", size });
  const first = await target.open(volume, { run: "one", epoch: 1 });
  await gather(first);
  const base = await commit(first);
  await first[Symbol.asyncDispose]();
  await using writer = await target.open(base, { run: "two", epoch: 2, base });
  expect(writer.blank).toBeUndefined();
  await writer.write(0, bytes.subarray(0, 512));
  const next = await commit(writer);
  expect(next.id).not.toBe(base.id);
  await demandUploaded(base);
  disk.set(bytes.subarray(0, 512), 0);
  await demandUploaded(next);
  // What an earlier version was is not here any more.
  const error = await rejected(target.open(base, { run: "three", epoch: 3, base }));
  expect(error.code).toBe("NOT_FOUND");
  await target.remove(base);
  expect(others().map(({ id }) => id)).toEqual([next.id]);
});

it("says beforehand what an upload is and whether its folder is there", async () => {
  await using target = await openTarget();
  const figure = { value: size, kind: "exact" } as const;
  const disks = [{ disk: "boot", size, mode: "full", read: figure, write: figure }] as const;
  const good = await target.preflight!({ disks });
  expect(good.privileges!.missing).toEqual([]);
  expect(good.findings.filter(({ severity }) => severity === "blocker")).toEqual([]);
  expect(good.findings.map(({ message }) => message).join()).toMatch(/nothing is sent incrementally/);
  await using elsewhere = await openTarget({ spool: join(spool, "missing") });
  const bad = await elsewhere.preflight!({ disks });
  expect(bad.findings.filter(({ severity }) => severity === "blocker").map(({ subject }) => subject)).toEqual([
    "spool",
  ]);
});

it("sends nothing without TLS where the API has TLS, unless that is allowed", async () => {
  const secure = async (more: Partial<CloudstackOptions>): Promise<TargetProvider> => {
    const options = { ...cloud.options, endpoint: "https://cloud.example.org/client/api", ...more };
    const transport = openTransport(cloud.simulator.url, {}, { connectMs: 5_000, requestMs: 5_000 });
    return uploadTarget(await Cloud.open(options, undefined, transport), spool);
  };
  await using strict = await secure({});
  const volume = await strict.create({ key: "disk", size });
  await using writer = await strict.open(volume, { run: "one", epoch: 1 });
  await gather(writer);
  expect(await rejected(commit(writer))).toMatchObject({ code: "UNSUPPORTED" });
  expect(cloud.simulator.calls.get("upload")).toBeUndefined();
  await using lenient = await secure({ plainStorage: true });
  await using again = await lenient.open(volume, { run: "one", epoch: 2 });
  await demandUploaded(await commit(again));
});

it("needs a folder, which no other mode takes", () => {
  const { appliance: _, ...options } = cloud.options;
  expect(optionsSchema.safeParse({ ...options, mode: "upload" }).success).toBe(false);
  expect(optionsSchema.safeParse({ ...options, spool }).success).toBe(false);
  expect(optionsSchema.safeParse({ ...options, mode: "upload", spool }).success).toBe(true);
});
