import { type Socket, connect as connectTcp, isIP } from "node:net";
import { type TLSSocket, connect as connectTls } from "node:tls";
import { AwsFailure } from "../errors.ts";
import { type AnswerHead, AnswerParser } from "./http-answer.ts";

/** One request on its way and what becomes of it. */
export interface Exchange {
  /** First line and headers, with the empty line behind them. */
  readonly head: string;
  /** Sent as it is; not to be changed before the exchange is over. */
  readonly body: Uint8Array | undefined;
  /** Called once. What it throws ends the exchange. */
  onHead(head: AnswerHead): void;
  /** The next bytes of the body, which are good for this moment only. What it throws ends the exchange. */
  onBody(bytes: Buffer): void;
  /** The answer was read whole. */
  onEnd(): void;
  /** It was not, and the connection is closed. */
  onFailure(error: unknown): void;
}

/** Where connections go. */
export interface ConnectPlace {
  endpoint: URL;
  /** The longest that a connection may take, TLS included, in milliseconds. */
  connectMs: number;
}

/** What the kernel or TLS gives at once, at most, in bytes. */
const readBytes = 256 * 1024;
/** Memory that every connection of the process reads into, one at a time: each read is used before the next begins. */
const scratch = Buffer.allocUnsafeSlow(readBytes);

/** TLS sessions by endpoint, so that the second connection costs no signatures. */
export type Sessions = Map<string, Buffer>;

/** What its owner is told. */
export interface ConnectionEvents {
  sessions: Sessions;
  /** After each exchange that left it usable. */
  onFree(): void;
  /** Once, at its end. */
  onClosed(): void;
}

/** One connection of HTTP/1.1, plain or over TLS, with one exchange at a time. */
export class HttpConnection {
  readonly #socket: Socket;
  readonly #events: ConnectionEvents;
  #exchange: Exchange | undefined;
  #parser: AnswerParser | undefined;
  #isSent = true;
  #isClosed = false;
  #connecting: NodeJS.Timeout | undefined;
  /** Since when it carries nothing, on the clock of `performance.now`. */
  idleSince = 0;

  /** Begins to connect. */
  constructor({ endpoint, connectMs }: ConnectPlace, events: ConnectionEvents) {
    this.#events = events;
    this.#socket = this.#connect(endpoint, events.sessions);
    const message = `No connection to ${endpoint.host} after ${connectMs} ms`;
    this.#connecting = setTimeout(() => this.#fail(new AwsFailure("TimeoutError", message)), connectMs);
    const socket = this.#socket.setNoDelay(true).setKeepAlive(true, 60_000);
    socket.once(endpoint.protocol === "https:" ? "secureConnect" : "connect", () => clearTimeout(this.#connecting));
    socket.on("error", (error) => this.#fail(error));
    socket.on("end", () => this.#ended());
    socket.on("close", () => this.#fail(new AwsFailure("ECONNRESET", "The connection was closed")));
  }

  /** Sends a request. Only one may be under way. */
  send(exchange: Exchange): void {
    if (this.#exchange !== undefined) throw new TypeError("an exchange is under way on this connection");
    this.#exchange = exchange;
    this.#parser = new AnswerParser(
      (head) => exchange.onHead(head),
      (bytes) => {
        // A part of the same delivery may have ended it.
        if (this.#exchange === exchange) exchange.onBody(bytes);
      },
    );
    const socket = this.#socket;
    socket.ref();
    if (exchange.body === undefined) {
      this.#isSent = true;
      socket.write(exchange.head, "latin1");
      return;
    }
    this.#isSent = false;
    socket.cork();
    socket.write(exchange.head, "latin1");
    socket.write(exchange.body, () => {
      if (this.#exchange === exchange) this.#isSent = true;
    });
    socket.uncork();
  }

  /** Ends it where it carries this exchange, which is told no more. Nothing is sent or taken afterwards. */
  cancel(exchange: Exchange): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = undefined;
    this.#fail(undefined);
  }

  /** Ends it; an exchange that is under way fails. */
  close(error?: unknown): void {
    this.#fail(error);
  }

  #connect(endpoint: URL, sessions: Sessions): Socket {
    // An IPv6 address has brackets in a URL alone.
    const host = endpoint.hostname.replace(/^\[(.*)\]$/, "$1");
    const isTls = endpoint.protocol === "https:";
    const port = endpoint.port === "" ? (isTls ? 443 : 80) : Number(endpoint.port);
    const onread = {
      buffer: scratch,
      callback: (length: number) => {
        this.#take(scratch.subarray(0, length));
        return true;
      },
    };
    if (!isTls) return connectTcp({ host, port, onread });
    const session = sessions.get(endpoint.host);
    const socket: TLSSocket = connectTls({
      host,
      port,
      // A name only: addresses are looked for in the certificate, but not announced.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ALPNProtocols: ["http/1.1"],
      ...(session === undefined ? {} : { session }),
      // Handed on to the socket (Node, tls.connect: options of socket.connect), which its types do not say.
      ...({ onread } as object),
    });
    socket.on("session", (given) => sessions.set(endpoint.host, given));
    return socket;
  }

  #take(bytes: Buffer): void {
    const exchange = this.#exchange;
    const parser = this.#parser;
    // What nobody asked for may be meant as the answer to the next request.
    if (exchange === undefined || parser === undefined)
      return this.#fail(new AwsFailure("MalformedHttpAnswer", "More came than was asked for"));
    try {
      const used = parser.push(bytes);
      if (parser.isDone && this.#exchange === exchange)
        this.#finish(parser.leavesConnection && used === bytes.byteLength);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The far side sends no more. */
  #ended(): void {
    try {
      this.#parser?.close();
    } catch (error) {
      return this.#fail(error);
    }
    if (this.#exchange !== undefined) this.#finish(false);
    this.#fail(undefined);
  }

  /** The exchange is over and its answer whole; a request that was not sent whole leaves the connection no use. */
  #finish(isLeft: boolean): void {
    const exchange = this.#exchange!;
    this.#exchange = this.#parser = undefined;
    const isFree = isLeft && this.#isSent && !this.#isClosed;
    if (!isFree) this.#fail(undefined);
    exchange.onEnd();
    if (!isFree || this.#isClosed) return;
    this.#socket.unref();
    this.idleSince = performance.now();
    this.#events.onFree();
  }

  #fail(error: unknown): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#connecting);
    const exchange = this.#exchange;
    this.#exchange = this.#parser = undefined;
    this.#socket.destroy();
    this.#events.onClosed();
    exchange?.onFailure(error);
  }
}
