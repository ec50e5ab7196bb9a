import { isProviderError } from "@diskferry/core/provider";
import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { connectNbd } from "../../src/client/connect.ts";
import { command, commandFlag, errorNumber, transmissionFlag } from "../../src/protocol.ts";
import { bytes32, bytes64, collect, everyFlag, startScripted } from "./scripted-server.ts";
import type { ScriptedPeer, SeenRequest } from "./scripted-server.ts";

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (isProviderError(error)) return error.code;
    throw error;
  }
  return "none";
}

/** Answers every request from `disk`, as an honest server would, and remembers what it saw. */
async function serve(peer: ScriptedPeer, disk: Uint8Array, seen: SeenRequest[] = []): Promise<void> {
  for (;;) {
    const request = await peer.request();
    seen.push(request);
    const { type, offset, length, data } = request;
    if (type === command.disconnect) {
      peer.socket.end();
      return;
    }
    if (type === command.read) {
      peer.content(request, offset, disk.subarray(offset, offset + length), 1);
      continue;
    }
    if (type === command.write && offset < disk.byteLength) disk.set(data, offset);
    if (type === command.writeZeroes) disk.fill(0, offset, offset + length);
    peer.done(request);
  }
}

describe("reads", () => {
  it("are put together from content and holes in any order, mixed with other replies", async () => {
    const disk = randomBytes(1 << 20, 1);
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const one = await peer.request();
      const two = await peer.request();
      peer.content(one, one.offset + 8192, disk.subarray(8192, 16384));
      peer.hole(two, two.offset, 4096);
      peer.content(one, one.offset, disk.subarray(0, 4096));
      peer.content(two, two.offset + 4096, disk.subarray(0, 4096), 1);
      peer.hole(one, one.offset + 4096, 4096);
      peer.done(one);
    });
    await using client = await connectNbd(server.uri);
    const one = new Uint8Array(16384).fill(9);
    const two = new Uint8Array(8192).fill(9);
    await Promise.all([client.read(0, one), client.read(65536, two)]);
    const expected = disk.slice(0, 16384).fill(0, 4096, 8192);
    expect(Buffer.compare(one, expected)).toBe(0);
    expect(two.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
    expect(Buffer.compare(two.subarray(4096), disk.subarray(0, 4096))).toBe(0);
  });

  it.each(["simple", "structured", "extended"] as const)(
    "with %s replies are exact however the bytes are cut on their way",
    async (style) => {
      const disk = randomBytes(1 << 20, 2);
      await using server = await startScripted(async (peer) => {
        await peer.handshake({ style });
        peer.socket.setNoDelay(true);
        for (let cut = 1; ; cut = (cut * 7) % 1009) {
          const request = await peer.request();
          if (request.type === command.disconnect) break;
          const data = disk.subarray(request.offset, request.offset + request.length);
          const reply = await capture(peer, () =>
            style === "simple" ? peer.simple(request, 0, data) : peer.content(request, request.offset, data, 1),
          );
          for (let at = 0; at < reply.byteLength; at += cut) {
            peer.send(reply.subarray(at, at + cut));
            if (at % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
          }
        }
      });
      await using client = await connectNbd(server.uri);
      expect(client.replies).toBe(style);
      const reads = Array.from({ length: 40 }, async (_, index) => {
        const length = 512 * (1 + ((index * 13) % 60));
        const whole = new Uint8Array(length + 96).fill(0xaa);
        const slack = index % 2 === 0;
        await client.read(index * 512, whole.subarray(32, 32 + length), { slack });
        expect(Buffer.compare(whole.subarray(32, 32 + length), disk.subarray(index * 512, index * 512 + length))).toBe(
          0,
        );
        expect(whole.subarray(0, 32).every((byte) => byte === 0xaa)).toBe(true);
        expect(whole.subarray(length + (slack ? 64 : 32)).every((byte) => byte === 0xaa)).toBe(true);
      });
      await Promise.all(reads);
    },
  );

  it("longer than the server takes are split, and come back whole", async () => {
    const disk = randomBytes(1 << 20, 3);
    const seen: SeenRequest[] = [];
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ blockSize: { minimum: 512, preferred: 4096, maximum: 70_000 } });
      await serve(peer, disk, seen);
    });
    await using client = await connectNbd(server.uri);
    expect(client).toMatchObject({ minimumBlock: 512, preferredBlock: 4096, maximumPayload: 69_632 });
    const whole = new Uint8Array(400_000 + 480 + 32).fill(1);
    await client.read(512, whole.subarray(0, 400_384), { slack: true });
    expect(Buffer.compare(whole.subarray(0, 400_384), disk.subarray(512, 512 + 400_384))).toBe(0);
    expect(Math.max(...seen.map(({ length }) => length))).toBe(69_632);
    const buffer = new Uint8Array(32 + 300_032);
    buffer.set(disk.subarray(0, 300_032), 32);
    await client.write(65_536, buffer.subarray(32), { headroom: true });
    expect(Buffer.compare(disk.subarray(65_536, 65_536 + 300_032), buffer.subarray(32))).toBe(0);
  });

  it("go into shared memory", async () => {
    const disk = randomBytes(1 << 20, 4);
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      await serve(peer, disk);
    });
    await using client = await connectNbd(server.uri);
    const shared = new Uint8Array(new SharedArrayBuffer(1 << 20));
    await client.read(0, shared);
    expect(Buffer.compare(shared, disk)).toBe(0);
    await client.write(512, shared.subarray(0, 4096));
    expect(Buffer.compare(shared.subarray(0, 4096), disk.subarray(512, 4608))).toBe(0);
  });

  it("outside the export or off the block size are the caller's mistake", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size: 8192, blockSize: { minimum: 512, preferred: 4096, maximum: 65536 } });
      await serve(peer, new Uint8Array(8192));
    });
    await using client = await connectNbd(server.uri);
    const block = new Uint8Array(512);
    for (const offset of [-512, 8192, 100, 0.5, NaN])
      await expect(client.read(offset, block)).rejects.toThrow(RangeError);
    await expect(client.read(0, new Uint8Array(100))).rejects.toThrow(RangeError);
    await expect(client.zero(4096, 8192)).rejects.toThrow(RangeError);
    await expect(client.read(0, block, { slack: true })).rejects.toThrow(/not followed by 32/);
    await expect(client.write(0, block, { headroom: true })).rejects.toThrow(/not preceded by 32/);
    await client.read(0, new Uint8Array(0));
    await client.read(7680, block);
  });
});

/** What `action` would have sent. */
async function capture(peer: ScriptedPeer, action: () => void): Promise<Buffer> {
  const write = peer.socket.write;
  const parts: Uint8Array[] = [];
  peer.socket.write = (part: Uint8Array | string) => parts.push(Buffer.from(part)) > 0;
  action();
  peer.socket.write = write;
  return Buffer.concat(parts);
}

describe("requests", () => {
  it("carry offsets and lengths beyond 32 bits, and the flags they were asked with", async () => {
    const seen: SeenRequest[] = [];
    const size = 2 ** 52;
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size, style: "extended" });
      await serve(peer, new Uint8Array(0), seen);
    });
    {
      await using client = await connectNbd(server.uri);
      expect(client.size).toBe(size);
      await client.trim(2 ** 51 + 4096, 8192, { fua: true });
      await client.zero(2 ** 32 - 512, 1024, { noHole: true, fast: true });
      await client.cache(2 ** 33, 512);
      await client.write(2 ** 40, new Uint8Array(512).fill(3), { fua: true });
      await client.flush();
    }
    expect(seen.map(({ type, flags, offset, length }) => [type, flags, offset, length])).toEqual([
      [command.trim, commandFlag.fua, 2 ** 51 + 4096, 8192],
      [command.writeZeroes, commandFlag.noHole | commandFlag.fastZero, 2 ** 32 - 512, 1024],
      [command.cache, 0, 2 ** 33, 512],
      [command.write, commandFlag.fua | commandFlag.payloadLength, 2 ** 40, 512],
      [command.flush, 0, 0, 0],
      [command.disconnect, 0, 0, 0],
    ]);
    expect(seen[3]?.data.every((byte) => byte === 3)).toBe(true);
  });

  it("of which at most maxInFlight are under way", async () => {
    let most = 0;
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const pending: SeenRequest[] = [];
      let answered = 0;
      while (answered < 50) {
        pending.push(await peer.request());
        most = Math.max(most, pending.length);
        if (pending.length === 3 || answered + pending.length === 50) {
          // Time for a request too many to come in.
          await new Promise((resolve) => setTimeout(resolve, 1));
          for (const request of pending.splice(0).reverse()) {
            answered++;
            peer.done(request);
          }
        }
      }
    });
    await using client = await connectNbd(server.uri, { maxInFlight: 3 });
    await Promise.all(Array.from({ length: 50 }, (_, index) => client.trim(512 * index, 512)));
    expect(most).toBe(3);
  });

  it("whose error the server answers reject alone, typed, and the session goes on", async () => {
    const names = Object.keys(errorNumber).filter((name) => name !== "ESHUTDOWN");
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      for (const name of names) {
        const request = await peer.request();
        const text = Buffer.from("bad sector\n");
        const error = Buffer.concat([bytes32(errorNumber[name as "EIO"]), Buffer.from([0, text.byteLength]), text]);
        peer.reply(request, 0x8002, Buffer.concat([error, bytes64(0, 4096)]), 0);
        peer.content(request, 0, new Uint8Array(512));
        peer.done(request);
      }
      await serve(peer, new Uint8Array(4096));
    });
    await using client = await connectNbd(server.uri);
    const codes: Record<string, string> = {};
    for (const name of names) {
      const failure: unknown = await client.read(0, new Uint8Array(8192)).catch((error: unknown) => error);
      expect(failure).toMatchObject({ cause: { code: name, errno: errorNumber[name as "EIO"], offset: 4096 } });
      expect(String(failure)).toContain("bad sector");
      if (isProviderError(failure)) codes[name] = `${failure.code}${failure.retryable ? " retryable" : ""}`;
    }
    expect(codes).toEqual({
      EPERM: "DENIED",
      EIO: "UNEXPECTED retryable",
      ENOMEM: "UNEXPECTED retryable",
      EINVAL: "UNEXPECTED",
      ENOSPC: "UNEXPECTED",
      EOVERFLOW: "UNSUPPORTED",
      ENOTSUP: "UNSUPPORTED",
    });
    await client.read(0, new Uint8Array(512));
  });

  it("answered with ESHUTDOWN end the session, with a clean disconnect", async () => {
    let after: SeenRequest | undefined;
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const request = await peer.request();
      await peer.request();
      peer.simple(request, errorNumber.ESHUTDOWN);
      after = await peer.request();
    });
    await using client = await connectNbd(server.uri);
    const both = [client.flush(), client.trim(0, 512)];
    expect(await Promise.all(both.map(codeOf))).toEqual(["UNAVAILABLE", "UNAVAILABLE"]);
    await server.peers[0]?.closed();
    expect(after?.type).toBe(command.disconnect);
  });

  it("that the export cannot do are refused before anything is sent", async () => {
    const seen: SeenRequest[] = [];
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ flags: peer === server.peers[0] ? 1 : 3 });
      await serve(peer, new Uint8Array(4096), seen);
    });
    const data = new Uint8Array(512);
    {
      await using plain = await connectNbd(server.uri);
      for (const attempt of [plain.flush(), plain.trim(0, 512), plain.zero(0, 512), plain.cache(0, 512)]) {
        expect(await codeOf(attempt)).toBe("UNSUPPORTED");
      }
      expect(await codeOf(plain.write(0, data, { fua: true }))).toBe("UNSUPPORTED");
      await plain.write(0, data);
    }
    await using readOnly = await connectNbd(server.uri);
    expect(readOnly.readOnly).toBe(true);
    expect(await codeOf(readOnly.write(0, data))).toBe("DENIED");
    expect(await codeOf(readOnly.zero(0, 512))).toBe("DENIED");
    expect(seen.map(({ type }) => type)).toEqual([command.write, command.disconnect]);
  });

  it("with FUA are followed by a flush where the server has no FUA", async () => {
    const seen: SeenRequest[] = [];
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ flags: everyFlag & ~8 });
      await serve(peer, new Uint8Array(4096), seen);
    });
    await using client = await connectNbd(server.uri);
    await client.write(0, new Uint8Array(512), { fua: true });
    expect(seen.map(({ type, flags }) => [type, flags])).toEqual([
      [command.write, 0],
      [command.flush, 0],
    ]);
  });

  it("that zero or trim more than 1 GiB are split", async () => {
    const seen: SeenRequest[] = [];
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size: 3 * 2 ** 30 });
      await serve(peer, new Uint8Array(0), seen);
    });
    await using client = await connectNbd(server.uri);
    await client.zero(0, 2 ** 31 + 512);
    expect(seen.map(({ offset, length }) => [offset, length])).toEqual([
      [0, 2 ** 30],
      [2 ** 30, 2 ** 30],
      [2 ** 31, 512],
    ]);
  });

  it("before closing are let finish, and then DISC is sent", async () => {
    const seen: SeenRequest[] = [];
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const request = await peer.request();
      await new Promise((resolve) => setTimeout(resolve, 30));
      peer.done(request);
      await serve(peer, new Uint8Array(0), seen);
    });
    const client = await connectNbd(server.uri);
    const flushed = client.flush();
    await client.close();
    await flushed;
    expect(seen.map(({ type }) => type)).toEqual([command.disconnect]);
    expect(await codeOf(client.flush())).toBe("UNAVAILABLE");
    await client.close();
  });
});

describe("several connections", () => {
  const flags = everyFlag | transmissionFlag.canMultiConnection;

  it("are one session: when one of them dies, no flush on another speaks for its writes", async () => {
    const flushes: SeenRequest[] = [];
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ flags });
      for (;;) {
        const request = await peer.request();
        if (request.type === command.flush) flushes.push(request);
        peer.done(request);
      }
    });
    await using client = await connectNbd(server.uri, { connections: 2 });
    expect(client.connections).toBe(2);
    await Promise.all([client.write(0, new Uint8Array(512)), client.write(512, new Uint8Array(512))]);
    await client.flush();
    const [first, second] = server.peers;
    const idle = flushes.length;
    second?.socket.destroy();
    await second?.closed();
    // The client may not know of it yet, but it must not say that all is durable once it does.
    let code = "none";
    for (let round = 0; round < 50 && code === "none"; round++) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      code = await codeOf(client.flush());
    }
    expect(code).toBe("UNAVAILABLE");
    expect(await codeOf(client.read(0, new Uint8Array(512)))).toBe("UNAVAILABLE");
    expect(idle).toBe(1);
    await first?.closed();
  });

  it("to exports that differ are refused", async () => {
    let size = 4096;
    await using server = await startScripted((peer) => peer.handshake({ flags, size: (size += 4096) }));
    expect(await codeOf(connectNbd(server.uri, { connections: 2 }))).toBe("UNEXPECTED");
  });
});

describe("the status of a range", () => {
  const pair = (length: number, flags: number): Buffer => Buffer.concat([bytes32(length), bytes32(flags)]);

  it("is aligned over contexts that answer in other extents, shorter and longer than asked", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size: 10_000, contexts: ["base:allocation", "qemu:dirty-bitmap:b"] });
      let request = await peer.request();
      peer.reply(request, 5, Buffer.concat([bytes32(2), pair(1000, 1), pair(500, 0)]), 0);
      peer.reply(request, 5, Buffer.concat([bytes32(1), pair(700, 3), pair(3000, 0), pair(4000, 0)]));
      request = await peer.request();
      peer.reply(request, 5, Buffer.concat([bytes32(1), pair(4_000_000, 0)]), 0);
      peer.reply(request, 5, Buffer.concat([bytes32(2), pair(100, 0), pair(5000, 1), pair(9000, 0)]));
    });
    await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation", "qemu:dirty-bitmap:b"] });
    const extents = [];
    for await (const { offset, length, flags } of client.blockStatus(0, 10_000)) {
      extents.push([offset, length, flags["base:allocation"], flags["qemu:dirty-bitmap:b"]]);
    }
    expect(extents).toEqual([
      [0, 700, 3, 1],
      [700, 300, 0, 1],
      [1000, 600, 0, 0],
      [1600, 5000, 0, 1],
      [6600, 3400, 0, 0],
    ]);
  });

  it("can be asked of one context alone, also where the server answers all", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size: 4096, contexts: ["base:allocation", "x:y"] });
      const request = await peer.request();
      peer.reply(request, 5, Buffer.concat([bytes32(1), pair(1024, 0), pair(3072, 2)]), 0);
      peer.reply(request, 5, Buffer.concat([bytes32(2), pair(4096, 7)]));
    });
    await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation", "x:y"] });
    const extents = await collect(client.blockStatus(0, 4096, { contexts: ["x:y"] }));
    expect(extents).toEqual([{ offset: 0, length: 4096, flags: { "x:y": 7 } }]);
  });

  it("of 64 bits is asked in one request, with the contexts named where the server takes that", async () => {
    const size = 2 ** 45;
    let seen: SeenRequest | undefined;
    await using server = await startScripted(async (peer) => {
      const flags = everyFlag | (1 << 12);
      await peer.handshake({ size, flags, style: "extended", contexts: ["base:allocation", "x:y"] });
      const request = await peer.request();
      seen = request;
      const extent = Buffer.concat([bytes64(2 ** 13, 0), bytes64(0, 5)]);
      peer.reply(request, 6, Buffer.concat([bytes32(2), bytes32(1), extent]));
    });
    await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation", "x:y"] });
    const extents = await collect(client.blockStatus(0, size, { contexts: ["x:y"] }));
    expect(extents).toEqual([{ offset: 0, length: size, flags: { "x:y": 5 } }]);
    expect(seen).toMatchObject({ flags: commandFlag.payloadLength, length: 12 });
    expect(seen?.data).toEqual(Buffer.concat([bytes64(2 ** 13, 0), bytes32(2)]));
  });

  it("of a context that was not granted is UNSUPPORTED, by name", async () => {
    await using server = await startScripted((peer) => peer.handshake({ contexts: ["base:allocation"] }));
    await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation", "qemu:dirty-bitmap:b"] });
    expect(client.metaContexts).toEqual(["base:allocation"]);
    const status = collect(client.blockStatus(0, 512, { contexts: ["qemu:dirty-bitmap:b"] }));
    await expect(status).rejects.toThrow(/did not grant qemu:dirty-bitmap:b/);
  });
});
