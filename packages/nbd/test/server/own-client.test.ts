import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { connectNbd, listNbdExports } from "../../src/client/connect.ts";
import type { NbdExtent } from "../../src/client/block-status.ts";
import type { NbdClient } from "../../src/client/client.ts";
import type { NbdBackend } from "../../src/server/backend.ts";
import { trackChanges } from "../../src/server/change-tracking.ts";
import { memoryBackend } from "../../src/server/memory-backend.ts";
import { changedFlag, changesLostFlag } from "../../src/server/meta-contexts.ts";
import { describeWithPeers } from "../../../../test/peers.ts";
import { closeAfterEach, folder, onEnd, run, serve } from "./fixture.ts";

closeAfterEach();

const MiB = 1024 * 1024;

async function all(extents: AsyncIterable<NbdExtent>): Promise<NbdExtent[]> {
  const list: NbdExtent[] = [];
  for await (const extent of extents) list.push(extent);
  return list;
}

test.each(["simple", "structured", "extended"] as const)(
  "our client and our server agree on every byte with %s replies, over several connections",
  async (replies) => {
    const seed = seedOf(41);
    const random = randomFrom(seed);
    const size = 8 * MiB;
    const disk = new Uint8Array(size);
    const model = Buffer.alloc(size);
    const server = await serve({ exports: { disk: { backend: memoryBackend(disk), description: "a disk" } } });
    const client = await connectNbd(server.uri("disk"), { replies, connections: 3 });
    onEnd(() => client.close());
    expect(client).toMatchObject({ size, replies, connections: 3, description: "a disk", readOnly: false });
    for (let round = 0; round < 20; round++) {
      const slot = size / 16;
      // Each round's calls are disjoint, so that they may overlap in time.
      await Promise.all(
        Array.from({ length: 16 }, async (_, index) => {
          const length = 1 + Math.floor(random() * (slot - 1));
          const offset = index * slot + Math.floor(random() * (slot - length));
          if (random() < 0.3) {
            await client.zero(offset, length);
            model.fill(0, offset, offset + length);
          } else {
            const data = randomBytes(length, Math.floor(random() * 2 ** 31));
            await client.write(offset, data, { fua: random() < 0.1 });
            model.set(data, offset);
          }
        }),
      );
      const length = 1 + Math.floor(random() * (size - 1));
      const offset = Math.floor(random() * (size - length));
      const into = Buffer.alloc(length, 0xee);
      await client.read(offset, into, { dontFragment: random() < 0.5 });
      expect(into.equals(model.subarray(offset, offset + length)), `seed ${seed}, round ${round}`).toBe(true);
    }
    await client.flush();
    expect(model.equals(disk), `seed ${seed}`).toBe(true);
  },
);

test("extended headers carry 64-bit zeroing and status, limited to the contexts that were asked for", async () => {
  const size = 2 ** 43;
  const asked: [string, number, number][] = [];
  const backend: NbdBackend = {
    size,
    read: (_offset, into) => {
      into.fill(0);
    },
    write: () => undefined,
    zero: (offset, length) => {
      asked.push(["zero", offset, length]);
    },
    async *extents(offset, length) {
      asked.push(["extents", offset, length]);
      yield { offset, length, hole: true, zero: true };
    },
  };
  const tracking = trackChanges({ name: "t", size });
  const server = await serve({ exports: { "": { backend, tracking: [tracking] } } });
  const metaContexts = ["base:allocation", "diskferry:changes:t"];
  const client = await connectNbd(server.uri(), { metaContexts });
  onEnd(() => client.close());
  expect(client.metaContexts).toEqual(metaContexts);
  await client.zero(2 ** 40, 2 ** 33);
  expect(asked.reduce((sum, [, , length]) => sum + length, 0)).toBe(2 ** 33);
  asked.length = 0;
  const changes = await all(client.blockStatus(0, size, { contexts: ["diskferry:changes:t"] }));
  expect(asked).toEqual([]);
  expect(changes.map(({ offset, length }) => [offset, length])).toEqual([
    [0, 2 ** 40],
    [2 ** 40, 2 ** 33],
    [2 ** 40 + 2 ** 33, size - 2 ** 40 - 2 ** 33],
  ]);
  const both = await all(client.blockStatus(0, size));
  expect(both.length).toBeGreaterThan(0);
  expect(asked.length).toBeGreaterThan(0);
});

test("our client finds the tracking that a name stands for, on every connection, until it is begun anew", async () => {
  const size = 4 * MiB;
  const tracking = trackChanges({ name: "t", size });
  const other = trackChanges({ name: "t2", size });
  let current = [tracking, other];
  const backend = memoryBackend(size);
  const server = await serve({ exports: () => ({ backend, tracking: current }) });
  const connect = async (...metaContexts: string[]): Promise<NbdClient> => {
    const client = await connectNbd(server.uri(), { metaContexts, connections: 3 });
    onEnd(() => client.close());
    expect(client.connections).toBe(3);
    return client;
  };
  const flagsOf = async (client: NbdClient, context: string): Promise<(number | undefined)[]> => {
    const extents = await all(client.blockStatus(0, size, { contexts: [context] }));
    return extents.map(({ flags }) => flags[context]);
  };
  const first = tracking.metaContext;
  const client = await connect("diskferry:changes:t:*", "diskferry:changes:t");
  expect(client.metaContexts).toEqual(["diskferry:changes:t", first]);
  // What a listing brings may be asked for by name beside it.
  expect((await connect(first, "diskferry:changes:*")).metaContexts).toHaveLength(4);
  await client.write(MiB, Buffer.alloc(512, 1));
  const again = await connect("diskferry:changes:t:*");
  expect(again.metaContexts).toEqual([first]);
  for (const each of [client, again, again, again]) expect(await flagsOf(each, first)).toEqual([0, 1, 0]);

  other.reset();
  expect(await flagsOf(client, first)).toEqual([0, 1, 0]);
  tracking.reset();
  // Whoever chose the epoch that is over is told so, and that all may have changed; the name alone tells of the new one.
  for (const each of [client, again]) expect(await flagsOf(each, first)).toEqual([changedFlag | changesLostFlag]);
  expect(await flagsOf(client, "diskferry:changes:t")).toEqual([0]);
  expect((await connect(first)).metaContexts).toEqual([]);
  const second = (await connect("diskferry:changes:t:*")).metaContexts;
  expect(second).toEqual([tracking.metaContext]);

  // As after a restart.
  current = [trackChanges({ name: "t", size })];
  expect((await connect(...second)).metaContexts).toEqual([]);
  expect((await connect("diskferry:changes:t:*")).metaContexts).toEqual([current[0]?.metaContext]);
});

test("our client lists our exports, and our refusals reach it as errors that say why", async () => {
  const failing: NbdBackend = {
    ...memoryBackend(MiB),
    read: () => {
      throw Object.assign(new Error("no"), { code: "EIO" });
    },
    write: () => {
      throw Object.assign(new Error("no"), { code: "ENOSPC" });
    },
  };
  const server = await serve({
    exports: { "": { backend: failing }, fixed: { backend: memoryBackend(MiB), readOnly: true } },
    epochs: true,
  });
  expect((await listNbdExports(server.uri())).map(({ name }) => name)).toEqual(["", "fixed"]);
  await expect(connectNbd(server.uri("missing"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  const client = await connectNbd(server.uri("@4"));
  await expect(client.read(0, Buffer.alloc(512))).rejects.toMatchObject({ cause: { code: "EIO" } });
  await expect(client.write(0, Buffer.alloc(512))).rejects.toMatchObject({ cause: { code: "ENOSPC" } });
  await server.fence("", 5);
  await expect(client.write(0, Buffer.alloc(512))).rejects.toMatchObject({ code: "UNAVAILABLE" });
  await expect(connectNbd(server.uri("@4"))).rejects.toMatchObject({ code: "DENIED" });
  await client.close();
});

describeWithPeers(["openssl"], "TLS between our own", () => {
  test("a pre-shared key and a pinned certificate carry bulk data both ways", async () => {
    const directory = await folder();
    const file = (name: string): string => join(directory, name);
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    await run("openssl", ["req", "-x509", ...key, ...names, "-keyout", file("key"), "-out", file("cert")]);
    const cert = await readFile(file("cert"), "utf8");
    const psk = { identity: "bob", key: Buffer.alloc(32, 7) };
    for (const [mine, theirs] of [
      [{ psk: [psk] }, { psk }],
      [
        { cert, key: await readFile(file("key"), "utf8") },
        { ca: cert, serverName: "localhost" },
      ],
    ] as const) {
      const server = await serve({ exports: { "": { backend: memoryBackend(8 * MiB) } }, tls: mine });
      const client = await connectNbd(server.uri(), { tls: theirs, connections: 2 });
      const content = randomBytes(8 * MiB, 17);
      await client.write(0, content);
      const into = Buffer.alloc(8 * MiB);
      await client.read(0, into);
      expect(client.tls).toBe(true);
      expect(into.equals(content)).toBe(true);
      await client.close();
    }
  });
});
