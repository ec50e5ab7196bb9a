import { describe, expect, test } from "vitest";
import {
  command,
  commandFlag,
  errorNumber,
  option,
  optionReply,
  replyType,
  transmissionFlag,
} from "../../src/protocol.ts";
import type { NbdBackend } from "../../src/server/backend.ts";
import { trackChanges } from "../../src/server/change-tracking.ts";
import { memoryBackend } from "../../src/server/memory-backend.ts";
import { randomBytes } from "../../../../test/seed.ts";
import { closeAfterEach, serve } from "./fixture.ts";
import { errorOf, infoRequest, queries, RawClient, uint32 } from "./raw-client.ts";

closeAfterEach();

const MiB = 1024 * 1024;

function patterned(size = MiB): { backend: NbdBackend; content: Buffer } {
  const content = Buffer.from(randomBytes(size, 1));
  return { backend: memoryBackend(content), content };
}

describe("handshake", () => {
  test("greets as a fixed newstyle server without zeroes", async () => {
    const { address } = await serve({ exports: { "": { backend: memoryBackend(512) } } });
    const client = await RawClient.connect(address);
    const greeting = await client.read(18);
    expect(greeting.toString("latin1", 0, 16)).toBe("NBDMAGICIHAVEOPT");
    expect(greeting.readUInt16BE(16)).toBe(3);
    client.destroy();
  });

  test("stays in step after unknown, oversized and malformed options", async () => {
    const { address } = await serve({ exports: { a: { backend: memoryBackend(4096) } } });
    const client = await RawClient.greeted(address);
    expect((await client.ask(4711, Buffer.alloc(1000))).type).toBe(optionReply.unsupported);
    expect((await client.ask(4, Buffer.alloc(70_000))).type).toBe(optionReply.tooBig);
    expect((await client.ask(option.list, Buffer.alloc(3))).type).toBe(optionReply.invalid);
    expect((await client.ask(option.info, Buffer.alloc(3))).type).toBe(optionReply.invalid);
    expect((await client.ask(option.info, Buffer.concat([uint32(4_000_000), Buffer.alloc(9)]))).type).toBe(
      optionReply.invalid,
    );
    expect((await client.ask(option.structuredReply, Buffer.alloc(1))).type).toBe(optionReply.invalid);
    expect((await client.ask(option.setMetaContext, queries("a", ["base:allocation"]))).type).toBe(optionReply.invalid);
    expect((await client.ask(option.startTls)).type).toBe(optionReply.policy);
    expect((await client.ask(option.info, infoRequest("nothing"))).type).toBe(optionReply.unknown);
    const answers = await client.askAll(option.list);
    expect(answers.map(({ type }) => type)).toEqual([optionReply.server, optionReply.acknowledge]);
    expect((await client.ask(option.abort)).type).toBe(optionReply.acknowledge);
    await client.closed();
  });

  test("lists names and descriptions and gives block sizes", async () => {
    const { backend } = patterned();
    const server = await serve({
      exports: new Map([
        ["ä", { backend, description: "first" }],
        ["b", { backend: { ...backend, blockSize: 4096, preferredLength: 65_536, readOnly: true } }],
      ]),
    });
    const client = await RawClient.greeted(server.address);
    const list = await client.askAll(option.list);
    expect(list.slice(0, 2).map(({ data }) => data.toString("utf8", 4))).toEqual(["äfirst", "bmemory"]);
    const info = await client.askAll(option.info, infoRequest("b", [1, 2, 3]));
    const items = new Map(info.slice(0, -1).map(({ data }) => [data.readUInt16BE(0), data.subarray(2)]));
    expect(items.get(0)?.readBigUInt64BE(0)).toBe(BigInt(MiB));
    const flags = items.get(0)?.readUInt16BE(8) ?? 0;
    expect(flags & transmissionFlag.readOnly).not.toBe(0);
    expect(flags & (transmissionFlag.sendTrim | transmissionFlag.sendWriteZeroes | transmissionFlag.sendDf)).toBe(0);
    expect(items.get(1)?.toString()).toBe("b");
    expect(items.get(2)?.toString()).toBe("memory");
    expect([0, 4, 8].map((at) => items.get(3)?.readUInt32BE(at))).toEqual([4096, 65_536, 32 * MiB]);
    client.destroy();
  });

  test("asks a client that does not know block sizes above 512 to learn them", async () => {
    const { backend } = patterned();
    const { address } = await serve({ exports: { "": { backend: { ...backend, blockSize: 4096 } } } });
    const client = await RawClient.greeted(address);
    expect((await client.askAll(option.go, infoRequest(""))).at(-1)?.type).toBe(optionReply.blockSizeRequired);
    client.sendOption(option.exportName);
    await client.closed();
  });

  test.each([
    [3, 10],
    [1, 134],
  ])("enters by EXPORT_NAME; with client flags %i the answer has %i bytes", async (flags, length) => {
    const { backend, content } = patterned();
    const { address } = await serve({ exports: { disk: { backend } } });
    const client = await RawClient.greeted(address, flags);
    client.sendOption(option.exportName, Buffer.from("disk"));
    const answer = await client.read(length);
    expect(answer.readBigUInt64BE(0)).toBe(BigInt(MiB));
    client.request(command.read, { offset: 512, length: 1024, cookie: 77n });
    const reply = await client.reply(1024);
    expect(reply).toMatchObject({ style: "simple", kind: 0, cookie: 77n });
    expect(reply.payload.equals(content.subarray(512, 1536))).toBe(true);
    client.disconnect();
    await client.closed();
  });

  test("closes when EXPORT_NAME names nothing, and when it follows extended headers", async () => {
    const { address } = await serve({ exports: { disk: { backend: memoryBackend(512) } } });
    const client = await RawClient.greeted(address);
    client.sendOption(option.exportName, Buffer.from("other"));
    await client.closed();
    const second = await RawClient.greeted(address);
    expect((await second.ask(option.extendedHeaders)).type).toBe(optionReply.acknowledge);
    expect((await second.ask(option.structuredReply)).type).toBe(optionReply.extendedHeadersRequired);
    second.sendOption(option.exportName, Buffer.from("disk"));
    await second.closed();
  });

  test("lists and selects meta contexts by name and by name space", async () => {
    const tracking = ["one", "two"].map((name) => trackChanges({ name, size: 512 }));
    const { address } = await serve({ exports: { "": { backend: memoryBackend(512), tracking } } });
    const client = await RawClient.greeted(address);
    await client.ask(option.structuredReply);
    const names = async (kind: number, wanted: string[]): Promise<string[]> =>
      (await client.askAll(kind, queries("", wanted))).slice(0, -1).map(({ data }) => data.toString("utf8", 4));
    const [one, two] = tracking.map(({ identity }) => identity);
    const all = [
      "base:allocation",
      "diskferry:changes:one",
      `diskferry:changes:one:${one}:1`,
      "diskferry:changes:two",
      `diskferry:changes:two:${two}:1`,
    ];
    expect(await names(option.listMetaContext, [])).toEqual(all);
    expect(await names(option.listMetaContext, ["base:"])).toEqual(all.slice(0, 1));
    expect(await names(option.listMetaContext, ["diskferry:changes:", "other:x"])).toEqual(all.slice(1));
    expect(await names(option.listMetaContext, ["diskferry:changes:two:"])).toEqual(all.slice(4));
    expect(await names(option.listMetaContext, [`diskferry:changes:one:${one}:`])).toEqual(all.slice(2, 3));
    expect(await names(option.listMetaContext, [`diskferry:changes:one:${two}:`])).toEqual([]);
    expect(await names(option.setMetaContext, ["base:", "diskferry:", "base:unknown"])).toEqual([]);
    expect(await names(option.setMetaContext, [`diskferry:changes:one:${two}:1`, "diskferry:changes:two:"])).toEqual(
      [],
    );
    expect(await names(option.setMetaContext, [all[4] ?? "", "base:allocation"])).toEqual([all[0], all[4]]);
    tracking[1]?.reset();
    expect(await names(option.setMetaContext, [all[4] ?? "", all[3] ?? ""])).toEqual([all[3]]);
    expect(await names(option.listMetaContext, ["diskferry:changes:two:"])).toEqual([`diskferry:changes:two:${two}:2`]);
    client.destroy();
  });
});

describe("transmission", () => {
  test("answers reads structured, whole under DF, and zeroes as one hole", async () => {
    const { backend, content } = patterned(2 * MiB);
    content.fill(0, MiB);
    const { address } = await serve({ exports: { "": { backend } } });
    const client = await RawClient.transmitting(address, { structured: true });
    client.request(command.read, { offset: 4096, length: 65_536, flags: commandFlag.doNotFragment });
    const data = await client.reply();
    expect(data).toMatchObject({ style: "structured", kind: replyType.offsetData, done: true });
    expect(data.payload.readBigUInt64BE(0)).toBe(4096n);
    expect(data.payload.subarray(8).equals(content.subarray(4096, 4096 + 65_536))).toBe(true);
    client.request(command.read, { offset: MiB, length: MiB });
    const hole = await client.reply();
    expect(hole).toMatchObject({ kind: replyType.offsetHole, done: true });
    expect([hole.payload.readBigUInt64BE(0), hole.payload.readUInt32BE(8)]).toEqual([BigInt(MiB), MiB]);
    // One byte decides: a zero test that samples would call this a hole.
    content[MiB + 700_001] = 1;
    client.request(command.read, { offset: MiB, length: MiB });
    const almost = await client.reply();
    expect(almost.kind).toBe(replyType.offsetData);
    expect(almost.payload.subarray(8).equals(content.subarray(MiB))).toBe(true);
    client.request(command.read, { length: 0 });
    expect(await client.reply()).toMatchObject({ kind: replyType.none, done: true });
    client.destroy();
  });

  test("speaks extended headers: 64-bit zeroing and status, the request's offset in every reply", async () => {
    const size = 2 ** 42;
    const zeroed: number[][] = [];
    const backend: NbdBackend = {
      size,
      read: (_offset, into) => {
        into.fill(7);
      },
      write: () => undefined,
      zero: (offset, length) => {
        zeroed.push([offset, length]);
      },
      async *extents(offset, length) {
        yield { offset, length, hole: true, zero: true };
      },
    };
    const { address } = await serve({ exports: { "": { backend } } });
    const client = await RawClient.transmitting(address, { extended: true, contexts: ["base:allocation"] });
    client.request(command.writeZeroes, { extended: true, offset: 4096, length: size - 4096, cookie: 2n ** 63n });
    expect(await client.reply()).toMatchObject({
      style: "extended",
      kind: replyType.none,
      offset: 4096n,
      cookie: 2n ** 63n,
      done: true,
    });
    expect(zeroed).toEqual([[4096, size - 4096]]);
    client.request(command.blockStatus, { extended: true, offset: 2 ** 40, length: 2 ** 41 });
    const status = await client.reply();
    expect(status).toMatchObject({ kind: replyType.blockStatusExtended, offset: 2n ** 40n });
    expect([status.payload.readUInt32BE(0), status.payload.readUInt32BE(4)]).toEqual([0, 1]);
    expect([status.payload.readBigUInt64BE(8), status.payload.readBigUInt64BE(16)]).toEqual([2n ** 41n, 3n]);
    client.request(command.read, { extended: true, offset: 2 ** 41 + 1, length: 10 });
    const data = await client.reply();
    expect(data.payload.readBigUInt64BE(0)).toBe(2n ** 41n + 1n);
    expect(data.payload.subarray(8)).toEqual(Buffer.alloc(10, 7));
    client.request(command.write, { extended: true, payload: Buffer.alloc(512) });
    expect(errorOf(await client.reply())).toBe(0);
    // A payload that the command does not want is read to its end, then refused.
    client.request(command.read, { extended: true, payload: Buffer.alloc(100) });
    expect(errorOf(await client.reply())).toBe(errorNumber.EINVAL);
    client.request(command.write, { extended: true, length: 512 });
    expect(errorOf(await client.reply())).toBe(errorNumber.EINVAL);
    client.request(command.disconnect, { extended: true });
    await client.closed();
  });

  test("limits a status to the contexts that a request names, and refuses unknown and doubled ones", async () => {
    const tracking = [trackChanges({ name: "t", size: MiB })];
    const { address } = await serve({ exports: { "": { backend: memoryBackend(MiB), tracking } } });
    const client = await RawClient.transmitting(address, {
      extended: true,
      contexts: ["base:allocation", "diskferry:changes:t"],
    });
    const filter = (...ids: number[]): Buffer => {
      const length = Buffer.alloc(8);
      length.writeBigUInt64BE(BigInt(MiB));
      return Buffer.concat([length, ...ids.map(uint32)]);
    };
    client.request(command.blockStatus, { extended: true, payload: filter(1) });
    const only = await client.reply();
    expect(only).toMatchObject({ kind: replyType.blockStatusExtended, done: true });
    expect([only.payload.readUInt32BE(0), only.payload.readBigUInt64BE(8)]).toEqual([1, BigInt(MiB)]);
    for (const payload of [filter(0, 0), filter(2), filter(), filter(1).subarray(0, 11), Buffer.alloc(9000)]) {
      client.request(command.blockStatus, { extended: true, payload });
      expect(errorOf(await client.reply())).toBe(errorNumber.EINVAL);
    }
    client.request(command.blockStatus, { extended: true, length: MiB });
    expect([(await client.reply()).done, (await client.reply()).done]).toEqual([false, true]);
    client.destroy();
  });

  test.each<[string, number, Parameters<RawClient["request"]>[1], number]>([
    ["a read beyond the end", command.read, { offset: MiB - 1, length: 2 }, errorNumber.EINVAL],
    ["a read at the end of 64 bits", command.read, { offset: 2n ** 64n - 1n, length: 512 }, errorNumber.EINVAL],
    ["a write beyond the end", command.write, { offset: MiB - 1, payload: Buffer.alloc(2) }, errorNumber.ENOSPC],
    ["zeroing beyond the end", command.writeZeroes, { offset: 0, length: MiB + 1 }, errorNumber.ENOSPC],
    ["trimming beyond the end", command.trim, { offset: MiB, length: 1 }, errorNumber.EINVAL],
    ["an unknown command", 99, {}, errorNumber.EINVAL],
    ["an unknown flag", command.read, { length: 512, flags: 0x40 }, errorNumber.EINVAL],
    ["a flag of another command", command.read, { length: 512, flags: commandFlag.requireOne }, errorNumber.EINVAL],
    ["status without a context", command.blockStatus, { length: 512 }, errorNumber.EINVAL],
    ["a flush with a length", command.flush, { length: 1 }, errorNumber.EINVAL],
    ["cache where it is not offered", command.cache, { length: 1 }, errorNumber.EINVAL],
  ])("refuses %s and goes on", async (_title, type, parts, error) => {
    const { backend, content } = patterned();
    const { cache: _cache, ...withoutCache } = backend;
    const before = Buffer.from(content);
    const { address } = await serve({ exports: { "": { backend: withoutCache } } });
    for (const structured of [false, true]) {
      const client = await RawClient.transmitting(address, { structured });
      client.request(type, { ...parts, cookie: 5n });
      const reply = await client.reply();
      expect([reply.cookie, errorOf(reply)]).toEqual([5n, error]);
      client.request(command.read, { length: 512 });
      expect(errorOf(await client.reply(512))).toBe(0);
      client.destroy();
    }
    expect(content.equals(before)).toBe(true);
  });

  test("keeps to the block size, the read-only flag and the payload limit", async () => {
    const { backend, content } = patterned();
    const before = Buffer.from(content);
    const { address } = await serve({
      exports: { blocks: { backend: { ...backend, blockSize: 4096 } }, fixed: { backend, readOnly: true } },
      limits: { payload: 65_536 },
    });
    const blocks = await RawClient.transmitting(address, { name: "blocks" });
    blocks.request(command.write, { offset: 512, payload: Buffer.alloc(4096) });
    expect(errorOf(await blocks.reply())).toBe(errorNumber.EINVAL);
    blocks.request(command.write, { payload: Buffer.alloc(131_072) });
    expect(errorOf(await blocks.reply())).toBe(errorNumber.EINVAL);
    blocks.request(command.read, { length: 131_072 });
    expect(errorOf(await blocks.reply())).toBe(errorNumber.EINVAL);
    blocks.request(command.read, { length: 65_536 });
    expect((await blocks.reply(65_536)).payload.equals(content.subarray(0, 65_536))).toBe(true);
    blocks.request(command.write, { length: 2 ** 32 - 1 });
    await blocks.closed();
    const fixed = await RawClient.transmitting(address, { name: "fixed", structured: true });
    fixed.request(command.write, { payload: Buffer.alloc(512) });
    expect(errorOf(await fixed.reply())).toBe(errorNumber.EPERM);
    fixed.request(command.read, { length: 131_072 });
    expect(errorOf(await fixed.reply())).toBe(errorNumber.EOVERFLOW);
    for (const type of [command.writeZeroes, command.trim]) {
      fixed.request(type, { length: 512 });
      expect(errorOf(await fixed.reply())).toBe(errorNumber.EPERM);
    }
    fixed.destroy();
    expect(content.equals(before)).toBe(true);
  });

  test("tells one extent for REQ_ONE and many otherwise, aligned to the block size, gaps as data", async () => {
    const backend: NbdBackend = {
      size: MiB,
      blockSize: 512,
      read: () => undefined,
      async *extents() {
        yield { offset: 0, length: 4096, hole: false, zero: false };
        yield { offset: 8192, length: 1000, hole: true, zero: true };
        yield { offset: 65_536, length: 4096, hole: true, zero: false };
        yield { offset: 69_632, length: MiB, hole: false, zero: true };
      },
    };
    const { address } = await serve({ exports: { "": { backend } } });
    const client = await RawClient.transmitting(address, { contexts: ["base:allocation"] });
    const status = async (offset: number, length: number, flags = 0): Promise<number[]> => {
      client.request(command.blockStatus, { offset, length, flags });
      const { payload } = await client.reply();
      return Array.from({ length: (payload.length - 4) / 4 }, (_, index) => payload.readUInt32BE(4 + index * 4));
    };
    expect(await status(0, MiB)).toEqual([8192, 0, 512, 3, 56_832, 0, 4096, 1, MiB - 69_632, 2]);
    expect(await status(0, MiB, commandFlag.requireOne)).toEqual([8192, 0]);
    expect(await status(0, 512, commandFlag.requireOne)).toEqual([512, 0]);
    expect(await status(66_048, 512)).toEqual([512, 1]);
    client.destroy();
  });

  test("overlaps requests up to the limit, whatever their cookies, and reads no more beyond it", async () => {
    let underWay = 0;
    let most = 0;
    const waiting: (() => void)[] = [];
    const backend: NbdBackend = {
      size: MiB,
      async read(_offset, into) {
        most = Math.max(most, (underWay += 1));
        await new Promise<void>((resolve) => waiting.push(resolve));
        underWay -= 1;
        into.fill(1);
      },
    };
    const { address } = await serve({ exports: { "": { backend } }, limits: { inFlight: 4 } });
    const client = await RawClient.transmitting(address);
    for (let index = 0; index < 20; index++) client.request(command.read, { length: 512, cookie: 9n });
    for (let index = 0; index < 20; index++) {
      while (waiting.length === 0) await new Promise((resolve) => setImmediate(resolve));
      waiting.shift()?.();
      expect(await client.reply(512)).toMatchObject({ cookie: 9n, kind: 0 });
    }
    expect(most).toBe(4);
    client.destroy();
  });

  test("gives every block back, however its request ends: a budget of two serves any number", async () => {
    const { backend, content } = patterned();
    content.fill(0, 65_536, 131_072);
    const failing: NbdBackend = {
      ...backend,
      read(offset, into, options) {
        if (offset === 131_072) throw new Error("broken");
        return backend.read(offset, into, options);
      },
    };
    const limits = { payload: 65_536, bufferBytes: 131_072 };
    const { address } = await serve({ exports: { "": { backend: failing } }, limits });
    for (let turn = 0; turn < 10; turn++) {
      const client = await RawClient.transmitting(address, { structured: true });
      for (const offset of [0, 65_536, 131_072]) {
        client.request(command.read, { offset, length: 65_536 });
        await client.reply();
      }
      client.request(command.write, { payload: Buffer.alloc(65_536, turn) });
      expect(errorOf(await client.reply())).toBe(0);
      // Gone in the middle of a payload and with an answer unread.
      client.request(command.read, { length: 65_536 });
      client.request(command.write, { length: 65_536, payload: Buffer.alloc(100) });
      client.destroy();
    }
    const last = await RawClient.transmitting(address);
    last.request(command.read, { length: 65_536 });
    expect((await last.reply(65_536)).payload.equals(Buffer.alloc(65_536, 9))).toBe(true);
    last.destroy();
  });

  test("handles what is under way before it follows a disconnect, and nothing sent after it", async () => {
    const written: number[] = [];
    const backend: NbdBackend = {
      size: MiB,
      read: () => undefined,
      async write(offset) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        written.push(offset);
      },
    };
    const { address } = await serve({ exports: { "": { backend } } });
    const client = await RawClient.transmitting(address);
    client.request(command.write, { offset: 512, payload: Buffer.alloc(512) });
    client.disconnect();
    client.request(command.write, { offset: 1024, payload: Buffer.alloc(512) });
    expect(errorOf(await client.reply())).toBe(0);
    await client.closed();
    expect(written).toEqual([512]);
  });

  test("gives a slow client all answers it asked for before it disconnected", async () => {
    const { backend, content } = patterned(8 * MiB);
    const { address } = await serve({ exports: { "": { backend } } });
    const client = await RawClient.transmitting(address);
    client.socket.pause();
    for (let index = 0; index < 8; index++) client.request(command.read, { offset: index * MiB, length: MiB });
    client.disconnect();
    await new Promise((resolve) => setTimeout(resolve, 2500));
    client.socket.resume();
    for (let index = 0; index < 8; index++) {
      const { payload } = await client.reply(MiB);
      expect(payload.equals(content.subarray(index * MiB, (index + 1) * MiB))).toBe(true);
    }
    await client.closed();
  });

  test("maps a backend's failures to the protocol's errors and gives the reason to structured clients", async () => {
    const codes = ["ENOSPC", "EDQUOT", "EACCES", "ENOTSUP", "EIO", "whatever"];
    const backend: NbdBackend = {
      size: MiB,
      read(offset) {
        throw Object.assign(new Error("secret path"), { code: codes[offset / 512] });
      },
    };
    const { address } = await serve({ exports: { "": { backend } } });
    const client = await RawClient.transmitting(address, { structured: true });
    const errors: number[] = [];
    for (const index of codes.keys()) {
      client.request(command.read, { offset: index * 512, length: 512 });
      const reply = await client.reply();
      errors.push(errorOf(reply));
      expect(reply.payload.toString("utf8", 6)).not.toContain("secret");
    }
    expect(errors).toEqual([28, 28, 1, 95, 5, 5]);
    client.destroy();
  });

  test("writes zeroes for a backend without zero, and refuses FAST_ZERO there", async () => {
    const { backend, content } = patterned(4 * MiB);
    const { zero: _zero, ...plain } = backend;
    const { address } = await serve({ exports: { "": { backend: plain } } });
    const client = await RawClient.transmitting(address);
    client.request(command.writeZeroes, { offset: 4096, length: 3 * MiB, flags: commandFlag.fastZero });
    expect(errorOf(await client.reply())).toBe(errorNumber.EINVAL);
    expect(content[4096]).not.toBe(undefined);
    client.request(command.writeZeroes, { offset: 4096, length: 3 * MiB });
    expect(errorOf(await client.reply())).toBe(0);
    expect(content.subarray(4096, 4096 + 3 * MiB).equals(Buffer.alloc(3 * MiB))).toBe(true);
    expect(content.subarray(0, 4096).equals(Buffer.from(randomBytes(4 * MiB, 1)).subarray(0, 4096))).toBe(true);
    client.destroy();
  });
});
