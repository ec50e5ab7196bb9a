import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import fc from "fast-check";
import { Bounds } from "../../../../test/bounds.ts";
import { seedOf } from "../../../../test/seed.ts";
import { command, option } from "../../src/protocol.ts";
import type { NbdBackend } from "../../src/server/backend.ts";
import { memoryBackend } from "../../src/server/memory-backend.ts";
import type { NbdServer, NbdServerLimits } from "../../src/server/serve-nbd.ts";
import { trackChanges } from "../../src/server/change-tracking.ts";
import { closeAfterEach, serve, until } from "./fixture.ts";
import { errorOf, infoRequest, queries, RawClient } from "./raw-client.ts";

closeAfterEach();

const MiB = 1024 * 1024;

async function serveMemory(limits: NbdServerLimits = {}, notices: string[] = []): Promise<NbdServer> {
  const backend = memoryBackend(MiB);
  const tracking = [trackChanges({ name: "t", size: MiB })];
  return serve({ exports: { "": { backend, tracking } }, limits, notice: (message) => notices.push(message) });
}

/** The proof that a server is still well: a fresh client writes and reads back. */
async function expectWell(server: NbdServer): Promise<void> {
  const client = await RawClient.transmitting(server.address);
  const payload = Buffer.alloc(4096, 0x5c);
  client.request(command.write, { offset: 8192, payload });
  expect(errorOf(await client.reply())).toBe(0);
  client.request(command.read, { offset: 8192, length: 4096 });
  expect((await client.reply(4096)).payload.equals(payload)).toBe(true);
  client.disconnect();
  await client.closed();
}

function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

describe("clients that talk nonsense", () => {
  test.each<[string, (client: RawClient) => void]>([
    ["an HTTP request", (client) => client.send(Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))],
    ["unknown client flags", (client) => client.send(Buffer.from("ffffffff", "hex"))],
    ["an option without its magic", (client) => client.send(Buffer.alloc(64, 0x41))],
    ["an option of 4 GiB", (client) => client.send(Buffer.from("0000000349484156454f505400000006ffffffff", "hex"))],
  ])("are cut off after %s", async (_title, speak) => {
    const server = await serveMemory();
    const client = await RawClient.connect(server.address);
    await client.read(18);
    speak(client);
    await client.closed();
    await expectWell(server);
  });

  test.each<[string, (client: RawClient) => void]>([
    ["garbage for a request", (client) => client.send(Buffer.alloc(28, 0xee))],
    ["an extended request nobody agreed on", (client) => client.request(command.read, { length: 1, extended: true })],
    ["a write of 4 GiB", (client) => client.request(command.write, { length: 2 ** 32 - 1 })],
    [
      "a disconnect with more behind it",
      (client) => {
        client.disconnect();
        for (let index = 0; index < 100; index++) client.request(command.write, { payload: Buffer.alloc(4096) });
      },
    ],
  ])("are cut off after %s", async (_title, speak) => {
    const server = await serveMemory();
    const client = await RawClient.transmitting(server.address);
    speak(client);
    await client.closed();
    await expectWell(server);
  });

  test("are cut off after extended payloads that are huge", async () => {
    const server = await serveMemory();
    for (const length of [2n ** 63n, 33n * 1024n * 1024n]) {
      const client = await RawClient.transmitting(server.address, { extended: true });
      client.request(command.write, { extended: true, length, payload: Buffer.alloc(10) });
      await client.closed();
    }
    await expectWell(server);
  });
});

describe("clients that are slow", () => {
  const limits = { handshakeMs: 500, messageMs: 500, idleMs: 500 };

  test.each<[string, RegExp, (server: NbdServer) => Promise<RawClient>]>([
    ["say nothing at all", /handshake took too long/, (server) => RawClient.connect(server.address)],
    [
      "send a handshake byte by byte",
      /handshake took too long/,
      async (server) => {
        const client = await RawClient.greeted(server.address);
        void trickle(client, Buffer.from("49484156454f50540000000600000100", "hex"));
        return client;
      },
    ],
    [
      "send a request byte by byte",
      /request took too long/,
      async (server) => {
        const client = await RawClient.transmitting(server.address);
        void trickle(client, Buffer.concat([Buffer.from("25609513", "hex"), Buffer.alloc(24)]));
        return client;
      },
    ],
    [
      "stop in the middle of a payload",
      /payload took too long/,
      async (server) => {
        const client = await RawClient.transmitting(server.address);
        client.request(command.write, { length: 4096, payload: Buffer.alloc(100) });
        return client;
      },
    ],
    ["are idle where that has a limit", /idle for too long/, (server) => RawClient.transmitting(server.address)],
  ])("are cut off in time when they %s", async (_title, reason, begin) => {
    const notices: string[] = [];
    const server = await serveMemory(limits, notices);
    const client = await begin(server);
    await client.closed();
    expect(notices.join("\n")).toMatch(reason);
    await expectWell(server);
  });

  test("are cut off when they never take their answers, and hold bounded memory until then", async () => {
    const notices: string[] = [];
    let reads = 0;
    const backend: NbdBackend = {
      size: MiB,
      read: (_offset, into) => {
        reads += 1;
        into.fill(1);
      },
    };
    const server = await serve({
      exports: { "": { backend } },
      limits: { messageMs: 300, bufferBytes: 32 * MiB },
      notice: (message) => notices.push(message),
    });
    const client = await RawClient.transmitting(server.address);
    client.socket.pause();
    for (let index = 0; index < 2000; index++) client.request(command.read, { length: MiB });
    await until("the client to be cut off", () => notices.length > 0);
    expect(notices[0]).toMatch(/does not take its answers/);
    // A quarter of 32 MiB at once, and what fits into the kernel's buffers.
    expect(reads).toBeLessThan(16);
    client.destroy();
    await expectWell(await serveMemory());
  });

  test("cannot keep others out by holding back their payloads", async () => {
    const server = await serveMemory({ bufferBytes: 64 * MiB, messageMs: 1000 });
    const holders = await Promise.all(Array.from({ length: 6 }, () => RawClient.transmitting(server.address)));
    for (const client of holders) client.request(command.write, { length: MiB, payload: Buffer.alloc(1) });
    await expectWell(server);
    for (const client of holders) client.destroy();
  });

  async function trickle(client: RawClient, bytes: Buffer): Promise<void> {
    for (const byte of bytes) {
      if (client.ended) return;
      client.send(Buffer.of(byte));
      await sleep(200);
    }
  }
});

describe("clients that vanish", () => {
  test("at any byte of a session leave no descriptor, no block and no write behind", async () => {
    const written: number[] = [];
    const memory = memoryBackend(MiB);
    const server = await serve({
      exports: {
        "": {
          backend: {
            ...memory,
            async write(offset, data, options) {
              await sleep(1);
              written.push(data.length);
              await memory.write?.(offset, data, options);
            },
          },
        },
      },
    });
    const before = openDescriptors();
    const session = Buffer.concat([
      Buffer.from("00000003", "hex"),
      Buffer.from("49484156454f50540000000800000000", "hex"),
      Buffer.from("49484156454f505400000007", "hex"),
      Buffer.from("00000008", "hex"),
      infoRequest("", [3]),
      requestBytes(command.read, 0, 65_536),
      requestBytes(command.write, 0, 4096),
      Buffer.alloc(4096, 3),
      requestBytes(command.write, 4096, 4096),
      Buffer.alloc(4096, 4),
    ]);
    for (let cut = 0; cut <= session.length; cut += cut < 120 ? 3 : 997) {
      const client = await RawClient.connect(server.address);
      client.socket.on("error", () => client.destroy());
      await new Promise((resolve) => client.socket.write(session.subarray(0, cut), resolve));
      client.destroy();
    }
    await until("all connections to be closed", () => server.connections().length === 0);
    await until("all descriptors to be closed", () => openDescriptors() <= before);
    expect(written.every((length) => length === 4096)).toBe(true);
    await expectWell(server);
  });

  function requestBytes(type: number, offset: number, length: number): Buffer {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(0x25609513, 0);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return header;
  }
});

test("a connection whose authorization never ends is cut off and forgotten", async () => {
  let asked = 0;
  const server = await serve({
    exports: { "": { backend: memoryBackend(512) } },
    limits: { handshakeMs: 500, connections: 1 },
    authorize: () => {
      asked += 1;
      return asked === 1 ? new Promise(() => undefined) : undefined;
    },
  });
  const stuck = await RawClient.greeted(server.address);
  stuck.sendOption(option.go, infoRequest(""));
  await stuck.closed();
  const next = await RawClient.transmitting(server.address);
  next.request(command.read, { length: 512 });
  expect(errorOf(await next.reply(512))).toBe(0);
  next.destroy();
});

test("connections beyond the limit are closed at once and the others stay", async () => {
  const server = await serveMemory({ connections: 2 });
  const first = await RawClient.transmitting(server.address);
  const second = await RawClient.transmitting(server.address);
  const third = await RawClient.connect(server.address);
  await third.closed();
  first.request(command.read, { length: 512 });
  expect(errorOf(await first.reply(512))).toBe(0);
  second.destroy();
  await until("the second to be forgotten", () => server.connections().length === 1);
  await until("a place to be free", () => server.connections().length < 2);
  first.destroy();
});

describe("random input", () => {
  const runs = 60;

  async function feed(server: NbdServer, client: RawClient, pieces: Uint8Array[]): Promise<void> {
    client.socket.on("error", () => client.destroy());
    for (const piece of pieces) client.send(piece);
    client.socket.end();
    await client.closed();
    client.destroy();
    await until("the connection to be forgotten", () => server.connections().length === 0);
  }

  const optionPiece = fc
    .record({
      kind: fc.oneof(fc.integer({ min: 0, max: 13 }), fc.nat()),
      data: fc.oneof(
        fc.uint8Array({ maxLength: 64 }),
        fc.constant(infoRequest("", [3])),
        fc.array(fc.string({ maxLength: 20 }), { maxLength: 5 }).map((names) => queries("", names)),
      ),
      lie: fc.oneof(
        { weight: 8, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.integer({ min: -8, max: 70_000 }) },
      ),
    })
    .map(({ kind, data, lie }) => {
      const header = Buffer.alloc(16);
      header.write("IHAVEOPT", "latin1");
      header.writeUInt32BE(kind, 8);
      header.writeUInt32BE(Math.max(0, data.length + lie), 12);
      return Buffer.concat([header, data]);
    });

  const requestPiece = fc
    .record({
      magic: fc.oneof(
        { weight: 9, arbitrary: fc.constant(0x25609513) },
        { weight: 1, arbitrary: fc.integer({ min: 0, max: 2 ** 32 - 1 }) },
      ),
      flags: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff })),
      type: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 0xffff })),
      offset: fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 20n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
      length: fc.oneof(fc.integer({ min: 0, max: 4096 }), fc.integer({ min: 0, max: 2 ** 32 - 1 })),
      payload: fc.uint8Array({ maxLength: 600 }),
      truthful: fc.boolean(),
    })
    .map(({ magic, flags, type, offset, length, payload, truthful }) => {
      const header = Buffer.alloc(28);
      header.writeUInt32BE(magic, 0);
      header.writeUInt16BE(flags, 4);
      header.writeUInt16BE(type, 6);
      header.writeBigUInt64BE(offset, 16);
      header.writeUInt32BE(truthful && type === command.write ? payload.length : length, 24);
      return type === command.write ? Buffer.concat([header, payload]) : header;
    });

  for (const seed of [seedOf(20_251_121), Math.floor(Math.random() * 2 ** 31)]) {
    test(`in the handshake never hurts the server (seed ${seed})`, async () => {
      const server = await serveMemory({ handshakeMs: 2000, messageMs: 2000 });
      const rawPiece = fc.uint8Array({ maxLength: 80 });
      const pieces = fc.array(fc.oneof({ weight: 6, arbitrary: optionPiece }, { weight: 1, arbitrary: rawPiece }), {
        maxLength: 12,
      });
      await using bounds = new Bounds(`handshakes, seed ${seed}`);
      await fc.assert(
        fc.asyncProperty(pieces, (each) =>
          bounds.run(async () => feed(server, await RawClient.greeted(server.address), each)),
        ),
        { seed, numRuns: runs },
      );
      await expectWell(server);
    });

    test(`in the transmission never hurts the server (seed ${seed})`, async () => {
      const server = await serveMemory({ handshakeMs: 2000, messageMs: 2000 });
      await using bounds = new Bounds(`transmissions, seed ${seed}`);
      await fc.assert(
        fc.asyncProperty(
          fc.array(requestPiece, { maxLength: 20 }),
          fc.constantFrom<NonNullable<Parameters<typeof RawClient.transmitting>[1]>>(
            {},
            { structured: true },
            { contexts: ["base:allocation", "diskferry:changes:t"] },
            { extended: true },
          ),
          (each, how) => bounds.run(async () => feed(server, await RawClient.transmitting(server.address, how), each)),
        ),
        { seed, numRuns: runs },
      );
      await expectWell(server);
    });
  }
});

test("a thousand connections in a row leave neither descriptors nor timers behind", async () => {
  const server = await serveMemory();
  const before = openDescriptors();
  for (let index = 0; index < 1000; index++) {
    const client = await RawClient.greeted(server.address);
    client.sendOption(option.abort);
    client.destroy();
  }
  await until("all descriptors to be closed", () => openDescriptors() <= before);
  await expectWell(server);
  expect(process.getActiveResourcesInfo().filter((name) => name === "Timeout").length).toBeLessThan(20);
});
