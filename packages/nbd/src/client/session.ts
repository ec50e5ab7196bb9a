import type { ProviderError } from "@diskferry/core/provider";
import { command as commands, errorNumber } from "../protocol.ts";
import { answeredError, unavailable } from "./errors.ts";
import type { NbdServerError } from "./errors.ts";
import type { Agreement } from "./handshake.ts";
import { Replies } from "./replies.ts";
import type { ReplyListener } from "./replies.ts";
import { nbdHeadroom, Request } from "./request.ts";
import type { Asked } from "./request.ts";
import type { Wire } from "./wire.ts";

/** How one request is waited for. */
export interface RequestWait {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds from when the request is sent until the session is given up. Default: the session's. */
  readonly timeoutMs?: number | undefined;
}

/** Reads at least this long are worth an exact header read, so that their content goes straight to its place. */
const straightLength = 16 * 1024;
const closeGraceMs = 2_000;
const drainGraceMs = 5_000;
const commandNames = new Map<number, string>(
  Object.entries(commands).map(([name, value]) => [
    value,
    name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`),
  ]),
);

/**
 * One connection in transmission: a bounded number of requests under way, each with a deadline. When anything breaks
 * the protocol or a deadline, the connection is destroyed and every request rejects with UNAVAILABLE; it never
 * reconnects, so that a flush can only ever speak of writes of this very session.
 */
export class Session implements ReplyListener {
  readonly agreement: Agreement;
  readonly #wire: Wire;
  readonly #replies: Replies;
  readonly #extended: boolean;
  readonly #timeoutMs: number;
  /** Under way, at the index that their cookie holds. */
  readonly #slots: (Request | undefined)[];
  readonly #free: number[] = [];
  /** Callers who wait for a slot. */
  readonly #waiting: Request[] = [];
  /** Have a slot, and are to be sent. */
  readonly #outgoing: Request[] = [];
  #sending = false;
  #round = 0;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Infinity;
  #closing: Promise<void> | undefined;
  #drained: (() => void) | undefined;
  #failure: { error: unknown } | undefined;

  constructor(wire: Wire, agreement: Agreement, options: { maxInFlight: number; requestTimeoutMs: number }) {
    this.#wire = wire;
    this.agreement = agreement;
    this.#extended = agreement.style === "extended";
    this.#timeoutMs = options.requestTimeoutMs;
    this.#slots = Array.from({ length: options.maxInFlight }, () => undefined);
    for (let slot = options.maxInFlight - 1; slot >= 0; slot--) this.#free.push(slot);
    this.#replies = new Replies(agreement.style, this);
    wire.redirect(this.#replies);
  }

  /** How many requests are under way or wait. */
  get load(): number {
    return this.#slots.length - this.#free.length + this.#waiting.length;
  }

  get encrypted(): boolean {
    return this.#wire.encrypted;
  }

  /** Whether the session is over. */
  get dead(): boolean {
    return this.#failure !== undefined;
  }

  /** Sends one command. Resolves with the request when the server answered it well. */
  ask(asked: Asked, wait: RequestWait): Promise<Request> {
    return new Promise((resolve, reject) => {
      const { signal } = wait;
      if (signal?.aborted === true) {
        reject(signal.reason);
        return;
      }
      if (this.#failure !== undefined) {
        reject(this.#failureOf(asked));
        return;
      }
      if (this.#closing !== undefined) {
        reject(unavailable(`${this.#what(asked)}: the session was closed`, this.#operation(asked)));
        return;
      }
      const request: Request = new Request(
        asked,
        wait.timeoutMs ?? this.#timeoutMs,
        signal,
        () => resolve(request),
        reject,
      );
      request.watch((reason) => this.#abandon(request, reason));
      if (this.#free.length > 0) this.#start(request);
      else this.#waiting.push(request);
    });
  }

  /**
   * Closes: lets what is under way finish for a short while, sends DISC and waits for the server to close too.
   * Idempotent; never rejects.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Ends the session at once; everything under way rejects with `error`. */
  fail(error: unknown): void {
    this.#wire.fail(error);
  }

  find(cookie: number): Request | undefined {
    const request = this.#slots[cookie % this.#slots.length];
    return request?.cookie === cookie && !request.answered ? request : undefined;
  }

  failed(request: Request, cause: NbdServerError): void {
    const { asked } = request;
    request.error ??= answeredError(this.#what(asked), this.#operation(asked), cause);
    if (cause.errno !== errorNumber.ESHUTDOWN) return;
    const error = unavailable(`${this.#wire.subject}: the server is shutting down`, this.#operation(asked), cause);
    // The protocol demands a soft disconnect; nothing further is asked of this server.
    this.#sendDisconnect();
    this.#wire.fail(error);
  }

  answered(request: Request): void {
    request.answered = true;
    this.#settle(request);
  }

  moved(request: Request): void {
    if (request.abandoned !== undefined) request.settle({ error: request.abandoned.reason });
  }

  ended(error: unknown): void {
    this.#failure = { error };
    clearTimeout(this.#timer);
    const pending = [...this.#slots.filter((each) => each !== undefined), ...this.#waiting];
    this.#slots.fill(undefined);
    this.#waiting.length = 0;
    this.#outgoing.length = 0;
    for (const request of pending) {
      const { abandoned, asked } = request;
      request.settle({ error: abandoned === undefined ? this.#failureOf(asked) : abandoned.reason });
    }
    this.#drained?.();
  }

  #start(request: Request): void {
    const slot = this.#free.pop();
    if (slot === undefined) return;
    const slots = this.#slots.length;
    // The round makes a reply that comes twice, or far too late, name no request.
    request.cookie = (this.#round * slots + slot) % (0x1_0000_0000 - (0x1_0000_0000 % slots));
    this.#round++;
    this.#slots[slot] = request;
    if (request.asked.command === commands.read) this.#replies.lookahead = request.asked.length < straightLength;
    request.deadline = performance.now() + request.timeoutMs;
    this.#arm(request.deadline);
    request.sending = true;
    this.#outgoing.push(request);
    this.#pump();
  }

  /**
   * Hands the socket one payload at a time, or all headers that wait, so that each request knows when its own bytes
   * are in the kernel and the caller may have them back.
   */
  #pump(): void {
    if (this.#sending) return;
    const first = this.#outgoing.shift();
    if (first === undefined) return;
    this.#sending = true;
    const { data, headroom } = first.asked;
    if (data === undefined) {
      this.#sendHeaders(first);
    } else if (headroom === true) {
      const length = this.#extended ? 32 : 28;
      const whole = Buffer.from(data.buffer, data.byteOffset - length, length + data.byteLength);
      first.writeHeader(whole, 0, this.#extended);
      this.#wire.send(whole, undefined, () => this.#sent([first]));
    } else {
      const header = Buffer.allocUnsafe(nbdHeadroom);
      const length = first.writeHeader(header, 0, this.#extended);
      this.#wire.send(header.subarray(0, length), data, () => this.#sent([first]));
    }
  }

  #sendHeaders(first: Request): void {
    const batch = [first];
    while (this.#outgoing[0] !== undefined && this.#outgoing[0].asked.data === undefined) {
      const next = this.#outgoing.shift();
      if (next !== undefined) batch.push(next);
    }
    const headers = Buffer.allocUnsafe(nbdHeadroom * batch.length);
    let at = 0;
    for (const each of batch) at += each.writeHeader(headers, at, this.#extended);
    this.#wire.send(headers.subarray(0, at), undefined, () => this.#sent(batch));
  }

  #sent(batch: readonly Request[]): void {
    this.#sending = false;
    if (this.#failure !== undefined) return;
    for (const request of batch) {
      request.sending = false;
      if (request.abandoned !== undefined && !this.#ownedByKernel(request))
        request.settle({ error: request.abandoned.reason });
      this.#settle(request);
    }
    this.#pump();
  }

  /** Frees the slot and wakes the caller, once the reply is there and the socket needs our bytes no more. */
  #settle(request: Request): void {
    if (!request.answered || request.sending) return;
    const slot = request.cookie % this.#slots.length;
    if (this.#slots[slot] !== request) return;
    this.#slots[slot] = undefined;
    this.#free.push(slot);
    request.settle(request.error === undefined ? undefined : { error: request.error });
    const next = this.#waiting.shift();
    if (next !== undefined) this.#start(next);
    else if (this.#free.length === this.#slots.length) this.#drained?.();
  }

  /**
   * The caller waits no more. What was not sent is forgotten; what was keeps its slot until the server answers, and
   * the caller gets its memory back only when neither the kernel nor the socket can touch it any more.
   */
  #abandon(request: Request, reason: unknown): void {
    const waiting = this.#waiting.indexOf(request);
    if (waiting >= 0) this.#waiting.splice(waiting, 1);
    const outgoing = this.#outgoing.indexOf(request);
    if (outgoing >= 0) {
      this.#outgoing.splice(outgoing, 1);
      request.sending = false;
      request.answered = true;
    }
    const inUse = (request.asked.data !== undefined && request.sending) || this.#ownedByKernel(request);
    if (inUse) {
      request.abandoned = { reason };
      return;
    }
    this.#replies.release(request);
    request.settle({ error: reason });
    if (outgoing >= 0) this.#settle(request);
  }

  #ownedByKernel(request: Request): boolean {
    return this.#replies.isReceiving(request) && this.#wire.kernelOwnsPlace;
  }

  #arm(deadline: number): void {
    if (deadline >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = deadline;
    const delay = Math.min(Math.max(deadline - performance.now(), 0) + 1, 0x7fff_ffff);
    this.#timer = setTimeout(() => this.#overdue(), delay);
    // The socket keeps the process alive, not our clock.
    this.#timer.unref();
  }

  #overdue(): void {
    this.#timerAt = Infinity;
    const now = performance.now();
    let nearest: Request | undefined;
    for (const each of this.#slots) {
      if (each !== undefined && each.deadline < (nearest?.deadline ?? Infinity)) nearest = each;
    }
    if (nearest === undefined) return;
    if (nearest.deadline > now) {
      this.#arm(nearest.deadline);
      return;
    }
    const { asked, timeoutMs } = nearest;
    this.fail(unavailable(`${this.#what(asked)}: no answer within ${timeoutMs} ms`, this.#operation(asked)));
  }

  async #close(): Promise<void> {
    if (this.#free.length < this.#slots.length && this.#failure === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#drained = resolve;
      const timer = setTimeout(resolve, drainGraceMs);
      await promise;
      clearTimeout(timer);
    }
    if (this.#failure !== undefined) return;
    this.#sendDisconnect();
    await this.#wire.end(closeGraceMs);
  }

  #sendDisconnect(): void {
    const asked = { command: commands.disconnect, flags: 0, offset: 0, length: 0 };
    const header = Buffer.alloc(nbdHeadroom);
    const length = new Request(asked, 0, undefined, noop, noop).writeHeader(header, 0, this.#extended);
    this.#wire.send(header.subarray(0, length), undefined, noop);
  }

  #failureOf(asked: Asked): ProviderError {
    const cause = this.#failure?.error;
    const why = cause instanceof Error ? cause.message : "the session is over";
    const short = why.replace(`${this.#wire.subject}: `, "");
    return unavailable(`${this.#what(asked)}: ${short}`, this.#operation(asked), cause);
  }

  #operation(asked: Asked): string {
    return `nbd ${commandNames.get(asked.command) ?? "request"}`;
  }

  #what(asked: Asked): string {
    const name = commandNames.get(asked.command) ?? "request";
    const where = asked.length === 0 ? "" : ` of ${asked.length} bytes at ${asked.offset}`;
    return `${this.#wire.subject}: ${name}${where}`;
  }
}

function noop(): void {}
