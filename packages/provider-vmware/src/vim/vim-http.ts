import { createHash, timingSafeEqual, type X509Certificate } from "node:crypto";
import type { Readable } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { Wait } from "@diskferry/core/provider";
import { Agent, buildConnector } from "undici";
import { translateTransport, vsphereError } from "../errors.ts";

/** Whom to believe that a server is the right one. Nothing given: the authorities of this system. */
export interface Trust {
  /** Authorities in PEM, instead of the system's. */
  ca?: string | undefined;
  /**
   * The SHA-256 or SHA-1 digest of the server's certificate in hexadecimal, with or without colons. It replaces every
   * other check, that of the expiry included.
   */
  thumbprint?: string | undefined;
}

/** A whole answer, read within a bound. */
export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
  readonly setCookie: readonly string[];
  /** A header by its lower-case name. */
  header(name: string): string | undefined;
}

/** An answer whose body is still to be read; whoever has it reads or destroys it. */
export interface HttpStream {
  readonly status: number;
  readonly body: Readable;
  header(name: string): string | undefined;
}

export interface HttpRequest extends Wait {
  method?: "GET" | "HEAD" | "POST" | "DELETE" | "PUT" | "PATCH";
  headers?: Record<string, string>;
  body?: string;
  /** Milliseconds for all of it; default that of the client. */
  timeoutMs?: number;
  /** What is being done, for messages. */
  operation: string;
  /** A call that waits at the server for long: it does not take a place of the others. */
  waits?: boolean;
}

/** How a client reaches one server. */
export interface HttpOptions {
  /** `https://host[:port]`; `http:` only for a server on this machine. */
  origin: URL;
  trust?: Trust | undefined;
  /** Milliseconds that one request may take in all. */
  timeoutMs: number;
  /** Milliseconds until a connection stands. */
  connectTimeoutMs?: number | undefined;
  /** Connections for calls; what streams or waits has its own. */
  connections?: number | undefined;
}

/** An API answer larger than this is a fault of the server; a page of a thousand machines has a few MiB. */
const mostAnswerBytes = 64 << 20;
const streamsAtOnce = 64;

/** HTTP to one server: verified or pinned TLS, bounds on time and size, errors translated. It retries nothing. */
export class VimHttp implements AsyncDisposable {
  readonly origin: URL;
  readonly #options: HttpOptions;
  readonly #calls: Agent;
  readonly #streams: Agent;

  constructor(options: HttpOptions) {
    const { origin, trust = {}, timeoutMs, connectTimeoutMs = 30_000, connections = 8 } = options;
    if (origin.protocol !== "https:" && !(origin.protocol === "http:" && isLoopback(origin.hostname))) {
      throw vsphereError("CONFIG_INVALID", `${origin.origin} is not https: a password would go over the wire in clear`);
    }
    this.origin = origin;
    this.#options = options;
    const connect = trustingConnector(trust, connectTimeoutMs);
    const agent = (limit: number): Agent =>
      new Agent({ connect, connections: limit, headersTimeout: timeoutMs, bodyTimeout: timeoutMs });
    this.#calls = agent(connections);
    this.#streams = agent(streamsAtOnce);
  }

  /** Whom this client believes. */
  get trust(): Trust {
    return this.#options.trust ?? {};
  }

  /** The server's name and port, for messages. */
  get host(): string {
    return this.origin.host;
  }

  /** The same kind of client for another server, such as the host that a lease's link names. */
  forServer(origin: URL, trust: Trust | undefined): VimHttp {
    return new VimHttp({ ...this.#options, origin, trust });
  }

  /**
   * One request and its whole answer.
   *
   * @throws ProviderError UNAVAILABLE (retryable) for what breaks, hangs or is cut short; AUTH where the server is not
   * the one to be trusted
   */
  async request(path: string, request: HttpRequest): Promise<HttpAnswer> {
    const { signal, timeoutMs = this.#options.timeoutMs, operation } = request;
    signal?.throwIfAborted();
    const timeout = AbortSignal.timeout(timeoutMs);
    const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
    try {
      const { statusCode, headers, body } = await this.#send(path, request, either);
      const text = await readBounded(body, operation, this.host);
      const setCookie = headers["set-cookie"];
      return {
        status: statusCode,
        body: text,
        setCookie: setCookie === undefined ? [] : Array.isArray(setCookie) ? setCookie : [setCookie],
        header: (name) => first(headers[name]),
      };
    } catch (error) {
      signal?.throwIfAborted();
      if (timeout.aborted) {
        throw vsphereError(
          "UNAVAILABLE",
          `${operation} at ${this.host} was not answered within ${timeoutMs / 1000} s`,
          {
            operation,
            cause: error,
          },
        );
      }
      throw translateTransport(error, operation, this.host);
    }
  }

  /**
   * One request whose body is read as it comes (a datastore's file, a lease's disk). The time-out holds for the wait for
   * each piece, not for all of it. `path` may be a whole URL of this server.
   */
  async stream(path: string, request: HttpRequest): Promise<HttpStream> {
    const { signal, operation } = request;
    signal?.throwIfAborted();
    try {
      const { statusCode, headers, body } = await this.#send(path, { ...request, waits: true }, signal);
      return { status: statusCode, body, header: (name) => first(headers[name]) };
    } catch (error) {
      signal?.throwIfAborted();
      throw translateTransport(error, operation, this.host);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#calls.destroy(), this.#streams.destroy()]);
  }

  #send(path: string, request: HttpRequest, signal: AbortSignal | undefined): ReturnType<Agent["request"]> {
    const agent = request.waits === true ? this.#streams : this.#calls;
    return agent.request({
      origin: this.origin.origin,
      path,
      method: request.method ?? "POST",
      headers: { "user-agent": "diskferry", ...request.headers },
      body: request.body ?? null,
      signal: signal ?? null,
    });
  }
}

function first(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

async function readBounded(body: Readable, operation: string, host: string): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of body as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > mostAnswerBytes) {
      throw vsphereError("UNEXPECTED", `${operation} at ${host} was answered by more than ${mostAnswerBytes} bytes`, {
        operation,
      });
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** Whether a host name is this machine. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
}

/** A thumbprint as lower-case hexadecimal with the algorithm its length tells; undefined for what is none. */
export function parseThumbprint(text: string): { algorithm: "sha1" | "sha256"; hex: string } | undefined {
  const hex = text.replace(/[:\s]/g, "").toLowerCase();
  if (!/^[0-9a-f]+$/.test(hex)) return undefined;
  if (hex.length === 40) return { algorithm: "sha1", hex };
  return hex.length === 64 ? { algorithm: "sha256", hex } : undefined;
}

/** A certificate's digest in capital hexadecimal with colons, as vSphere writes thumbprints. */
export function thumbprintOf(certificate: X509Certificate, algorithm: "sha1" | "sha256"): string {
  return algorithm === "sha1" ? certificate.fingerprint : certificate.fingerprint256;
}

function trustingConnector(trust: Trust, timeout: number): buildConnector.connector {
  const { thumbprint, ca } = trust;
  const pin = thumbprint === undefined ? undefined : parseThumbprint(thumbprint);
  if (thumbprint !== undefined && pin === undefined) {
    throw vsphereError("CONFIG_INVALID", "the thumbprint is neither a SHA-256 nor a SHA-1 digest in hexadecimal");
  }
  const connect = buildConnector({
    timeout,
    // A resumed session would not show the certificate that the pin is compared with.
    maxCachedSessions: 0,
    ...(ca === undefined ? {} : { ca }),
    ...(pin === undefined ? {} : { rejectUnauthorized: false }),
  });
  if (pin === undefined) return connect;
  return (options, callback) =>
    connect(options, (...[error, socket]) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      const certificate = (socket as Partial<TLSSocket>).getPeerX509Certificate?.();
      const digest = certificate === undefined ? undefined : createHash(pin.algorithm).update(certificate.raw).digest();
      if (digest !== undefined && timingSafeEqual(digest, Buffer.from(pin.hex, "hex"))) {
        callback(null, socket);
        return;
      }
      socket.destroy();
      const shown = certificate === undefined ? "none" : thumbprintOf(certificate, pin.algorithm);
      callback(
        vsphereError(
          "AUTH",
          `${options.hostname} shows a certificate with the thumbprint ${shown}, which is not the one that was pinned; ` +
            `make sure that it is the right server and that the certificate was renewed, then pin the new one`,
          { operation: "connect" },
        ),
        null,
      );
    });
}
