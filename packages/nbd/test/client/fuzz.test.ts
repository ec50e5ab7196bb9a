import { isProviderError } from "@diskferry/core/provider";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Bounds } from "../../../../test/bounds.ts";
import { seedOf } from "../../../../test/seed.ts";
import type { ReplyStyle } from "../../src/client/handshake.ts";
import { connectNbd, listNbdExports } from "../../src/client/connect.ts";
import { ProtocolViolation, Replies } from "../../src/client/replies.ts";
import { Request } from "../../src/client/request.ts";
import {
  command,
  extendedReplyMagic,
  optionReply,
  optionReplyMagic,
  replyType,
  simpleReplyMagic,
  structuredReplyMagic,
} from "../../src/protocol.ts";
import { bytes16, bytes32, bytes64, startScripted } from "./scripted-server.ts";

const fixed = 20261121;
const random = (Math.random() * 2 ** 31) | 0;
const seeds = process.env["DISKFERRY_SEED"] === undefined ? [fixed, random] : [seedOf(fixed)];
console.log(`client fuzz: seeds ${seeds.join(", ")}; repeat with DISKFERRY_SEED`);

/** Sizes and numbers that break things more often than even ones do. */
const number32 = fc.oneof(
  fc.nat(64),
  fc.nat({ max: 0xffff_ffff }),
  fc.constantFrom(0, 4, 8, 9, 12, 512, 4096, 4104, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff),
);
/** Of the requests under way, by cookie. */
const offsets = [0, 4096, 0, 0];
const garbage = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));

describe.each(seeds)("with seed %i", (seed) => {
  const wire = (style: ReplyStyle): fc.Arbitrary<Buffer> => {
    const cookie = fc.oneof({ weight: 6, arbitrary: fc.nat(3) }, number32);
    const at = fc.oneof({ weight: 4, arbitrary: fc.nat(16).map((block) => block * 512) }, number32);
    const simple = fc
      .tuple(fc.constantFrom(0, 0, 5, 108, 12345), cookie, garbage)
      .map(([error, each, payload]) =>
        Buffer.concat([bytes32(simpleReplyMagic), bytes32(error), bytes64(0, each), payload]),
      );
    const type = fc.oneof(fc.constantFrom(...Object.values(replyType)), fc.nat(65535));
    const header = (flags: number, kind: number, each: number, size: number): Buffer => {
      const parts = [bytes16(flags), bytes16(kind), bytes64(0, each)];
      return style === "extended"
        ? Buffer.concat([bytes32(extendedReplyMagic), ...parts, bytes64(0, offsets[each] ?? 0), bytes64(0, size)])
        : Buffer.concat([bytes32(structuredReplyMagic), ...parts, bytes32(size)]);
    };
    const structured = fc
      .tuple(fc.nat(1), type, cookie, fc.option(number32), garbage)
      .map(([flags, kind, each, size, payload]) =>
        Buffer.concat([header(flags, kind, each, size ?? payload.byteLength), payload]),
      );
    const content = fc
      .tuple(fc.nat(1), cookie, at, fc.integer({ min: 1, max: 4096 }))
      .map(([flags, each, offset, size]) =>
        Buffer.concat([
          header(flags, replyType.offsetData, each, size + 8),
          bytes64(0, offset),
          Buffer.alloc(size, 0x11),
        ]),
      );
    const hole = fc
      .tuple(fc.nat(1), cookie, at, number32)
      .map(([flags, each, offset, size]) =>
        Buffer.concat([header(flags, replyType.offsetHole, each, 12), bytes64(0, offset), bytes32(size)]),
      );
    const none = cookie.map((each) => header(1, replyType.none, each, 0));
    const kinds = [
      { weight: 4, arbitrary: content },
      { weight: 3, arbitrary: none },
      { weight: 2, arbitrary: hole },
      { weight: 1, arbitrary: structured },
      { weight: 1, arbitrary: garbage },
      { weight: style === "simple" ? 6 : style === "structured" ? 1 : 0, arbitrary: simple },
    ];
    return fc.array(fc.oneof(...kinds), { maxLength: 12 }).map((parts) => Buffer.concat(parts));
  };

  it.each(["simple", "structured", "extended"] as ReplyStyle[])(
    "any stream of %s replies is taken or refused, the same however it is cut",
    async (style) => {
      await using bounds = new Bounds(`${style} replies, seed ${seed}`);
      let answered = 0;
      await fc.assert(
        fc.asyncProperty(
          wire(style),
          fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 8 }),
          (stream, cuts) =>
            bounds.run(() => {
              const whole = run(style, stream, [stream.byteLength + 1]);
              expect(run(style, stream, cuts)).toEqual(whole);
              answered += whole.events.filter((event) => event.startsWith("answered")).length;
            }),
        ),
        { seed, numRuns: 1500 },
      );
      // Streams that are all refused at their first byte would prove little.
      expect(answered).toBeGreaterThan(50);
    },
  );

  it("any handshake gives a client or a ProviderError", async () => {
    const reply = fc
      .tuple(
        fc.constantFrom(6, 7, 8, 9, 10, 11, 3, 1),
        fc.oneof(fc.constantFrom(...Object.values(optionReply)), fc.nat(0xffff_ffff)),
        garbage,
        fc.option(number32),
      )
      .map(([type, kind, payload, size]) =>
        Buffer.concat([
          bytes64(...optionReplyMagic),
          bytes32(type),
          bytes32(kind),
          bytes32(size ?? payload.byteLength),
          payload,
        ]),
      );
    const inOrder = fc
      .tuple(fc.array(reply, { maxLength: 3 }), fc.array(reply, { maxLength: 5 }), garbage)
      .map(([first, then, last]) =>
        Buffer.concat([
          ...[11, 8]
            .map((type) => Buffer.concat([bytes64(...optionReplyMagic), bytes32(type), bytes32(1), bytes32(0)]))
            .slice(0, first.length % 2 === 0 ? 1 : 0),
          ...first,
          ...then,
          last,
        ]),
      );
    let stream: Buffer = Buffer.alloc(0);
    await using bounds = new Bounds(`handshakes, seed ${seed}`);
    await using server = await startScripted((peer) => {
      peer.greet();
      peer.send(stream);
      peer.socket.end();
    });
    await fc.assert(
      fc.asyncProperty(fc.oneof(inOrder, garbage), fc.boolean(), (bytes, listing) =>
        bounds.run(async () => {
          stream = bytes;
          try {
            if (listing) await listNbdExports(server.uri);
            else
              await (
                await connectNbd(server.uri, { metaContexts: ["base:allocation", "qemu:dirty-bitmap:*"] })
              ).close();
          } catch (error) {
            expect(isProviderError(error), String(error)).toBe(true);
          }
        }),
      ),
      { seed, numRuns: 150 },
    );
    expect(server.faults).toEqual([]);
  });
});

/** Feeds a stream in cuts, as a wire would, and tells all that came of it. */
function run(style: ReplyStyle, stream: Buffer, cuts: readonly number[]): { events: string[]; content: string[] } {
  const events: string[] = [];
  const asked = [
    { command: command.read, flags: 0, offset: 0, length: 8192, into: new Uint8Array(8192) },
    { command: command.read, flags: 0, offset: 4096, length: 4096, into: new Uint8Array(4096) },
    { command: command.flush, flags: 0, offset: 0, length: 0 },
    { command: command.blockStatus, flags: 0, offset: 0, length: 8192, contexts: [1] },
  ];
  const requests = asked.map((each, cookie) => {
    const request = new Request(
      each,
      1000,
      undefined,
      () => undefined,
      () => undefined,
    );
    request.cookie = cookie;
    return request;
  });
  const replies = new Replies(style, {
    find: (cookie) => requests.find((each) => each.cookie === cookie && !each.answered),
    failed: (request, error) => {
      events.push(`failed ${request.cookie} ${error.errno}`);
      request.error ??= error as never;
    },
    answered: (request) => {
      request.answered = true;
      events.push(`answered ${request.cookie}`);
    },
    moved: () => undefined,
    ended: () => undefined,
  });
  let scratch: Buffer = Buffer.alloc(0);
  let at = 0;
  try {
    for (let index = 0; at < stream.byteLength; index++) {
      let part = stream.subarray(at, at + (cuts[index % cuts.length] ?? 1));
      const place = scratch.byteLength === 0 ? replies.place() : undefined;
      if (place === undefined) scratch = Buffer.concat([scratch, part]);
      else {
        expect(place.byteLength).toBeGreaterThan(0);
        part = part.subarray(0, place.byteLength);
        place.set(part);
        expect(replies.placed(part.byteLength)).toBe(0);
      }
      at += part.byteLength;
      for (let taken = 1; scratch.byteLength > 0 && taken > 0; scratch = scratch.subarray(taken)) {
        taken = replies.take(scratch, 0, scratch.byteLength);
      }
      // What it waits for always fits the wire's scratch, or goes to a place of its own.
      expect(replies.wanted).toBeLessThanOrEqual(8192);
    }
  } catch (error) {
    if (!(error instanceof ProtocolViolation)) throw error;
    events.push(error.message);
  }
  return {
    events,
    content: requests.slice(0, 2).map(({ asked: { into } }) => Buffer.from(into ?? []).toString("base64")),
  };
}
