import { createHash, createHmac } from "node:crypto";
import type { AwsSimulator } from "../../src/index.ts";

const hmac = (key: string | Buffer, text: string): Buffer => createHmac("sha256", key).update(text).digest();
const sha256 = (bytes: string | Buffer): string => createHash("sha256").update(bytes).digest("hex");

/** A request over plain HTTP, signed by hand as AWS's general reference tells (Signature Version 4). */
export interface SignedRequest {
  service: string;
  method?: string;
  /** With its query, which has to be in canonical order. */
  path?: string;
  headers?: Record<string, string>;
  body?: string | Buffer;
  /** What x-amz-content-sha256 says and the signature covers; the body's hash by default. */
  contentHash?: string;
  /** Milliseconds by which the caller's clock is wrong. */
  skewMs?: number;
  keys?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
}

/** Signs and sends one request for us-east-1. */
export async function sendSigned(simulator: AwsSimulator, request: SignedRequest): Promise<Response> {
  const { service, method = "POST", path = "/", body = "" } = request;
  const keys = request.keys ?? simulator.credentials[0] ?? { accessKeyId: "", secretAccessKey: "" };
  const stamp = new Date(Date.now() + (request.skewMs ?? 0)).toISOString().replace(/[-:]|\.\d{3}/g, "");
  const date = stamp.slice(0, 8);
  const contentHash = request.contentHash ?? sha256(Buffer.from(body));
  const headers: Record<string, string> = {
    ...request.headers,
    host: new URL(simulator.endpoint).host,
    "x-amz-date": stamp,
    "x-amz-content-sha256": contentHash,
    ...(keys.sessionToken === undefined ? {} : { "x-amz-security-token": keys.sessionToken }),
  };
  const names = Object.keys(headers).sort();
  const [bare = "/", query = ""] = path.split("?");
  const lines = names.map((name) => `${name}:${headers[name]}\n`).join("");
  const canonical = [method, bare, query, lines, names.join(";"), contentHash].join("\n");
  const scope = `${date}/us-east-1/${service}/aws4_request`;
  const key = hmac(hmac(hmac(hmac(`AWS4${keys.secretAccessKey}`, date), "us-east-1"), service), "aws4_request");
  const signature = hmac(key, ["AWS4-HMAC-SHA256", stamp, scope, sha256(canonical)].join("\n")).toString("hex");
  const credential = `Credential=${keys.accessKeyId}/${scope}, SignedHeaders=${names.join(";")}, Signature=${signature}`;
  return fetch(simulator.endpoint + path, {
    method,
    headers: { ...headers, authorization: `AWS4-HMAC-SHA256 ${credential}` },
    ...(method === "GET" ? {} : { body }),
  });
}
