import { isProviderError } from "@diskferry/core/provider";
import type { ProviderErrorCode } from "@diskferry/core/provider";
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { NbdClient } from "../../src/client/client.ts";
import { connectNbd, listNbdExports } from "../../src/client/connect.ts";
import type { NbdConnectOptions } from "../../src/client/connect.ts";
import { greetingMagic, infoType, oldstyleMagic, option, optionReply } from "../../src/protocol.ts";
import { bytes16, bytes32, bytes64, optionReplyOf, startScripted } from "./scripted-server.ts";
import type { ScriptedExport, ScriptedPeer, SeenRequest } from "./scripted-server.ts";

/** Never reached: the server's fault shows at once. */
const quick: NbdConnectOptions = { connectTimeoutMs: 20_000, requestTimeoutMs: 20_000 };
/** For servers that keep silent: the deadline is what shows. */
const short: NbdConnectOptions = { connectTimeoutMs: 500, requestTimeoutMs: 500 };

function patienceFor(message: RegExp): NbdConnectOptions {
  return message.source.includes("within") ? short : quick;
}

async function failureOf(
  promise: Promise<unknown>,
): Promise<{ code: ProviderErrorCode; message: string; retryable: boolean }> {
  try {
    await promise;
  } catch (error) {
    if (isProviderError(error)) return error;
    throw error;
  }
  throw new Error("did not fail");
}

describe("a handshake with a bad server", () => {
  const cases: [string, ProviderErrorCode, RegExp, (peer: ScriptedPeer) => Promise<void> | void][] = [
    [
      "that is no NBD server",
      "UNSUPPORTED",
      /no NBD server/,
      (peer) => peer.send(Buffer.from("SSH-2.0-OpenSSH_9.2\r\n")),
    ],
    [
      "that is oldstyle",
      "UNSUPPORTED",
      /oldstyle/,
      (peer) => peer.send(bytes64(...greetingMagic), bytes64(...oldstyleMagic), Buffer.alloc(136)),
    ],
    [
      "of an unknown style",
      "UNSUPPORTED",
      /no NBD that we know/,
      (peer) => peer.send(bytes64(...greetingMagic), Buffer.alloc(10)),
    ],
    ["that says nothing", "UNAVAILABLE", /not connected within 500 ms/, () => undefined],
    ["that closes at once", "UNAVAILABLE", /closed/, (peer) => void peer.socket.destroy()],
    [
      "that resets",
      "UNAVAILABLE",
      /closed|broke|cannot connect/,
      (peer) => {
        peer.send(Buffer.alloc(3));
        peer.socket.resetAndDestroy();
      },
    ],
    ["that says nothing after its greeting", "UNAVAILABLE", /not connected within 500 ms/, (peer) => peer.greet()],
    [
      "that sends garbage after its greeting",
      "UNEXPECTED",
      /garbage/,
      (peer) => {
        peer.greet();
        peer.send(randomBytes(64, 3));
      },
    ],
    [
      "that never stops sending",
      "UNEXPECTED",
      /garbage/,
      async (peer) => {
        peer.greet();
        for (let index = 0; index < 64; index++) peer.send(randomBytes(65536, index));
      },
    ],
    [
      "that answers another option",
      "UNEXPECTED",
      /another option/,
      async (peer) => {
        peer.greet();
        await peer.take(4);
        await peer.option();
        peer.optionReply(option.list, optionReply.acknowledge);
      },
    ],
    [
      "whose option reply claims 4 GiB",
      "UNEXPECTED",
      /claims 4294967295 bytes/,
      async (peer) => {
        peer.greet();
        await peer.take(4);
        const { type } = await peer.option();
        const reply = optionReplyOf(type, optionReply.unsupported, Buffer.alloc(0));
        reply.writeUInt32BE(0xffff_ffff, 16);
        peer.send(reply);
      },
    ],
    [
      "that demands TLS",
      "CONFIG_INVALID",
      /demands TLS/,
      async (peer) => {
        peer.greet();
        await peer.take(4);
        const { type } = await peer.option();
        peer.optionReply(type, optionReply.tlsRequired);
      },
    ],
    [
      "that does not have the export",
      "NOT_FOUND",
      /no export "disk".*who knows/,
      async (peer) => {
        await answerOptions(peer, (type) => peer.optionReply(type, optionReply.unknown, Buffer.from("who\nknows")));
      },
    ],
    [
      "whose policy forbids it",
      "DENIED",
      /policy/,
      async (peer) => {
        await answerOptions(peer, (type) => peer.optionReply(type, optionReply.policy));
      },
    ],
    [
      "that shuts down",
      "UNAVAILABLE",
      /shutting down/,
      async (peer) => {
        await answerOptions(peer, (type) => peer.optionReply(type, optionReply.shutdown));
      },
    ],
    [
      "that never tells the size",
      "UNEXPECTED",
      /did not tell the size/,
      async (peer) => {
        await answerOptions(peer, (type) => peer.optionReply(type, optionReply.acknowledge));
      },
    ],
    [
      "whose export is beyond reason",
      "UNEXPECTED",
      /8 PiB/,
      async (peer) => {
        await answerOptions(peer, (type) => {
          const info = Buffer.concat([bytes16(infoType.export), bytes64(0x8000_0000, 0), bytes16(1)]);
          peer.optionReply(type, optionReply.info, info);
        });
      },
    ],
    [
      "whose block sizes are impossible",
      "UNEXPECTED",
      /block sizes/,
      async (peer) => {
        await peer.handshake({ blockSize: { minimum: 3, preferred: 4096, maximum: 65536 } });
      },
    ],
    [
      "whose infos have no end",
      "UNEXPECTED",
      /no end/,
      async (peer) => {
        await answerOptions(peer, (type) => {
          const info = optionReplyOf(
            type,
            optionReply.info,
            Buffer.concat([bytes16(infoType.name), Buffer.alloc(4096)]),
          );
          const many = Buffer.concat(Array.from({ length: 64 }, () => info));
          for (let index = 0; index < 80; index++) peer.send(many);
        });
      },
    ],
    [
      "that grants what nobody asked for",
      "UNEXPECTED",
      /unasked/,
      async (peer) => {
        await peer.handshake({ contexts: ["base:allocation", "x-other:thing"] });
      },
    ],
  ];

  it.each(cases)("%s is a ProviderError %s", async (_what, code, message, script) => {
    await using server = await startScripted(script);
    const options: NbdConnectOptions = { ...patienceFor(message), metaContexts: ["base:allocation"] };
    const failure = await failureOf(connectNbd(server.uri, options));
    expect(failure.message).toMatch(message);
    expect(failure.code).toBe(code);
    expect(server.faults).toEqual([]);
  });

  it("ends when the caller aborts, with the caller's reason", async () => {
    await using server = await startScripted((peer) => peer.greet());
    const abort = new AbortController();
    const reason = new Error("changed my mind");
    const attempt = connectNbd(server.uri, { signal: abort.signal });
    setTimeout(() => abort.abort(reason), 20);
    await expect(attempt).rejects.toBe(reason);
    await expect(connectNbd(server.uri, { signal: abort.signal })).rejects.toBe(reason);
  });

  it("of a list without end gives up", async () => {
    await using server = await startScripted(async (peer) => {
      peer.greet();
      await peer.take(4);
      const { type } = await peer.option();
      const item = optionReplyOf(type, optionReply.server, Buffer.concat([bytes32(1000), Buffer.alloc(1000, 97)]));
      const many = Buffer.concat(Array.from({ length: 256 }, () => item));
      for (let index = 0; index < 80; index++) peer.send(many);
    });
    expect((await failureOf(listNbdExports(server.uri, quick))).message).toMatch(/no end/);
  });

  it("where nobody listens is UNAVAILABLE and says where", async () => {
    const free = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => free.once("listening", resolve));
    const { port } = free.address() as { port: number };
    await new Promise((resolve) => free.close(resolve));
    const failure = await failureOf(connectNbd(`nbd://127.0.0.1:${port}/disk`, quick));
    expect(failure).toMatchObject({ code: "UNAVAILABLE", retryable: true });
    expect(failure.message).toContain(`nbd://127.0.0.1:${port}/disk`);
    expect((await failureOf(connectNbd("nbd+unix:///?socket=/nowhere/at/all", quick))).code).toBe("UNAVAILABLE");
  });

  it("takes the way of old servers where GO is unknown", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ exportNameOnly: true, size: 4096, style: "simple" });
      const request = await peer.request();
      peer.simple(request, 0, Buffer.alloc(request.length, 5));
    });
    await using client = await connectNbd(server.uri, quick);
    expect(client).toMatchObject({ size: 4096, replies: "simple", minimumBlock: 1, maximumPayload: 32 * 1024 * 1024 });
    const into = new Uint8Array(4096);
    await client.read(0, into);
    expect(into.every((byte) => byte === 5)).toBe(true);
  });

  it("never asks for EXPORT_NAME once extended headers are agreed on", async () => {
    await using server = await startScripted((peer) => peer.handshake({ exportNameOnly: true, style: "extended" }));
    await failureOf(connectNbd(server.uri, quick));
    expect(server.peers[0]?.options).not.toContain(option.exportName);
  });
});

async function answerOptions(peer: ScriptedPeer, onGo: (type: number) => void): Promise<void> {
  peer.greet();
  await peer.take(4);
  for (;;) {
    const { type } = await peer.option();
    if (type === option.go) onGo(type);
    else peer.optionReply(type, optionReply.unsupported);
  }
}

describe("a reply against the protocol", () => {
  const length = 65536;
  const data = randomBytes(length, 11);
  type Script = (peer: ScriptedPeer, request: SeenRequest) => Promise<void> | void;
  const reads: [string, ScriptedExport, RegExp, Script][] = [
    ["with a wrong magic", {}, /begins with/, (peer) => peer.send(Buffer.alloc(64, 0xee))],
    [
      "with an unknown cookie",
      {},
      /not under way/,
      (peer, request) => peer.done({ ...request, cookie: Buffer.alloc(8, 9) }),
    ],
    [
      "with the high half of the cookie set",
      {},
      /not under way/,
      (peer, request) => {
        const cookie = Buffer.from(request.cookie);
        cookie[0] = 1;
        peer.done({ ...request, cookie });
      },
    ],
    [
      "that is simple where structured ones were agreed on",
      {},
      /simple reply to a read/,
      (peer, request) => peer.simple(request, 0, data),
    ],
    [
      "that is structured where simple ones were agreed on",
      { style: "simple" },
      /begins with/,
      (peer, request) => peer.content(request, 0, data, 1),
    ],
    ["of an unknown type", {}, /type 77/, (peer, request) => peer.reply(request, 77)],
    ["that tells a status of a read", {}, /type 5/, (peer, request) => peer.reply(request, 5, Buffer.alloc(12))],
    ["that is empty with a payload", {}, /empty reply/, (peer, request) => peer.reply(request, 0, Buffer.alloc(4))],
    [
      "that is empty and not the last",
      {},
      /empty reply/,
      (peer, request) => peer.reply(request, 0, Buffer.alloc(0), 0),
    ],
    [
      "with content of no bytes",
      {},
      /content of 0 bytes/,
      (peer, request) => peer.content(request, 0, Buffer.alloc(0), 1),
    ],
    [
      "longer than asked for",
      {},
      /content of 65537 bytes/,
      (peer, request) => peer.content(request, 0, Buffer.alloc(length + 1), 1),
    ],
    [
      "that claims 4 GiB of content",
      {},
      /content of 4294967287 bytes/,
      (peer, request) => peer.send(peer.replyHeader(request, 1, 0xffff_ffff)),
    ],
    ["with content before the request", {}, /outside/, (peer, request) => peer.content(request, 0, Buffer.alloc(512))],
    [
      "with content beyond the request",
      {},
      /outside/,
      (peer, request) => peer.content(request, 4096 + length - 1, Buffer.alloc(512)),
    ],
    [
      "with content at an absurd offset",
      {},
      /outside/,
      (peer, request) => peer.reply(request, 1, Buffer.concat([Buffer.alloc(8, 0xff), Buffer.alloc(512)]), 0),
    ],
    [
      "with content that comes twice",
      {},
      /overlaps/,
      (peer, request) => {
        peer.content(request, 4096, data.subarray(0, 1024));
        peer.content(request, 4096 + 512, data.subarray(0, 1024));
      },
    ],
    [
      "with a hole over content",
      {},
      /overlaps/,
      (peer, request) => {
        peer.content(request, 4096 + 512, data.subarray(0, 512));
        peer.hole(request, 4096, length);
      },
    ],
    ["with a hole of no bytes", {}, /outside/, (peer, request) => peer.hole(request, 4096, 0)],
    [
      "with a hole that is not 12 bytes",
      {},
      /hole described in 13/,
      (peer, request) => peer.reply(request, 2, Buffer.alloc(13)),
    ],
    [
      "that lacks the end",
      {},
      /is not/,
      (peer, request) => {
        peer.content(request, 4096, data.subarray(0, length - 1));
        peer.done(request);
      },
    ],
    [
      "that lacks the beginning",
      {},
      /is not/,
      (peer, request) => {
        peer.content(request, 4097, data.subarray(1));
        peer.done(request);
      },
    ],
    ["that lacks everything", {}, /is not/, (peer, request) => peer.done(request)],
    [
      "with a malformed error",
      {},
      /malformed error/,
      (peer, request) => peer.reply(request, 0x8001, Buffer.concat([bytes32(5), bytes16(9)])),
    ],
    [
      "with an error that is none",
      {},
      /malformed error/,
      (peer, request) => peer.reply(request, 0x8001, Buffer.alloc(6)),
    ],
    [
      "with an error of megabytes",
      {},
      /error reply of 1048576/,
      (peer, request) => peer.send(peer.replyHeader(request, 0x8001, 1 << 20)),
    ],
    [
      "extended, with another offset",
      { style: "extended" },
      /another offset/,
      (peer, request) => peer.done({ ...request, offset: 1 }),
    ],
    [
      "extended, of 4 GiB",
      { style: "extended" },
      /4 GiB/,
      (peer, request) => {
        const header = peer.replyHeader(request, 1, 100);
        header.writeUInt32BE(1, 24);
        peer.send(header);
      },
    ],
    [
      "that is cut in its header",
      {},
      /closed/,
      (peer, request) => {
        peer.send(peer.replyHeader(request, 1, length + 8).subarray(0, 7));
        peer.socket.end();
      },
    ],
    [
      "that is cut in its content",
      {},
      /closed/,
      (peer, request) => {
        peer.send(peer.replyHeader(request, 1, length + 8), bytes64(0, 4096), data.subarray(0, 5000));
        peer.socket.end();
      },
    ],
    ["that never comes", {}, /no answer within 500 ms/, () => undefined],
    [
      "that stops in its content",
      {},
      /no answer within 500 ms/,
      (peer, request) => {
        peer.send(peer.replyHeader(request, 1, length + 8), bytes64(0, 4096), data.subarray(0, 5000));
      },
    ],
    [
      "that trickles",
      {},
      /no answer within 500 ms/,
      async (peer, request) => {
        peer.send(peer.replyHeader(request, 1, length + 8), bytes64(0, 4096));
        while (!peer.socket.destroyed) {
          peer.send(Buffer.alloc(1));
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      },
    ],
  ];

  it.each(reads)("%s ends the session with UNAVAILABLE", async (_what, offered, message, script) => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake(offered);
      const request = await peer.request();
      await script(peer, request);
    });
    await using client = await connectNbd(server.uri, {
      ...quick,
      requestTimeoutMs: patienceFor(message).requestTimeoutMs,
    });
    const first = failureOf(client.read(4096, new Uint8Array(length)));
    const second = failureOf(client.flush());
    expect(await first).toMatchObject({ code: "UNAVAILABLE", retryable: true });
    expect((await first).message).toMatch(message);
    expect((await first).message).toContain(server.uri);
    expect(await second).toMatchObject({ code: "UNAVAILABLE", retryable: true });
    expect((await failureOf(client.read(0, new Uint8Array(512)))).code).toBe("UNAVAILABLE");
    expect(server.faults).toEqual([]);
  });

  it("that comes twice ends the session", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const request = await peer.request();
      peer.content(request, 0, Buffer.alloc(512), 1);
      peer.content(request, 0, Buffer.alloc(512), 1);
    });
    await using client = await connectNbd(server.uri, quick);
    await client.read(0, new Uint8Array(512));
    expect((await failureOf(client.read(0, new Uint8Array(512)))).message).toMatch(/not under way/);
  });

  it("that nobody asked for ends the session", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      peer.send(Buffer.alloc(20));
    });
    await using client = await connectNbd(server.uri, quick);
    expect((await failureOf(client.flush())).message).toMatch(/broke the protocol/);
  });

  it("fragmented in spite of DF ends the session", async () => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake();
      const request = await peer.request();
      peer.content(request, 0, Buffer.alloc(256));
      peer.content(request, 256, Buffer.alloc(256), 1);
    });
    await using client = await connectNbd(server.uri, quick);
    const failure = await failureOf(client.read(0, new Uint8Array(512), { dontFragment: true }));
    expect(failure.message).toMatch(/fragmented/);
  });

  const statuses: [string, RegExp, Script][] = [
    ["of an unknown context", /not asked for/, (peer, request) => peer.reply(request, 5, status(7, [[4096, 0]]))],
    [
      "of one context twice",
      /not asked for, or twice/,
      (peer, request) => {
        peer.reply(request, 5, status(1, [[4096, 0]]), 0);
        peer.reply(request, 5, status(1, [[4096, 0]]), 0);
      },
    ],
    ["that lacks a context", /without all contexts/, (peer, request) => peer.reply(request, 5, status(1, [[4096, 0]]))],
    ["that lacks all contexts", /without all contexts/, (peer, request) => peer.done(request)],
    [
      "with an extent of no bytes",
      /status of no bytes/,
      (peer, request) => peer.reply(request, 5, status(1, [[0, 0]]), 0),
    ],
    ["with no extent", /status reply of 4/, (peer, request) => peer.reply(request, 5, bytes32(1))],
    ["with half an extent", /status reply of 8/, (peer, request) => peer.reply(request, 5, Buffer.alloc(8))],
    [
      "with more than 2^20 extents",
      /status reply of 8388620/,
      (peer, request) => peer.send(peer.replyHeader(request, 5, 4 + 8 * (2 ** 20 + 1))),
    ],
    ["in the extended form", /type 6/, (peer, request) => peer.reply(request, 6, Buffer.alloc(24))],
    ["in a simple reply", /simple reply to a status/, (peer, request) => peer.simple(request)],
  ];

  it.each(statuses)("to a status request, %s, ends the session", async (_what, message, script) => {
    await using server = await startScripted(async (peer) => {
      await peer.handshake({ contexts: ["base:allocation", "qemu:allocation-depth"] });
      await script(peer, await peer.request());
    });
    const metaContexts = ["base:allocation", "qemu:allocation-depth"];
    await using client = await connectNbd(server.uri, { ...quick, metaContexts });
    const failure = await failureOf(drain(client));
    expect(failure.message).toMatch(message);
    expect(failure.code).toBe("UNAVAILABLE");
    expect(server.faults).toEqual([]);
  });
});

export function status(context: number, extents: [number, number][]): Buffer {
  return Buffer.concat([bytes32(context), ...extents.flatMap(([length, flags]) => [bytes32(length), bytes32(flags)])]);
}

async function drain(client: NbdClient): Promise<void> {
  for await (const extent of client.blockStatus(0, client.size)) expect(extent.length).toBeGreaterThan(0);
}
