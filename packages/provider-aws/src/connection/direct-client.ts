import { AwsFailure } from "../errors.ts";
import type { LimitedOperation } from "../limits/account-limits.ts";
import { ConnectionPool } from "./connection-pool.ts";
import type { Identity } from "./credentials.ts";
import type { AnswerHead } from "./http-answer.ts";
import type { Exchange } from "./http-connection.ts";
import { type Signer, amzDate, canonicalQuery } from "./sigv4.ts";

/** Headers of an answer, by names in lower case. */
export type AnswerHeaders = AnswerHead["headers"];

/** Takes an answer's body as it comes. */
export interface Receiver<Result> {
  /** The next bytes, which are the connection's: to be used at once, not kept. False: more than can be right has come. */
  take(bytes: Buffer): boolean;
  /** Called once, after the last byte; what it throws is the call's error. */
  end(): Result;
}

/** A call of the data plane, ready to be signed and sent any number of times. */
export interface DirectCall<Result> {
  readonly operation: LimitedOperation;
  readonly method: "GET" | "PUT";
  /** Percent-encoded, below the endpoint's own path. */
  readonly path: string;
  readonly query: Readonly<Record<string, string | number | undefined>>;
  /** Headers of AWS's that belong to the operation, by names in lower case; all are signed. */
  readonly headers: Readonly<Record<string, string>>;
  /** Sent as it is and never hashed here; not to be changed before the call ends. */
  readonly body?: Uint8Array;
  /** Called once for each answer that is no error. */
  receive(headers: AnswerHeaders): Receiver<Result>;
}

/** What of a place the client needs to know. */
export interface DirectPlace {
  endpoint: URL;
  signer: Signer;
  /** Connections at once. */
  connections: number;
  /** The longest that a connection may take, TLS included, in milliseconds. */
  connectMs: number;
  userAgent: string;
}

/** SHA-256 of nothing. */
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/** A body that AWS takes without its hash (EBS direct APIs, PutSnapshotBlock: authtype v4-unsigned-body). */
const unsigned = "UNSIGNED-PAYLOAD";
/** The longest text of an error that is read, in bytes. */
const longestError = 64 * 1024;
/** Clocks that differ by less are let be, in milliseconds: AWS takes five minutes, and its dates are whole seconds. */
const toleratedSkewMs = 60_000;

/**
 * Sends calls over kept connections, each signed anew and sent once: no retry, no redirect, no other deadline than the
 * caller's signal and the one for connecting. When a call has ended, for whatever reason, its receiver is left alone.
 */
export class DirectClient {
  readonly #place: DirectPlace;
  readonly #pool: ConnectionPool;
  readonly #base: string;
  /** What this machine's clock lacks, in milliseconds. */
  #skewMs = 0;

  constructor(place: DirectPlace) {
    this.#place = place;
    this.#pool = new ConnectionPool(place, place.connections);
    this.#base = place.endpoint.pathname.replace(/\/+$/, "");
  }

  /**
   * One attempt.
   * @throws AwsFailure for an answer that is an error; errors of the connection as Node has them; the signal's reason
   */
  send<Result>(call: DirectCall<Result>, identity: Identity, signal: AbortSignal): Promise<Result> {
    signal.throwIfAborted();
    const head = this.#head(call, identity);
    return new Promise((resolve, reject) => {
      let receiver: Receiver<Result> | undefined;
      const exchange: Exchange = {
        head,
        body: call.body,
        onHead: (answer) => {
          const isError = answer.status < 200 || answer.status > 299;
          receiver = isError ? this.#refusal(answer) : call.receive(answer.headers);
        },
        onBody(bytes) {
          if (receiver!.take(bytes)) return;
          receiver!.end();
          throw new AwsFailure("ERR_STREAM_PREMATURE_CLOSE", "The answer is longer than it can be");
        },
        onEnd() {
          signal.removeEventListener("abort", abort);
          try {
            resolve(receiver!.end());
          } catch (error) {
            reject(error);
          }
        },
        onFailure(error) {
          signal.removeEventListener("abort", abort);
          reject(error);
        },
      };
      const abort = (): void => {
        reject(signal.reason as Error);
        this.#pool.cancel(turn);
      };
      signal.addEventListener("abort", abort, { once: true });
      const turn = this.#pool.send(exchange);
    });
  }

  /** Ends all connections; what is under way fails. */
  destroy(): void {
    this.#pool.close();
  }

  /** The first line and the headers, as they are sent. */
  #head(call: DirectCall<unknown>, identity: Identity): string {
    const { endpoint, signer, userAgent } = this.#place;
    const { method, body } = call;
    const path = this.#base + call.path;
    const query = canonicalQuery(call.query);
    const payloadHash = body === undefined ? emptyHash : unsigned;
    const headers: Record<string, string> = {
      ...call.headers,
      host: endpoint.host,
      "x-amz-content-sha256": payloadHash,
      "x-amz-date": amzDate(Date.now() + this.#skewMs),
    };
    if (identity.sessionToken !== undefined) headers["x-amz-security-token"] = identity.sessionToken;
    headers["authorization"] = signer.authorization({ method, path, query, headers, payloadHash }, identity);
    headers["user-agent"] = userAgent;
    if (body !== undefined) {
      headers["content-type"] = "application/octet-stream";
      headers["content-length"] = String(body.byteLength);
    }
    let head = `${method} ${query === "" ? path : `${path}?${query}`} HTTP/1.1\r\n`;
    for (const name in headers) {
      const value = headers[name]!;
      // The value stays out of the message: it may be the session token.
      if (!/^[\t\x20-\x7e]*$/.test(value)) throw new TypeError(`the header ${name} cannot be sent: it has to be ASCII`);
      head += `${name}: ${value}\r\n`;
    }
    return `${head}\r\n`;
  }

  /** Reads an answer that is an error, by AWS's header and its JSON (`Message`, `Reason`). */
  #refusal(answer: AnswerHead): Receiver<never> {
    const parts: Buffer[] = [];
    let length = 0;
    return {
      take(bytes) {
        length += bytes.byteLength;
        parts.push(Buffer.from(bytes));
        return length <= longestError;
      },
      end: () => {
        this.#setClock(answer.headers);
        throw failureOfAnswer(answer, Buffer.concat(parts).toString());
      },
    };
  }

  /** A refused request's answer tells the time there, in case the clocks were why. */
  #setClock({ date, age }: AnswerHeaders): void {
    const there = Date.parse(date ?? "");
    // With an age the answer comes from a cache, and its date with it.
    if (Number.isNaN(there) || age !== undefined) return;
    const skewMs = there - Date.now();
    this.#skewMs = Math.abs(skewMs) < toleratedSkewMs ? 0 : skewMs;
  }
}

/** An error as rest-json tells it; what is no JSON, as proxies send it, is known by its status alone. */
function failureOfAnswer({ headers, status }: AnswerHead, text: string): AwsFailure {
  let told: Readonly<Record<string, unknown>> = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null) told = parsed as Record<string, unknown>;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const { Message, message = Message, Reason: reason, __type, code = __type } = told;
  // Both `ValidationException:http://…` and `com.amazonaws.ebs#ValidationException` are sent.
  const name = headers["x-amzn-errortype"] ?? code;
  const awsCode = (typeof name === "string" ? name : "UnknownError").split(/[:,]/)[0]!.split("#").at(-1)!;
  const said = typeof message === "string" && message !== "" ? message : `HTTP ${status}`;
  return new AwsFailure(awsCode, said, { reason, status, requestId: headers["x-amzn-requestid"] });
}
