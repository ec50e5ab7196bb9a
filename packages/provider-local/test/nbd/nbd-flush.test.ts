import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { MemoryStateStore, replicate, type Job } from "@diskferry/core";
import { connectNbd } from "@diskferry/nbd";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { provider } from "../../src/index.ts";
import { NbdPlace } from "../../src/nbd/nbd-place.ts";
import { freshFolder } from "../folder.ts";
import { targetOf } from "../shapes.ts";
import { CachingServer } from "./caching-server.ts";

const seed = seedOf(4711);
const MIB = 1 << 20;
const size = 9 * MIB;
const quick = { baseMs: 1, maxMs: 5, attempts: 3, perAttemptMs: 20_000 };

// What is remembered of exports goes to a folder that the test removes.
beforeEach(() => {
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  return () => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  };
});

/** Writers have so many connections at once, however slowly a busy machine opens them. */
function openSeveral(): void {
  vi.spyOn(NbdPlace.prototype, "join").mockImplementation(async function (this: NbdPlace, client) {
    const beside = await Promise.all([1, 2].map(() => connectNbd(this.address)));
    const clients = [client, ...beside];
    return {
      shape: { preferredLength: MIB, concurrency: 8 },
      limit: 2,
      connections: clients.length,
      use: () => clients,
      part: async () => void (await Promise.all(beside.map((each) => each.close()))),
    };
  });
}

interface Copy extends AsyncDisposable {
  bytes: Uint8Array;
  job: Job;
}

/** A raw disk with gaps that is copied to the server, in groups of 1 MiB so that there are many flushes. */
async function copyTo(server: CachingServer, workers: number): Promise<Copy> {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 3 * MIB) bytes.set(randomBytes(2 * MIB + 4096, seed + at), at);
  const path = join(freshFolder(), "disk.raw");
  writeFileSync(path, bytes);
  const source = await provider.source!({ path, frozen: true });
  const target = await provider.target!({ uri: server.uri });
  const options = { workers, leaf: 65536, journal: { bytes: MIB, ms: 60_000 }, attempts: quick };
  return {
    bytes,
    job: { id: "job", source, machine: path, target, store: new MemoryStateStore(), options },
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]();
      await target[Symbol.asyncDispose]();
    },
  };
}

function expectDurable(server: CachingServer, bytes: Uint8Array, what: string): void {
  if (Buffer.compare(bytes, server.durable) === 0) return;
  throw new Error(`${what}: lost from ${bytes.findIndex((byte, at) => byte !== server.durable[at])} on`);
}

describe.each([0, 2])("a server with a cache for each connection, with %i workers", (workers) => {
  test("that says nothing of several connections is written over one alone, and all of it is durable", async () => {
    await using server = CachingServer.start({ size, multiConnection: false, random: randomFrom(seed) });
    await using copy = await copyTo(server, workers);
    await replicate(copy.job);
    expect(server.writers).toBe(1);
    expect(server.flushes).toBeGreaterThan(3);
    expectDurable(server, copy.bytes, `seed ${seed}`);
  });

  test("that flushes all of them is told to once all was answered: no power loss takes what a run goes on from", async () => {
    const random = randomFrom(seed + workers);
    let lost = 0;
    let several = 0;
    openSeveral();
    // Threads take their time to start.
    const rounds = workers === 0 ? 4 : 2;
    for (let round = 0; round < rounds; round++) {
      await using server = CachingServer.start({ size, multiConnection: true, random });
      await using copy = await copyTo(server, workers);
      let left = 1 + Math.floor(random() * 6);
      server.onFlush = () => {
        if (left-- === 0) server.lose();
      };
      const failed = await replicate({ ...copy.job, options: { ...copy.job.options!, verify: "none" } }).then(
        () => false,
        () => true,
      );
      if (failed) lost++;
      several += Number(server.writers > 1);
      server.restore();
      const report = await replicate({ ...copy.job, options: { ...copy.job.options!, verify: "none" } });
      if (failed) expect(report.resumed).toBe(true);
      expectDurable(server, copy.bytes, `seed ${seed}, round ${round}`);
    }
    console.log(`${lost} power losses in ${rounds} rounds, ${several} of them over several connections`);
    expect(lost).toBeGreaterThan(0);
    expect(several).toBe(rounds);
  }, 240_000);
});

test("a server that lost a connection with what it had answered flushes nothing of it, and all is written again", async () => {
  openSeveral();
  await using server = CachingServer.start({ size, multiConnection: true, random: randomFrom(seed) });
  await using copy = await copyTo(server, 0);
  let cut = 0;
  server.onFlush = async (flushing, links) => {
    const other = links.find((link) => link !== flushing && link.cache.length > 0);
    if (cut > 0 || other === undefined) return;
    cut++;
    other.cut();
    // Long enough for the client to see that connection end before this flush is answered.
    await new Promise((resolve) => setTimeout(resolve, 50));
  };
  const report = await replicate({ ...copy.job, options: { ...copy.job.options!, verify: "none" } });
  expect(cut).toBe(1);
  expect(report.disks[0]!.reopened).toBeGreaterThan(0);
  expectDurable(server, copy.bytes, `seed ${seed}`);
});

test("a run that goes on where nothing is remembered of the export, as on another host, gives way to one that ends right", async () => {
  await using server = CachingServer.start({ size, multiConnection: true, random: randomFrom(seed) });
  await using copy = await copyTo(server, 0);
  let left = 4;
  server.onFlush = () => {
    if (left-- === 0) server.lose();
  };
  await expect(replicate(copy.job)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  server.restore();
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  const target = await provider.target!({ uri: server.uri });
  const report = await replicate({ ...copy.job, target });
  await target[Symbol.asyncDispose]();
  expect(report.resumed).toBe(false);
  expectDurable(server, copy.bytes, `seed ${seed}`);
});

test("a flush fails for good where one of the connections died idle with what it had answered", async () => {
  openSeveral();
  await using server = CachingServer.start({ size, multiConnection: true, random: randomFrom(seed) });
  await using target = await targetOf({ uri: server.uri });
  const volume = await target.create({ key: "disk", size });
  await using writer = await target.open(volume, { run: "run", epoch: 1 });
  const data = randomBytes(8 * MIB, seed);
  await Promise.all(
    Array.from({ length: 8 }, (_, at) => writer.write(at * MIB, data.subarray(at * MIB, (at + 1) * MIB))),
  );
  server.onFlush = async (flushing, links) => {
    links.find((link) => link !== flushing && link.cache.length > 0)!.cut();
    await new Promise((resolve) => setTimeout(resolve, 50));
  };
  const gone = { code: "UNAVAILABLE", retryable: false };
  await expect(writer.flush()).rejects.toMatchObject(gone);
  server.onFlush = () => {};
  await expect(writer.flush()).rejects.toMatchObject(gone);
});
