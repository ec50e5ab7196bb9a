import { isProviderError } from "@diskferry/core/provider";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { connectNbd } from "../../src/client/connect.ts";
import { command } from "../../src/protocol.ts";
import { bytes64, startScripted } from "./scripted-server.ts";
import type { ScriptedPeer, SeenRequest } from "./scripted-server.ts";

const length = 1 << 20;
const data = randomBytes(length, 21);
const reason = new Error("no longer wanted");

/** Sends the header and the first half of a read's content; the rest goes out when `rest` is called. */
function half(peer: ScriptedPeer, request: SeenRequest): () => void {
  peer.send(peer.replyHeader(request, 1, length + 8), bytes64(0, request.offset), data.subarray(0, length / 2));
  return () => peer.send(data.subarray(length / 2));
}

function unlessSettled(promise: Promise<unknown>): Promise<string> {
  return Promise.race([
    promise.then(
      () => "done",
      () => "failed",
    ),
    sleep(100, "still waiting"),
  ]);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(2);
}

describe("a read that is given up", () => {
  it("before it was sent is never sent", async () => {
    const seen: SeenRequest[] = [];
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      for (;;) {
        const request = await peer.request();
        seen.push(request);
        if (seen.length === 1) await sleep(50);
        if (request.type === command.read) peer.content(request, request.offset, data.subarray(0, request.length), 1);
      }
    });
    await using client = await connectNbd(server.uri, { maxInFlight: 1 });
    const abort = new AbortController();
    const first = client.read(0, new Uint8Array(512));
    const second = client.read(512, new Uint8Array(512), { signal: abort.signal });
    const third = client.read(1024, new Uint8Array(512));
    abort.abort(reason);
    await expect(second).rejects.toBe(reason);
    await Promise.all([first, third]);
    expect(seen.map(({ offset }) => offset)).toEqual([0, 1024]);
    await expect(client.read(0, new Uint8Array(512), { signal: abort.signal })).rejects.toBe(reason);
  });

  it("before its reply came rejects at once, and its late content goes nowhere", async () => {
    let answer: (() => void) | undefined;
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const first = await peer.request();
      const second = await peer.request();
      answer = () => {
        peer.content(first, 0, data, 1);
        peer.content(second, 0, data, 1);
      };
    });
    await using client = await connectNbd(server.uri);
    const abort = new AbortController();
    const into = new Uint8Array(length);
    const other = new Uint8Array(length);
    const given = client.read(0, into, { signal: abort.signal });
    const kept = client.read(0, other);
    await until(() => answer !== undefined);
    abort.abort(reason);
    await expect(given).rejects.toBe(reason);
    answer?.();
    await kept;
    expect(Buffer.compare(other, data)).toBe(0);
    expect(into.every((byte) => byte === 0)).toBe(true);
  });

  it("while the kernel writes into it settles only once the connection moved on", async () => {
    let rest: (() => void) | undefined;
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      rest = half(peer, await peer.request());
      const second = await peer.request();
      peer.hole(second, second.offset, second.length, 1);
    });
    await using client = await connectNbd(server.uri);
    const abort = new AbortController();
    const into = new Uint8Array(length);
    const given = client.read(0, into, { signal: abort.signal });
    await until(() => into[length / 2 - 1] === data[length / 2 - 1]);
    abort.abort(reason);
    expect(await unlessSettled(given)).toBe("still waiting");
    rest?.();
    await expect(given).rejects.toBe(reason);
    // The memory is the caller's again: whatever is still on its way must not land in it.
    into.fill(0xaa);
    const other = new Uint8Array(512).fill(1);
    await client.read(0, other);
    expect(other.every((byte) => byte === 0)).toBe(true);
    expect(into.every((byte) => byte === 0xaa)).toBe(true);
  });

  it("while a silent server owes its content settles when the deadline ends the session", async () => {
    let rest: (() => void) | undefined;
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      rest = half(peer, await peer.request());
    });
    await using client = await connectNbd(server.uri, { requestTimeoutMs: 300 });
    const abort = new AbortController();
    const into = new Uint8Array(length);
    const given = client.read(0, into, { signal: abort.signal });
    await until(() => into[length / 2 - 1] === data[length / 2 - 1]);
    abort.abort(reason);
    await expect(given).rejects.toBe(reason);
    into.fill(0xaa);
    rest?.();
    await sleep(50);
    expect(into.every((byte) => byte === 0xaa)).toBe(true);
    const later = await client.flush().catch((error: unknown) => error);
    expect(isProviderError(later) && later.code).toBe("UNAVAILABLE");
  });

  it("by its own deadline ends the session, sooner than the session's deadline would", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      await peer.closed();
    });
    await using client = await connectNbd(server.uri);
    const other = client.read(512, new Uint8Array(512)).catch((error: unknown) => error);
    const failure = await client.read(0, new Uint8Array(512), { timeoutMs: 50 }).catch((error: unknown) => error);
    expect(isProviderError(failure) && failure.message).toMatch(/no answer within 50 ms/);
    expect(isProviderError(await other)).toBe(true);
  });

  it("sixteen at once, by one signal, leave a session that works and no warning", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): unknown => warnings.push(warning);
    process.on("warning", onWarning);
    let answer: (() => void) | undefined;
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const requests: SeenRequest[] = [];
      for (let index = 0; index < 16; index++) requests.push(await peer.request());
      answer = () => requests.forEach((request) => peer.content(request, request.offset, data.subarray(0, 4096), 1));
      const last = await peer.request();
      peer.content(last, 0, data.subarray(0, 512), 1);
    });
    await using client = await connectNbd(server.uri);
    const abort = new AbortController();
    const reads = Array.from({ length: 16 }, () => client.read(0, new Uint8Array(4096), { signal: abort.signal }));
    const ends = Promise.allSettled(reads);
    await until(() => answer !== undefined);
    abort.abort(reason);
    expect((await ends).every((end) => end.status === "rejected" && end.reason === reason)).toBe(true);
    const last = client.read(0, new Uint8Array(512));
    expect(await unlessSettled(last)).toBe("still waiting");
    answer?.();
    await last;
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });
});

describe("a write that is given up", () => {
  const large = randomBytes(32 << 20, 22);

  it("while the socket still needs its bytes settles only when they are sent", async () => {
    let go: (() => void) | undefined;
    let received: SeenRequest | undefined;
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size: 64 << 20 });
      peer.socket.pause();
      await new Promise<void>((resolve) => (go = resolve));
      peer.socket.resume();
      received = await peer.request();
      peer.done(received);
    });
    await using client = await connectNbd(server.uri);
    const abort = new AbortController();
    await until(() => go !== undefined);
    const mine = large.slice();
    const given = client.write(0, mine, { signal: abort.signal });
    abort.abort(reason);
    expect(await unlessSettled(given)).toBe("still waiting");
    go?.();
    await expect(given).rejects.toBe(reason);
    mine.fill(0);
    await until(() => received !== undefined);
    expect(Buffer.compare(received?.data ?? Buffer.alloc(0), large)).toBe(0);
  });

  it("or answered too early keeps its bytes until they are sent", async () => {
    let go: (() => void) | undefined;
    let received: Buffer | undefined;
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size: 64 << 20 });
      const header = await peer.take(28);
      peer.socket.pause();
      peer.done({ type: 1, flags: 0, cookie: header.subarray(8, 16), offset: 0, length: 0, data: header });
      await new Promise<void>((resolve) => (go = resolve));
      peer.socket.resume();
      received = await peer.take(large.byteLength);
    });
    await using client = await connectNbd(server.uri);
    const mine = large.slice();
    const written = client.write(0, mine);
    await until(() => go !== undefined);
    expect(await unlessSettled(written)).toBe("still waiting");
    go?.();
    await written;
    mine.fill(0);
    await until(() => received !== undefined);
    expect(Buffer.compare(received ?? Buffer.alloc(0), large)).toBe(0);
  });

  it("and of which the server reads nothing ends with the deadline", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ size: 64 << 20 });
      peer.socket.pause();
    });
    await using client = await connectNbd(server.uri, { requestTimeoutMs: 300 });
    const failure = await client.write(0, large).catch((error: unknown) => error);
    expect(isProviderError(failure) && failure.code).toBe("UNAVAILABLE");
  });
});

describe("closing", () => {
  it("while the server keeps silent ends in spite of it, and rejects what was under way", async () => {
    await using server = await startScripted((peer) => peer.handshake());
    const client = await connectNbd(server.uri, { requestTimeoutMs: 600 });
    const flushed = client.flush().catch((error: unknown) => error);
    await client.close();
    expect(isProviderError(await flushed)).toBe(true);
  });
});
