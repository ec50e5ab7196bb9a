import { X509Certificate, createHash } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { Agent, buildConnector, type Dispatcher, request } from "undici";
import type { Wait } from "@diskferry/core/provider";
import { cloudstackError, lostAnswer } from "../errors.ts";

/** Whom the server's certificate is believed from. Absent: the authorities that Node trusts. */
export interface TlsTrust {
  /** Authorities in PEM, instead of Node's. */
  ca?: string | readonly string[] | undefined;
  /** SHA-256 fingerprint of that very certificate, 64 hex digits with or without colons; takes the place of every other check. */
  pin?: string | undefined;
}

/** How long things may take, in milliseconds. */
export interface TransportTimeouts {
  connectMs: number;
  /** From the request to the last byte of its answer. */
  requestMs: number;
}

/** One answer of the server, whatever its status. */
export interface RawAnswer {
  status: number;
  body: string;
  /** `Date` of the answer in milliseconds; undefined where the server tells none. */
  serverTime: number | undefined;
  cookies: string[];
}

/** Sends a form and gives back the answer. */
export interface Transport {
  /** @throws ProviderError UNAVAILABLE; of an answer that was lost on its way `isLostAnswer` is true */
  post(form: URLSearchParams, command: string, options: { cookie?: string | undefined } & Wait): Promise<RawAnswer>;
  close(): Promise<void>;
}

/** Answers are pages of at most some hundred rows; more is no answer of CloudStack. */
const LONGEST_ANSWER = 64 * 1024 * 1024;
const CONNECTIONS = 8;

/** Reaches an API endpoint over HTTP or HTTPS. */
export function openTransport(endpoint: string, trust: TlsTrust, timeouts: TransportTimeouts): Transport {
  const agent = httpAgent(trust, timeouts);
  const place = new URL(endpoint);
  return {
    async post(form, command, { cookie, signal }) {
      signal?.throwIfAborted();
      const limit = AbortSignal.timeout(timeouts.requestMs);
      try {
        const answer = await request(place, {
          dispatcher: agent,
          method: "POST",
          headers: {
            "content-type": "application/x-www-form-urlencoded; charset=utf-8",
            accept: "application/json",
            ...(cookie === undefined ? {} : { cookie }),
          },
          body: form.toString(),
          signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
        });
        return {
          status: answer.statusCode,
          body: await textOf(answer.body),
          serverTime: timeOf(answer.headers["date"]),
          cookies: [answer.headers["set-cookie"] ?? []].flat(),
        };
      } catch (error) {
        signal?.throwIfAborted();
        throw transportFailure(error, command, place.host, limit.aborted ? timeouts.requestMs : undefined);
      }
    },
    close: () => agent.close(),
  };
}

/** Connections that believe whom the trust names. */
export function httpAgent(trust: TlsTrust, timeouts: TransportTimeouts): Agent {
  const { ca, pin } = trust;
  const options = {
    timeout: timeouts.connectMs,
    ...(ca === undefined ? {} : { ca: typeof ca === "string" ? ca : [...ca] }),
    // A session that is taken up again shows no certificate to compare.
    ...(pin === undefined ? {} : { rejectUnauthorized: false, maxCachedSessions: 0 }),
  };
  const connect = buildConnector(options);
  return new Agent({
    connections: CONNECTIONS,
    headersTimeout: timeouts.requestMs,
    bodyTimeout: timeouts.requestMs,
    connect:
      pin === undefined
        ? options
        : (target, done) =>
            connect(target, (...outcome) => {
              const [, socket] = outcome;
              // Compared before a byte is sent: what was signed is for the pinned server alone.
              if (socket === null || !("getPeerCertificate" in socket)) return done(...outcome);
              const shown = fingerprintOf(socket);
              if (shown === plainHex(pin)) return done(...outcome);
              socket.destroy();
              const what =
                shown === undefined ? "no certificate" : `a certificate with the SHA-256 fingerprint ${shown}`;
              done(pinFailure(target.hostname, what), null);
            }),
  });
}

function fingerprintOf(socket: TLSSocket): string | undefined {
  const raw = socket.getPeerCertificate().raw as Buffer | undefined;
  if (raw === undefined) return undefined;
  return createHash("sha256").update(new X509Certificate(raw).raw).digest("hex");
}

function plainHex(text: string): string {
  return text.replaceAll(":", "").toLowerCase();
}

function pinFailure(host: string, what: string): Error {
  return cloudstackError(
    "AUTH",
    `${host} shows ${what}, which is not the pinned one. Nothing was sent. Compare it with the server's own, and set tls.pin.`,
    { operation: "connect" },
  );
}

async function textOf(body: Dispatcher.ResponseData["body"]): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of body as AsyncIterable<Buffer>) {
    length += part.byteLength;
    if (length > LONGEST_ANSWER) throw new Error(`the answer is longer than ${LONGEST_ANSWER} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function timeOf(header: string | string[] | undefined): number | undefined {
  const time = Date.parse([header ?? ""].flat()[0] ?? "");
  return Number.isNaN(time) ? undefined : time;
}

/** Failures before a connection stood: the server has seen nothing of the request. */
const unsent = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** What failed on the way to a server, with what to do about it. */
export function transportFailure(error: unknown, command: string, host: string, lateMs: number | undefined): Error {
  const known = error as { code?: unknown; message?: string; name?: string } | undefined;
  const code = typeof known?.code === "string" ? known.code : "";
  // A provider's error as cause: the pin's.
  if (known?.name === "ProviderError") return error as Error;
  const isCertificate = /CERT|SELF_SIGNED|ISSUER|ERR_TLS|ERR_SSL|UNABLE_TO/.test(code);
  if (isCertificate) {
    return cloudstackError(
      "AUTH",
      `${command}: the certificate of ${host} is not to be believed (${code}). Name its authority with tls.caFile, or the ` +
        `certificate itself with tls.pin.`,
      { operation: command, cause: error },
    );
  }
  if (unsent.has(code)) {
    return cloudstackError(
      "UNAVAILABLE",
      `${command}: ${host} cannot be reached (${code}). Check endpoint, network and port.`,
      {
        operation: command,
        cause: error,
      },
    );
  }
  const why = lateMs === undefined ? code || (known?.message ?? String(error)) : `no answer within ${lateMs} ms`;
  return lostAnswer(command, `${command}: the answer of ${host} was lost (${why}); it may have been done.`, error);
}
