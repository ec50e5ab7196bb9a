import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { FaultAction } from "./fault-plan.ts";

const bodyLimit = 8 << 20;

/** One HTTP request with its answer, and what the fault plan does to it. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** Fires when the client is gone or the simulator stops. */
  readonly signal: AbortSignal;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.request = request;
    this.response = response;
    this.url = new URL(request.url ?? "/", "http://simulator");
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    this.signal = gone.signal;
  }

  /** A header's text. */
  header(name: string): string | undefined {
    const value = this.request.headers[name];
    return Array.isArray(value) ? value[0] : value;
  }

  /** The session id of vim25's cookie, with or without the quotes it was issued with. */
  get cookie(): string | undefined {
    return /(?:^|;\s*)vmware_soap_session="?([^";]+)"?/.exec(this.header("cookie") ?? "")?.[1];
  }

  /** User and password of Basic authentication. */
  get basic(): { user: string; password: string } | undefined {
    const match = /^Basic (.+)$/.exec(this.header("authorization") ?? "");
    if (match === null) return undefined;
    const text = Buffer.from(match[1] ?? "", "base64").toString("utf8");
    const cut = text.indexOf(":");
    return { user: text.slice(0, cut), password: text.slice(cut + 1) };
  }

  /** The request's body as text, at most 8 MiB. */
  async body(): Promise<string> {
    const parts: Buffer[] = [];
    let length = 0;
    for await (const part of this.request as AsyncIterable<Buffer>) {
      length += part.length;
      if (length > bodyLimit) throw new RangeError("the request is too long");
      parts.push(part);
    }
    return Buffer.concat(parts).toString("utf8");
  }

  /** Answers at once. */
  send(status: number, headers: Record<string, string>, body: string | Buffer = ""): void {
    if (this.response.headersSent || this.response.destroyed) return;
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    this.response.writeHead(status, { ...headers, "content-length": String(bytes.length) });
    this.response.end(this.request.method === "HEAD" ? undefined : bytes);
  }

  /** Answers with JSON. */
  json(status: number, value: unknown, headers: Record<string, string> = {}): void {
    this.send(
      status,
      { ...headers, "content-type": "application/json" },
      value === undefined ? "" : JSON.stringify(value),
    );
  }

  /** Cuts the connection. */
  cut(): void {
    this.request.socket.destroy();
  }

  /**
   * Streams with back-pressure, at most `bytesPerSecond`; a `truncate` ends it early, and the connection with it, as a
   * server does that finds its own answer too short.
   */
  async stream(
    parts: AsyncIterable<Buffer> | Iterable<Buffer>,
    options: { bytesPerSecond: number | undefined; truncate: FaultAction | undefined },
  ): Promise<void> {
    const { response } = this;
    const cut = options.truncate?.kind === "truncate" ? options.truncate : undefined;
    let left = cut?.bytes ?? Infinity;
    for await (const part of parts) {
      if (response.destroyed) return;
      const bytes = part.subarray(0, Math.min(left, part.length));
      left -= bytes.length;
      const room = response.write(bytes);
      if (left <= 0 && cut !== undefined) {
        if (!cut.clean) {
          // What was written so far reaches the client, then the connection breaks.
          await new Promise<void>((resolve) => response.write("", () => resolve()));
          this.cut();
          return;
        }
        break;
      }
      if (!room) await once(response, "drain", { signal: this.signal });
      if (options.bytesPerSecond !== undefined) {
        await sleep((bytes.length / options.bytesPerSecond) * 1000, undefined, { signal: this.signal });
      }
    }
    response.end(() => {
      if (cut !== undefined) this.request.socket.end();
    });
  }
}
