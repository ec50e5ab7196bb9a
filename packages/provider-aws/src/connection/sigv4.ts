import { type KeyObject, createHmac, createSecretKey, hash } from "node:crypto";

/** Keys that sign. */
export interface SigningIdentity {
  accessKeyId: string;
  secretAccessKey: string;
}

/** What of a request is signed. */
export interface SignedRequest {
  method: string;
  /** As it is sent, percent-encoded. */
  path: string;
  /** As {@link canonicalQuery} writes it, and as it is sent. */
  query: string;
  /** All of them are signed. Names in lower case; `host` and `x-amz-date` belong to them. */
  headers: Readonly<Record<string, string>>;
  /** SHA-256 of the body in hexadecimal, or `UNSIGNED-PAYLOAD`. */
  payloadHash: string;
}

const algorithm = "AWS4-HMAC-SHA256";

/** Signs requests to one service in one Region (AWS General Reference, Signature Version 4). */
export class Signer {
  readonly #region: string;
  readonly #service: string;
  /** A key is good for a day and a secret; deriving it takes four hashes. */
  #known: { day: string; secret: string; key: KeyObject } | undefined;

  constructor(place: { region: string; service: string }) {
    this.#region = place.region;
    this.#service = place.service;
  }

  /** The header `authorization` for a request whose `x-amz-date` is set. */
  authorization(request: SignedRequest, { accessKeyId, secretAccessKey }: SigningIdentity): string {
    const { method, path, query, headers, payloadHash } = request;
    const date = headers["x-amz-date"] ?? "";
    const day = date.slice(0, 8);
    const names = Object.keys(headers).sort();
    const lines = names.map((name) => `${name}:${headers[name]!.trim().replace(/ +/g, " ")}\n`).join("");
    const signed = names.join(";");
    // Every service but S3 has what is sent encoded once more.
    const canonicalPath = path.split("/").map(encode).join("/");
    const canonical = `${method}\n${canonicalPath}\n${query}\n${lines}\n${signed}\n${payloadHash}`;
    const scope = `${day}/${this.#region}/${this.#service}/aws4_request`;
    const text = `${algorithm}\n${date}\n${scope}\n${hash("sha256", canonical)}`;
    const signature = createHmac("sha256", this.#key(day, secretAccessKey)).update(text).digest("hex");
    return `${algorithm} Credential=${accessKeyId}/${scope}, SignedHeaders=${signed}, Signature=${signature}`;
  }

  #key(day: string, secret: string): KeyObject {
    if (this.#known?.day !== day || this.#known.secret !== secret)
      this.#known = { day, secret, key: createSecretKey(signingKey(secret, day, this.#region, this.#service)) };
    return this.#known.key;
  }
}

/** The key of a day (`20150830`), a Region and a service. */
export function signingKey(secret: string, day: string, region: string, service: string): Buffer {
  let key = Buffer.from(`AWS4${secret}`);
  for (const part of [day, region, service, "aws4_request"]) key = createHmac("sha256", key).update(part).digest();
  return key;
}

/** Query parameters sorted and encoded as they are signed; what is undefined is left out. */
export function canonicalQuery(parameters: Readonly<Record<string, string | number | undefined>>): string {
  const pairs: string[] = [];
  for (const [name, value] of Object.entries(parameters))
    if (value !== undefined) pairs.push(`${encode(name)}=${encode(String(value))}`);
  return pairs.sort().join("&");
}

/** Percent-encodes all but letters, digits, hyphen, dot, underscore and tilde (RFC 3986, unreserved). */
export function encode(text: string): string {
  if (/^[\w.~-]*$/.test(text)) return text;
  return encodeURIComponent(text).replace(/[!'()*]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`);
}

let lastDate = { second: Number.NaN, text: "" };

/** A moment as `x-amz-date` has it: `20150830T123600Z`. `ms`: since 1970. */
export function amzDate(ms: number): string {
  const second = Math.floor(ms / 1000);
  if (lastDate.second !== second) {
    const text = `${new Date(second * 1000).toISOString().slice(0, 19).replace(/[-:]/g, "")}Z`;
    lastDate = { second, text };
  }
  return lastDate.text;
}
