import {
  extendedReplyHeaderLength,
  extendedReplyMagic,
  replyFlagDone,
  replyType,
  simpleReplyHeaderLength,
  simpleReplyMagic,
  structuredReplyHeaderLength,
  structuredReplyMagic,
} from "../protocol.ts";
import { blockHeadroom, type BlockLease } from "./block-pool.ts";
import type { Request } from "./request.ts";

/** How replies look, as the handshake agreed: plain, structured, or structured with 64-bit headers. */
export type ReplyStyle = "simple" | "structured" | "extended";

/** The longest error text sent, in bytes (the protocol allows 4096). */
const longestMessage = 1024;

/** The bytes of a data reply: header and payload as one piece of the block that was read into. */
export function dataReply(style: ReplyStyle, request: Request, lease: BlockLease): Uint8Array {
  const { length } = lease.data;
  if (style === "simple") {
    const start = blockHeadroom - simpleReplyHeaderLength;
    putSimpleHeader(lease.whole, start, request, 0);
    return lease.whole.subarray(start, blockHeadroom + length);
  }
  const start = blockHeadroom - 8 - headerLength(style);
  putHeader(lease.whole, start, style, request, replyType.offsetData, length + 8);
  putOffset(lease.whole, blockHeadroom - 8, request);
  return lease.whole.subarray(start, blockHeadroom + length);
}

/** A reply that all of a read is zeroes. Structured and extended only. */
export function holeReply(style: ReplyStyle, request: Request): Uint8Array {
  const start = headerLength(style);
  const reply = Buffer.allocUnsafe(start + 12);
  putHeader(reply, 0, style, request, replyType.offsetHole, 12);
  putOffset(reply, start, request);
  reply.writeUInt32BE(request.length, start + 8);
  return reply;
}

/** A reply without payload that all went well. */
export function doneReply(style: ReplyStyle, request: Request): Uint8Array {
  if (style === "simple") return simpleReply(request, 0);
  const reply = Buffer.allocUnsafe(headerLength(style));
  putHeader(reply, 0, style, request, replyType.none, 0);
  return reply;
}

/** A reply that the request failed; `message` reaches clients that take structured replies. */
export function errorReply(style: ReplyStyle, request: Request, error: number, message: string): Uint8Array {
  if (style === "simple") return simpleReply(request, error);
  const text = clipUtf8(message, longestMessage);
  const start = headerLength(style);
  const reply = Buffer.allocUnsafe(start + 6 + text.length);
  putHeader(reply, 0, style, request, replyType.error, 6 + text.length);
  reply.writeUInt32BE(error, start);
  reply.writeUInt16BE(text.length, start + 4);
  reply.set(text, start + 6);
  return reply;
}

/**
 * One chunk of a block status reply. `descriptors`: length and flags in turn, at least one pair.
 * `last`: no other context follows.
 */
export function statusReply(
  style: Exclude<ReplyStyle, "simple">,
  request: Request,
  context: number,
  descriptors: readonly number[],
  last: boolean,
): Uint8Array {
  const count = descriptors.length / 2;
  const start = headerLength(style);
  const extended = style === "extended";
  const length = extended ? 8 + 16 * count : 4 + 8 * count;
  const reply = Buffer.alloc(start + length);
  const type = extended ? replyType.blockStatusExtended : replyType.blockStatus;
  putHeader(reply, 0, style, request, type, length, last ? replyFlagDone : 0);
  reply.writeUInt32BE(context, start);
  if (extended) reply.writeUInt32BE(count, start + 4);
  let at = start + (extended ? 8 : 4);
  for (const value of descriptors) {
    if (extended) {
      reply.writeUInt32BE(Math.floor(value / 2 ** 32), at);
      at += 4;
    }
    reply.writeUInt32BE(value % 2 ** 32, at);
    at += 4;
  }
  return reply;
}

/** The first bytes of a text in UTF-8, never half a character. */
export function clipUtf8(text: string, limit: number): Buffer {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length <= limit) return bytes;
  let end = limit;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}

function simpleReply(request: Request, error: number): Uint8Array {
  const reply = Buffer.allocUnsafe(simpleReplyHeaderLength);
  putSimpleHeader(reply, 0, request, error);
  return reply;
}

function headerLength(style: ReplyStyle): number {
  return style === "extended" ? extendedReplyHeaderLength : structuredReplyHeaderLength;
}

function putSimpleHeader(into: Buffer, at: number, request: Request, error: number): void {
  into.writeUInt32BE(simpleReplyMagic, at);
  into.writeUInt32BE(error, at + 4);
  into.writeUInt32BE(request.cookieHigh, at + 8);
  into.writeUInt32BE(request.cookieLow, at + 12);
}

function putHeader(
  into: Buffer,
  at: number,
  style: ReplyStyle,
  request: Request,
  type: number,
  length: number,
  flags: number = replyFlagDone,
): void {
  into.writeUInt32BE(style === "extended" ? extendedReplyMagic : structuredReplyMagic, at);
  into.writeUInt16BE(flags, at + 4);
  into.writeUInt16BE(type, at + 6);
  into.writeUInt32BE(request.cookieHigh, at + 8);
  into.writeUInt32BE(request.cookieLow, at + 12);
  if (style === "extended") {
    putOffset(into, at + 16, request);
    into.writeUInt32BE(0, at + 24);
    into.writeUInt32BE(length, at + 28);
  } else {
    into.writeUInt32BE(length, at + 16);
  }
}

function putOffset(into: Buffer, at: number, request: Request): void {
  into.writeUInt32BE(request.offsetHigh, at);
  into.writeUInt32BE(request.offsetLow, at + 4);
}
