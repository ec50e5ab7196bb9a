import type { Socket } from "node:net";
import type { BlockPool } from "./block-pool.ts";
import type { ExportDirectory, NbdConnectionRequest } from "./exports.ts";
import { greet, Negotiation, type NegotiationResult } from "./negotiation.ts";
import { ConnectionEnded, Receiver } from "./receiver.ts";
import type { Session } from "./session.ts";
import { secureSocket, type NbdServerTls } from "./tls.ts";
import { Transmission, type TransmissionLimits } from "./transmission.ts";

/** Bytes per second that a payload or a reply must make on top of its deadline: 1 MiB. */
const slowestRate = 1024 * 1024;
/** How long a client may take to take its last answers and close, in milliseconds. */
const farewellMs = 2000;

/** Deadlines, in milliseconds. */
export interface ConnectionDeadlines {
  readonly handshakeMs: number;
  readonly messageMs: number;
  /** Infinity: none. */
  readonly idleMs: number;
}

/** What a connection shares with its server. */
export interface ConnectionParts {
  readonly exports: ExportDirectory;
  readonly pool: BlockPool;
  readonly tls: NbdServerTls | undefined;
  readonly limits: TransmissionLimits;
  readonly deadlines: ConnectionDeadlines;
  readonly forced: AbortSignal;
  readonly closing: () => boolean;
  readonly notice: (message: string) => void;
}

/** One client, from its first byte to its last. Nothing a client sends makes it throw. */
export class Connection {
  /** Resolves once the socket is closed and the backend works on nothing of it. Never rejects. */
  readonly finished: Promise<void>;
  /** Resolves once the socket is closed. */
  readonly closed: Promise<void>;
  readonly #parts: ConnectionParts;
  readonly #plain: Socket;
  readonly #gone = new AbortController();
  readonly #lost: Promise<never>;
  #socket: Socket;
  #receiver: Receiver;
  #session: Session | undefined;
  #transmission: Transmission | undefined;
  #client: Omit<NbdConnectionRequest, "exportName" | "epoch">;
  #handshakeTimer: NodeJS.Timeout | undefined;
  #payloadDeadline = Infinity;
  #replyDeadline = Infinity;
  #waiting: { message: number; since: number; inside: boolean } | undefined;

  constructor(socket: Socket, parts: ConnectionParts) {
    this.#parts = parts;
    this.#plain = socket;
    this.#socket = socket;
    this.#client = socket.remoteAddress === undefined ? {} : { remoteAddress: socket.remoteAddress };
    this.#receiver = new Receiver(socket);
    // Also keeps a reset from becoming an uncaught error, whoever else listens at the time.
    socket.on("error", () => socket.destroy());
    this.closed = new Promise((resolve) => {
      socket.on("close", () => {
        this.#gone.abort(new ConnectionEnded(false));
        this.#transmission?.wake();
        resolve();
      });
    });
    this.#lost = new Promise((_resolve, reject) => {
      this.#gone.signal.addEventListener("abort", () => reject(this.#gone.signal.reason as Error), { once: true });
    });
    // Usually nobody waits for it: the connection ends in other ways.
    this.#lost.catch(() => undefined);
    this.#handshakeTimer = setTimeout(() => this.#cut("the handshake took too long"), parts.deadlines.handshakeMs);
    this.finished = this.#live();
  }

  /** What it was opened for, once the handshake is through. */
  get session(): Session | undefined {
    return this.#session;
  }

  get client(): Omit<NbdConnectionRequest, "exportName" | "epoch"> {
    return this.#client;
  }

  /** Takes no more requests, lets what is under way end, answers and closes. Resolves when that is done. */
  async retire(): Promise<void> {
    const transmission = this.#transmission;
    if (transmission === undefined) {
      this.destroy();
    } else {
      transmission.stop();
      await transmission.drained();
      const timer = setTimeout(() => this.destroy(), farewellMs);
      await transmission.answered();
      clearTimeout(timer);
      await this.#closeSoftly();
    }
    await this.finished;
  }

  /** Closes now. What the backend works on is not waited for. */
  destroy(): void {
    // At once, not with the socket's event: requests that were received already shall not be begun any more.
    this.#transmission?.stop();
    this.#gone.abort(new ConnectionEnded(false));
    this.#socket.destroy();
    this.#plain.destroy();
  }

  /** Looks at the clock; called by the server every now and then. */
  watch(now: number): void {
    if (this.#transmission === undefined) return;
    if (now > this.#payloadDeadline) this.#cut("a payload took too long to arrive");
    else if (now > this.#replyDeadline) this.#cut("the client does not take its answers");
    else this.#watchReceiver(now, this.#transmission);
  }

  /** A message that began and does not go on, or a client that does nothing at all. */
  #watchReceiver(now: number, transmission: Transmission): void {
    const { waitingInside: inside, waitingBetween: between, message } = this.#receiver;
    const relevant = (inside && this.#payloadDeadline === Infinity) || (between && transmission.idle);
    if (!relevant) {
      this.#waiting = undefined;
    } else if (this.#waiting?.message !== message || this.#waiting.inside !== inside) {
      this.#waiting = { message, since: now, inside };
    } else {
      const { messageMs, idleMs } = this.#parts.deadlines;
      if (now - this.#waiting.since > (inside ? messageMs : idleMs)) {
        this.#cut(inside ? "a request took too long to arrive" : "the client was idle for too long");
      }
    }
  }

  async #live(): Promise<void> {
    try {
      const reason = await this.#serve();
      if (reason !== undefined) this.#parts.notice(reason);
    } catch (error) {
      // A client that is gone without a farewell wants no more reads; its writes end as they were begun.
      if (error instanceof ConnectionEnded) this.#gone.abort(error);
      if (!(error instanceof ConnectionEnded && error.clean)) this.#parts.notice(explain(error));
    }
    clearTimeout(this.#handshakeTimer);
    const transmission = this.#transmission;
    transmission?.stop();
    await transmission?.drained();
    // As long as the client takes its answers: `watch` ends it when it does not.
    await transmission?.answered();
    await this.#closeSoftly();
    await this.closed;
  }

  async #serve(): Promise<string | undefined> {
    const { noZeroes } = await greet(this.#socket, this.#receiver);
    let result = await this.#negotiate(noZeroes, this.#parts.tls === undefined ? "off" : "required");
    if (result.kind === "tls") {
      await this.#secure();
      result = await this.#negotiate(noZeroes, "done");
    }
    if (result.kind === "tls") throw new Error("TLS was asked for inside TLS");
    if (result.kind === "end") return result.reason;
    clearTimeout(this.#handshakeTimer);
    return this.#transmit(result.session);
  }

  async #negotiate(noZeroes: boolean, tls: "off" | "required" | "done"): Promise<NegotiationResult> {
    const { exports, limits, closing } = this.#parts;
    const negotiation = new Negotiation(
      {
        socket: this.#socket,
        receiver: this.#receiver,
        exports,
        client: this.#client,
        tls,
        maximumPayload: limits.payload,
        closing,
      },
      noZeroes,
    );
    // A hook of the server's owner may never settle; a connection that is gone does not wait for it.
    return Promise.race([negotiation.run(), this.#lost]);
  }

  async #secure(): Promise<void> {
    if (this.#parts.tls === undefined) throw new Error("TLS was not configured");
    this.#receiver.detach();
    const secured = await secureSocket(this.#plain, this.#parts.tls);
    this.#socket = secured.socket;
    this.#socket.on("error", () => this.destroy());
    this.#socket.on("close", () => this.#plain.destroy());
    this.#receiver = new Receiver(secured.socket);
    this.#client = {
      ...this.#client,
      ...(secured.peerCertificate === undefined ? {} : { peerCertificate: secured.peerCertificate }),
      ...(secured.pskIdentity === undefined ? {} : { pskIdentity: secured.pskIdentity }),
    };
  }

  async #transmit(session: Session): Promise<string | undefined> {
    // A fence may have come while the handshake waited; from here on it finds this connection by its session.
    this.#parts.exports.checkEpoch(session.exportName, session.epoch);
    if (this.#parts.closing()) return "the server is being closed";
    this.#session = session;
    const { pool, limits, forced, notice } = this.#parts;
    this.#transmission = new Transmission(
      {
        socket: this.#socket,
        receiver: this.#receiver,
        pool,
        limits,
        gone: this.#gone.signal,
        forced,
        expect: (what, bytes) => this.#expect(what, bytes),
        notice,
      },
      session,
    );
    return this.#transmission.run();
  }

  #expect(what: "payload" | "reply", bytes: number): void {
    const { messageMs } = this.#parts.deadlines;
    const deadline = bytes === 0 ? Infinity : performance.now() + messageMs + (bytes / slowestRate) * 1000;
    if (what === "payload") this.#payloadDeadline = deadline;
    else this.#replyDeadline = deadline;
  }

  /** Sends what is still to be sent and closes, whatever the client does. */
  async #closeSoftly(): Promise<void> {
    if (this.#plain.destroyed) return;
    const timer = setTimeout(() => this.destroy(), farewellMs);
    // What a client sends after its end is thrown away, else it would never see ours.
    this.#socket.end(() => this.destroy());
    await this.closed;
    clearTimeout(timer);
  }

  #cut(reason: string): void {
    this.#parts.notice(reason);
    this.destroy();
  }
}

function explain(error: unknown): string {
  return `connection ended: ${error instanceof Error ? error.message : String(error)}`;
}
