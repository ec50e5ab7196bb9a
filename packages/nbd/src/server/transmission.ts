import type { Socket } from "node:net";
import { command, commandFlag, errorNumber } from "../protocol.ts";
import { isWritable } from "./backend.ts";
import type { BlockLease, BlockPool } from "./block-pool.ts";
import { describeFailure } from "./failure.ts";
import type { Receiver } from "./receiver.ts";
import { dataReply, doneReply, errorReply, holeReply, statusReply } from "./reply.ts";
import {
  changesDisk,
  checkRequest,
  parseRequest,
  RequestError,
  requestLength,
  type Offered,
  type Request,
} from "./request.ts";
import type { Session } from "./session.ts";

/** Zeroes written at a time for a backend that has no `zero`, and the longest piece compared in a zero test. */
const zeroes: Buffer = Buffer.alloc(1024 * 1024);

/** A write whose payload is too long is read to its end and refused up to this many times the limit, else cut off. */
const drainFactor = 2;

/** What one connection may use. */
export interface TransmissionLimits {
  readonly payload: number;
  readonly inFlight: number;
  /** Bytes of payload under way, of this connection alone. */
  readonly bufferBytes: number;
}

/** What a transmission works with. */
export interface TransmissionParts {
  readonly socket: Socket;
  readonly receiver: Receiver;
  readonly pool: BlockPool;
  readonly limits: TransmissionLimits;
  /** Aborted when the client is gone. */
  readonly gone: AbortSignal;
  /** Aborted when the server is closed by force. */
  readonly forced: AbortSignal;
  /** Told when a payload or a reply of so many bytes begins to be waited for, and 0 when it is over. */
  readonly expect: (what: "payload" | "reply", bytes: number) => void;
  readonly notice: (message: string) => void;
}

/**
 * Serves the commands of one connection after the handshake. Requests overlap up to the limits; beyond them no more is
 * read from the socket. It never throws for what a client does: it answers, or ends.
 */
export class Transmission {
  readonly #parts: TransmissionParts;
  readonly #session: Session;
  readonly #offered: Offered;
  readonly #settled: (() => void)[] = [];
  #inFlight = 0;
  #executing = 0;
  #heldBytes = 0;
  #unsentReplies = 0;
  #stopped = false;
  #corked = false;

  constructor(parts: TransmissionParts, session: Session) {
    this.#parts = parts;
    this.#session = session;
    this.#offered = {
      writable: isWritable(session.entry),
      backend: session.entry.backend,
      structured: session.style !== "simple",
      extended: session.style === "extended",
      maximumPayload: parts.limits.payload,
    };
  }

  /** Whether nothing is under way: nothing at the backend, and no reply unsent. */
  get idle(): boolean {
    return this.#inFlight === 0;
  }

  /**
   * Reads and starts requests until the client disconnects or `stop` is called; or until it breaks the protocol, and
   * then how is returned. @throws ConnectionEnded
   */
  async run(): Promise<string | undefined> {
    const { receiver } = this.#parts;
    const header = Buffer.allocUnsafe(requestLength(this.#offered.extended));
    for (;;) {
      if (this.#inFlight >= this.#parts.limits.inFlight) await this.#roomFor(0);
      const waiting = receiver.fill(header, true);
      if (waiting !== undefined) await waiting;
      if (this.#stopped) return undefined;
      const request = parseRequest(header, this.#offered.extended);
      if (request === undefined) return "the client sent something that is no request";
      if (request.type === command.disconnect) return undefined;
      const narrowed = isFilter(request, this.#offered) ? await this.#receiveFilter(request) : request;
      const breach = await this.#accept(narrowed);
      if (breach !== undefined) return breach;
    }
  }

  /** Starts no more requests. What is under way goes on. */
  stop(): void {
    this.#stopped = true;
  }

  /** Resolves once the backend works on nothing of this connection any more. Call `stop` first. */
  async drained(): Promise<void> {
    while (this.#executing > 0) await this.#nextSettled();
  }

  /** Resolves once all replies are with the kernel too, or the client is gone. */
  async answered(): Promise<void> {
    while (this.#inFlight > 0 && !this.#parts.gone.aborted) await this.#nextSettled();
  }

  /** For the loss of a connection: wakes who waits for an answer that cannot be sent. */
  wake(): void {
    for (const resolve of this.#settled.splice(0)) resolve();
  }

  /** A status request that names its contexts: the same request over its effect length, as if it had no payload. */
  async #receiveFilter(request: Request): Promise<Request> {
    const payload = Buffer.allocUnsafe(request.length);
    this.#parts.expect("payload", request.length);
    await this.#parts.receiver.fill(payload);
    this.#parts.expect("payload", 0);
    const contexts: number[] = [];
    for (let at = 8; at < payload.length; at += 4) contexts.push(payload.readUInt32BE(at));
    return {
      ...request,
      flags: request.flags & ~commandFlag.payloadLength,
      length: payload.readUInt32BE(0) * 2 ** 32 + payload.readUInt32BE(4),
      hasPayload: false,
      contexts,
    };
  }

  async #accept(request: Request): Promise<string | undefined> {
    const { limits } = this.#parts;
    if (request.hasPayload && request.length > limits.payload) {
      const bearable = !this.#offered.extended && request.length <= limits.payload * drainFactor;
      if (!bearable) return `the client sent a payload of ${request.length} bytes`;
    }
    const refusal = this.#check(request);
    if (refusal !== undefined) {
      await this.#skipPayload(request);
      this.#begin(0);
      this.#send(errorReply(this.#session.style, request, refusal.errorNumber, refusal.message), 0, undefined);
      return undefined;
    }
    const length = needsBlock(request) ? request.length : 0;
    if (this.#inFlight > 0 && this.#heldBytes + length > limits.bufferBytes) await this.#roomFor(length);
    const lending = length === 0 ? undefined : this.#parts.pool.acquire(length, this.#parts.gone);
    const lease = lending instanceof Promise ? await lending : lending;
    if (request.hasPayload && lease !== undefined) {
      const waiting = this.#parts.receiver.fill(lease.data);
      if (waiting !== undefined) await this.#receivePayload(waiting, lease);
    }
    if (this.#stopped) {
      lease?.release();
      return undefined;
    }
    this.#begin(length);
    void this.#serve(request, lease, length);
    return undefined;
  }

  #check(request: Request): RequestError | undefined {
    try {
      if (request.hasPayload && request.length > this.#parts.limits.payload) {
        throw new RequestError(errorNumber.EINVAL, `a payload is at most ${this.#parts.limits.payload} bytes`);
      }
      if (request.type === command.blockStatus && this.#session.contexts.length === 0) {
        throw new RequestError(errorNumber.EINVAL, "no meta context was chosen in the handshake");
      }
      checkContexts(request.contexts ?? [], this.#session.contexts.length);
      checkRequest(request, this.#offered);
      return undefined;
    } catch (error) {
      if (error instanceof RequestError) return error;
      throw error;
    }
  }

  async #skipPayload(request: Request): Promise<void> {
    if (!request.hasPayload) return;
    const waiting = this.#parts.receiver.skip(request.length);
    if (waiting === undefined) return;
    this.#parts.expect("payload", request.length);
    await waiting;
    this.#parts.expect("payload", 0);
  }

  async #receivePayload(waiting: Promise<void>, lease: BlockLease): Promise<void> {
    this.#parts.expect("payload", lease.data.byteLength);
    try {
      await waiting;
    } catch (error) {
      lease.release();
      throw error;
    }
    this.#parts.expect("payload", 0);
  }

  /** Never rejects: whatever goes wrong becomes the client's error reply. */
  async #serve(request: Request, lease: BlockLease | undefined, length: number): Promise<void> {
    const { style } = this.#session;
    let reply: Uint8Array;
    let keep: BlockLease | undefined;
    this.#executing += 1;
    try {
      const sent = await this.#perform(request, lease);
      reply = sent ?? doneReply(style, request);
      if (lease !== undefined && reply.buffer === lease.whole.buffer) keep = lease;
    } catch (error) {
      const failure = describeFailure(error);
      if (failure.errorNumber === errorNumber.EIO && !this.#parts.gone.aborted) {
        this.#parts.notice(`command ${request.type} at ${request.offset}+${request.length} failed: ${String(error)}`);
      }
      reply = errorReply(style, request, failure.errorNumber, failure.message);
    } finally {
      this.#executing -= 1;
    }
    if (keep === undefined) lease?.release();
    this.#send(reply, length, keep);
  }

  async #perform(request: Request, lease: BlockLease | undefined): Promise<Uint8Array | undefined> {
    if (!changesDisk(request.type)) return this.#performReading(request, lease);
    const marks = (this.#session.entry.tracking ?? []).map((tracking) => ({
      tracking,
      write: tracking.begin(request.offset, request.length),
    }));
    try {
      await this.#change(request, lease);
    } finally {
      for (const { tracking, write } of marks) tracking.end(write);
    }
    return undefined;
  }

  async #performReading(request: Request, lease: BlockLease | undefined): Promise<Uint8Array | undefined> {
    const { backend } = this.#session.entry;
    const wait = { signal: this.#parts.gone };
    switch (request.type) {
      case command.read: {
        if (lease === undefined) return undefined;
        const waiting = backend.read(request.offset, lease.data, wait);
        if (waiting !== undefined) await waiting;
        const { style } = this.#session;
        const hole = style !== "simple" && isZero(lease.data);
        return hole ? holeReply(style, request) : dataReply(style, request, lease);
      }
      case command.flush:
        await backend.flush?.({ signal: this.#parts.forced });
        return undefined;
      case command.cache:
        await backend.cache?.(request.offset, request.length, wait);
        return undefined;
      default:
        return this.#describe(request);
    }
  }

  async #change(request: Request, lease: BlockLease | undefined): Promise<void> {
    const { backend } = this.#session.entry;
    const { offset, length, flags } = request;
    const fua = (flags & commandFlag.fua) !== 0;
    const signal = this.#parts.forced;
    if (request.type === command.write) {
      if (lease === undefined) return;
      const waiting = backend.write?.(offset, lease.data, { fua, signal });
      if (waiting !== undefined) await waiting;
    } else if (request.type === command.trim) {
      await backend.trim?.(offset, length, { fua, signal });
    } else if (backend.zero !== undefined) {
      const noHole = (flags & commandFlag.noHole) !== 0;
      const fast = (flags & commandFlag.fastZero) !== 0;
      await backend.zero(offset, length, { noHole, fast, fua, signal });
    } else {
      await this.#writeZeroes(offset, length, fua);
    }
  }

  async #writeZeroes(offset: number, length: number, fua: boolean): Promise<void> {
    const { backend } = this.#session.entry;
    const signal = this.#parts.forced;
    for (let at = 0; at < length; at += zeroes.length) {
      signal.throwIfAborted();
      await backend.write?.(offset + at, zeroes.subarray(0, Math.min(zeroes.length, length - at)), { fua, signal });
    }
  }

  async #describe(request: Request): Promise<Uint8Array> {
    const { style, contexts } = this.#session;
    if (style === "simple") throw new RequestError(errorNumber.EINVAL, "a block status needs structured replies");
    const one = (request.flags & commandFlag.requireOne) !== 0;
    const replies: Uint8Array[] = [];
    const wanted = [...contexts.entries()].filter(([id]) => request.contexts?.includes(id) ?? true);
    for (const [index, [id, context]] of wanted.entries()) {
      const wait = { signal: this.#parts.gone };
      const descriptors = await context.describe(request.offset, request.length, one, wait);
      replies.push(statusReply(style, request, id, descriptors, index === wanted.length - 1));
    }
    return replies.length === 1 && replies[0] !== undefined ? replies[0] : Buffer.concat(replies);
  }

  #begin(length: number): void {
    this.#inFlight += 1;
    this.#heldBytes += length;
  }

  #finish(length: number): void {
    this.#inFlight -= 1;
    this.#heldBytes -= length;
    this.wake();
  }

  /** Replies of one turn of the event loop leave together; each block is free again once the kernel has its bytes. */
  #send(reply: Uint8Array, length: number, lease: BlockLease | undefined): void {
    const { socket } = this.#parts;
    const done = (): void => {
      lease?.release();
      this.#unsentReplies -= 1;
      this.#parts.expect("reply", this.#unsentReplies === 0 ? 0 : this.#heldBytes);
      this.#finish(length);
    };
    this.#unsentReplies += 1;
    if (this.#unsentReplies === 1) this.#parts.expect("reply", reply.byteLength);
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    socket.write(reply, done);
  }

  async #roomFor(length: number): Promise<void> {
    const { limits, gone } = this.#parts;
    while (this.#inFlight >= limits.inFlight || (this.#inFlight > 0 && this.#heldBytes + length > limits.bufferBytes)) {
      gone.throwIfAborted();
      await this.#nextSettled();
    }
  }

  #nextSettled(): Promise<void> {
    return new Promise((resolve) => this.#settled.push(resolve));
  }
}

/** Whether every byte is zero. Two quick looks settle it for nearly all data that is not. */
function isZero(data: Buffer): boolean {
  if (data[0] !== 0 || data[data.length - 1] !== 0) return false;
  for (let at = 0; at < data.length; at += zeroes.length) {
    const end = Math.min(at + zeroes.length, data.length);
    if (zeroes.compare(data, at, end, 0, end - at) !== 0) return false;
  }
  return true;
}

/** The longest list of contexts in a status request that is looked at; a longer one is refused like any other payload. */
const longestFilter = 8 + 4 * 1024;

function isFilter(request: Request, offered: Offered): boolean {
  const { type, hasPayload, length } = request;
  return (
    offered.extended &&
    type === command.blockStatus &&
    hasPayload &&
    length > 8 &&
    length <= longestFilter &&
    length % 4 === 0
  );
}

function checkContexts(ids: readonly number[], count: number): void {
  if (ids.some((id) => id >= count)) throw new RequestError(errorNumber.EINVAL, "a meta context is not known here");
  if (new Set(ids).size < ids.length) throw new RequestError(errorNumber.EINVAL, "a meta context is named twice");
}

function needsBlock(request: Request): boolean {
  return request.type === command.read || request.type === command.write;
}
