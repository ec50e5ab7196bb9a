import { copyInto } from "@diskferry/core/provider";
import {
  command,
  commandFlag,
  extendedReplyHeaderLength,
  extendedReplyMagic,
  maximumStringLength,
  replyFlagDone,
  replyType,
  simpleReplyHeaderLength,
  simpleReplyMagic,
  structuredReplyHeaderLength,
  structuredReplyMagic,
} from "../protocol.ts";
import { NbdServerError, printable } from "./errors.ts";
import type { ReplyStyle } from "./handshake.ts";
import { nbdHeadroom } from "./request.ts";
import type { Request } from "./request.ts";
import type { Intake } from "./wire.ts";

/** What the replies are for: the session. */
export interface ReplyListener {
  /** The request this cookie belongs to, if one is under way. */
  find(cookie: number): Request | undefined;
  /** The server answered an error to it; more of its reply may follow. */
  failed(request: Request, error: NbdServerError): void;
  /** Its reply is complete. */
  answered(request: Request): void;
  /** The place of a request that was abandoned is no longer written to. */
  moved(request: Request): void;
  /** The wire is dead. */
  ended(error: unknown): void;
}

/** What a server did against the protocol. The session turns it into the error that callers see. */
export class ProtocolViolation extends Error {
  constructor(what: string) {
    super(`the server broke the protocol: ${what}`);
    this.name = "ProtocolViolation";
  }
}

/** The protocol's advice to servers: at most 2^20 descriptors in a status reply. */
const maximumDescriptors = 0x10_0000;
/** Fixed fields and one string. */
const maximumErrorPayload = maximumStringLength + 64;
const discarded = Buffer.allocUnsafeSlow(64 * 1024);

type State = "header" | "content-offset" | "content" | "hole" | "error" | "status";

/**
 * Takes the stream of replies apart. The content of a read goes straight to where its caller wants it; everything
 * else passes through the wire's scratch.
 */
export class Replies implements Intake {
  readonly #listener: ReplyListener;
  readonly #structured: boolean;
  readonly #extended: boolean;
  readonly #headerWindow: number;
  /** Fetch many small replies at once rather than let the kernel write content straight. */
  lookahead = false;
  wanted: number = simpleReplyHeaderLength;
  #state: State = "header";
  #request: Request | undefined;
  #type = 0;
  #done = false;
  /** Bytes of the payload still to come. */
  #left = 0;
  /** Where content goes, from `#filled` on. */
  #target: Uint8Array = discarded;
  #filled = 0;
  /** Whether the 32 bytes behind `#target` may take the next header. */
  #slack = false;

  constructor(style: ReplyStyle, listener: ReplyListener) {
    this.#listener = listener;
    this.#structured = style !== "simple";
    this.#extended = style === "extended";
    // A header and the offset that precedes content, so that the content itself goes straight to its place.
    this.#headerWindow = this.#extended
      ? extendedReplyHeaderLength + 8
      : this.#structured
        ? structuredReplyHeaderLength + 8
        : simpleReplyHeaderLength;
    this.#expectHeader();
  }

  get window(): number {
    return this.lookahead ? 64 * 1024 : Math.max(this.wanted, this.#headerWindow);
  }

  take(scratch: Buffer, start: number, end: number): number {
    const count = end - start;
    switch (this.#state) {
      case "header":
        return count < this.wanted ? 0 : this.#header(scratch, start, count);
      case "content-offset":
        if (count < 8) return 0;
        this.#content(scratch.readUInt32BE(start), scratch.readUInt32BE(start + 4), this.#left - 8);
        return 8;
      case "hole":
        if (count < 12) return 0;
        this.#hole(scratch, start);
        return 12;
      case "error": {
        const length = this.#left;
        if (count < length) return 0;
        this.#error(scratch.subarray(start, start + length));
        return length;
      }
      default: {
        // Content that came along in scratch behind its header.
        const taken = Math.min(count, this.#left);
        if (this.#target !== discarded) copyInto(this.#target, scratch.subarray(start, start + taken), this.#filled);
        this.#advance(taken);
        return taken;
      }
    }
  }

  place(): Uint8Array | undefined {
    if (this.#state !== "content" && this.#state !== "status") return undefined;
    if (this.#target === discarded) return discarded.subarray(0, Math.min(this.#left, discarded.byteLength));
    const { buffer, byteOffset } = this.#target;
    const slack = this.#slack ? nbdHeadroom : 0;
    return new Uint8Array(buffer, byteOffset + this.#filled, this.#left + slack);
  }

  placed(count: number): number {
    const taken = Math.min(count, this.#left);
    this.#advance(taken);
    return count - taken;
  }

  ended(error: unknown): void {
    this.#listener.ended(error);
  }

  /** Whether content of this request is being received right now. */
  isReceiving(request: Request): boolean {
    return this.#request === request && this.#state === "content";
  }

  /** Nobody waits for this request any more; the place it named is not written to from here on. */
  release(request: Request): void {
    if (this.isReceiving(request)) this.#discard();
  }

  #advance(count: number): void {
    this.#filled += count;
    this.#left -= count;
    const request = this.#request;
    if (request?.abandoned !== undefined && this.#target !== discarded && this.#state === "content") {
      this.#discard();
      this.#listener.moved(request);
    }
    if (this.#left === 0) this.#finish();
  }

  #discard(): void {
    this.#target = discarded;
    this.#slack = false;
  }

  #expectHeader(): void {
    this.#state = "header";
    this.#request = undefined;
    this.wanted = this.#extended ? extendedReplyHeaderLength : simpleReplyHeaderLength;
  }

  #header(scratch: Buffer, start: number, count: number): number {
    const magic = scratch.readUInt32BE(start);
    if (this.#extended) {
      if (magic !== extendedReplyMagic) throw new ProtocolViolation(`a reply begins with 0x${magic.toString(16)}`);
      const request = this.#find(scratch, start + 8);
      const { offset } = request.asked;
      const high = scratch.readUInt32BE(start + 16);
      if (high * 0x1_0000_0000 + scratch.readUInt32BE(start + 20) !== offset) {
        throw new ProtocolViolation("a reply names another offset than its request");
      }
      if (scratch.readUInt32BE(start + 24) !== 0) throw new ProtocolViolation("a reply claims 4 GiB or more");
      this.#reply(
        request,
        scratch.readUInt16BE(start + 4),
        scratch.readUInt16BE(start + 6),
        scratch.readUInt32BE(start + 28),
      );
      return extendedReplyHeaderLength;
    }
    if (magic === simpleReplyMagic) {
      this.#simple(this.#find(scratch, start + 8), scratch.readUInt32BE(start + 4));
      return simpleReplyHeaderLength;
    }
    if (magic !== structuredReplyMagic || !this.#structured) {
      throw new ProtocolViolation(`a reply begins with 0x${magic.toString(16)}`);
    }
    if (count < structuredReplyHeaderLength) {
      this.wanted = structuredReplyHeaderLength;
      return 0;
    }
    const request = this.#find(scratch, start + 8);
    this.#reply(
      request,
      scratch.readUInt16BE(start + 4),
      scratch.readUInt16BE(start + 6),
      scratch.readUInt32BE(start + 16),
    );
    return structuredReplyHeaderLength;
  }

  #find(scratch: Buffer, at: number): Request {
    const cookie = scratch.readUInt32BE(at + 4);
    const request = scratch.readUInt32BE(at) === 0 ? this.#listener.find(cookie) : undefined;
    if (request === undefined) throw new ProtocolViolation("a reply to a request that is not under way (its cookie)");
    return request;
  }

  #simple(request: Request, error: number): void {
    this.#request = request;
    this.#done = true;
    if (error !== 0) {
      this.#listener.failed(request, new NbdServerError(error, ""));
      this.#finish();
      return;
    }
    if (request.asked.command === command.blockStatus)
      throw new ProtocolViolation("a simple reply to a status request");
    if (request.asked.command !== command.read) {
      this.#finish();
      return;
    }
    if (this.#structured) throw new ProtocolViolation("a simple reply to a read, where structured ones were agreed on");
    this.#receive(request, 0, request.asked.length);
  }

  #reply(request: Request, flags: number, type: number, length: number): void {
    this.#request = request;
    this.#type = type;
    this.#left = length;
    this.#done = (flags & replyFlagDone) !== 0;
    const { asked } = request;
    if ((type & 0x8000) !== 0) {
      if (length < 6 || length > maximumErrorPayload) throw new ProtocolViolation(`an error reply of ${length} bytes`);
      this.#state = "error";
      this.wanted = length;
    } else if (type === replyType.none) {
      if (length !== 0 || !this.#done) throw new ProtocolViolation("an empty reply that is not empty, or not the last");
      this.#finish();
    } else if (type === replyType.offsetData && asked.command === command.read) {
      if (length < 9 || length - 8 > asked.length) throw new ProtocolViolation(`content of ${length - 8} bytes`);
      this.#state = "content-offset";
      this.wanted = 8;
    } else if (type === replyType.offsetHole && asked.command === command.read) {
      if (length !== 12) throw new ProtocolViolation(`a hole described in ${length} bytes`);
      this.#state = "hole";
      this.wanted = 12;
    } else if (type === this.#statusType() && asked.command === command.blockStatus) {
      const [head, each] = this.#extended ? [8, 16] : [4, 8];
      const descriptors = (length - head) / each;
      if (descriptors < 1 || descriptors > maximumDescriptors || !Number.isInteger(descriptors)) {
        throw new ProtocolViolation(`a status reply of ${length} bytes`);
      }
      this.#state = "status";
      this.#target = Buffer.allocUnsafeSlow(length);
      this.#filled = 0;
      this.#slack = false;
    } else {
      throw new ProtocolViolation(`a reply of type ${type} to a request of type ${asked.command}`);
    }
  }

  #statusType(): number {
    return this.#extended ? replyType.blockStatusExtended : replyType.blockStatus;
  }

  #content(high: number, low: number, length: number): void {
    const request = this.#request;
    if (request === undefined) return;
    const from = high * 0x1_0000_0000 + low - request.asked.offset;
    this.#claim(request, from, length);
    this.#receive(request, from, length);
  }

  #hole(scratch: Buffer, start: number): void {
    const request = this.#request;
    if (request === undefined) return;
    const from = scratch.readUInt32BE(start) * 0x1_0000_0000 + scratch.readUInt32BE(start + 4) - request.asked.offset;
    const length = scratch.readUInt32BE(start + 8);
    this.#claim(request, from, length);
    request.into?.fill(0, from, from + length);
    this.#left = 0;
    this.#finish();
  }

  #claim(request: Request, from: number, length: number): void {
    const { asked } = request;
    if (from < 0 || length < 1 || from + length > asked.length) {
      throw new ProtocolViolation("content outside of what was asked for");
    }
    request.contents++;
    if ((asked.flags & commandFlag.doNotFragment) !== 0 && request.contents > 1) {
      throw new ProtocolViolation("a read that must not be fragmented came in pieces");
    }
    if (request.coverage?.add(from, from + length) === false) {
      throw new ProtocolViolation("content that overlaps, or in too many pieces");
    }
  }

  #receive(request: Request, from: number, length: number): void {
    if (request.coverage !== undefined && !this.#structured) request.coverage.add(from, from + length);
    this.#state = "content";
    this.#left = length;
    const { into } = request;
    if (into === undefined) {
      this.#discard();
      return;
    }
    this.#target = into;
    this.#filled = from;
    this.#slack = request.asked.slack === true && from + length === into.byteLength;
  }

  #error(payload: Buffer): void {
    const request = this.#request;
    if (request === undefined) return;
    const number = payload.readUInt32BE(0);
    const textLength = payload.readUInt16BE(4);
    const known = this.#type === replyType.error || this.#type === replyType.errorOffset;
    const fixed = this.#type === replyType.errorOffset ? 14 : 6;
    if (payload.byteLength < fixed + textLength || (known && number === 0)) {
      throw new ProtocolViolation("a malformed error reply");
    }
    const text = printable(payload.subarray(6, 6 + textLength));
    const at = 6 + textLength;
    const offset = fixed === 14 ? payload.readUInt32BE(at) * 0x1_0000_0000 + payload.readUInt32BE(at + 4) : undefined;
    this.#listener.failed(request, new NbdServerError(number, text, offset));
    this.#left = 0;
    this.#finish();
  }

  #finish(): void {
    const request = this.#request;
    if (request === undefined) return;
    if (this.#state === "status") this.#status(request);
    this.#expectHeader();
    this.#target = discarded;
    if (!this.#done) return;
    if (request.error === undefined) this.#complete(request);
    this.#listener.answered(request);
  }

  #status(request: Request): void {
    const payload = Buffer.from(this.#target.buffer, this.#target.byteOffset, this.#target.byteLength);
    const context = payload.readUInt32BE(0);
    const { contexts } = request.asked;
    if (contexts?.includes(context) !== true || request.statuses?.has(context) === true) {
      throw new ProtocolViolation("a status of a context that was not asked for, or twice");
    }
    if (this.#extended && payload.readUInt32BE(4) !== (payload.byteLength - 8) / 16) {
      throw new ProtocolViolation("a status reply that miscounts its descriptors");
    }
    const descriptors = payload.subarray(this.#extended ? 8 : 4);
    for (let at = 0; at < descriptors.byteLength; at += this.#extended ? 16 : 8) {
      const high = this.#extended ? descriptors.readUInt32BE(at) : 0;
      const low = descriptors.readUInt32BE(this.#extended ? at + 4 : at);
      if (low === 0 && high === 0) throw new ProtocolViolation("a status of no bytes, which would never get anywhere");
    }
    request.statuses?.set(context, descriptors);
  }

  /** A reply that claims success holds everything that was asked for. */
  #complete(request: Request): void {
    const { asked, coverage, statuses } = request;
    if (coverage?.covers(asked.length) === false) {
      throw new ProtocolViolation("a read that was answered as complete, and is not");
    }
    if (statuses !== undefined && statuses.size !== asked.contexts?.length) {
      throw new ProtocolViolation("a status reply without all contexts that were agreed on");
    }
  }
}
