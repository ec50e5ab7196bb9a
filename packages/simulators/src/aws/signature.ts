import { type KeyObject, createHash, createHmac, createSecretKey, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { AwsError } from "./aws-error.ts";

/** Keys that sign requests for one account. */
export interface AwsCredentials {
  accessKeyId: string;
  secretAccessKey: string;
  /** Of temporary credentials: has to come with each request. */
  sessionToken?: string;
  accountId: string;
  /** Milliseconds since 1970 by the simulator's clock; absent means for ever. */
  expiresAt?: number;
  /** Who the keys belong to; absent means a user of the account. */
  arn?: string;
}

/** Who signed a request, and for which region and service. */
export interface Caller {
  accountId: string;
  region: string;
  service: AwsService;
  accessKeyId: string;
  arn: string;
}

/** The services that the simulator speaks. */
export type AwsService = "ebs" | "ec2" | "ssm" | "sts";

const services: readonly string[] = ["ebs", "ec2", "ssm", "sts"];

/** The service a request without a readable signature is meant for. */
export function guessService(request: IncomingMessage, path: string): AwsService {
  const scope = /\/aws4_request/.test(request.headers.authorization ?? "")
    ? /Credential=[^/]+\/[^/]+\/[^/]+\/([^/]+)\//.exec(request.headers.authorization ?? "")?.[1]
    : undefined;
  if (scope !== undefined && services.includes(scope)) return scope as AwsService;
  if (request.headers["x-amz-target"] !== undefined) return "ssm";
  return request.method === "POST" && path === "/" ? "ec2" : "ebs";
}

/** AWS refuses signatures older or newer than this (SigV4: five minutes). */
const skewLimitMs = 300_000;

const hmac = (key: string | Buffer | KeyObject, text: string): Buffer =>
  createHmac("sha256", key).update(text).digest();
const sha256 = (bytes: string): string => createHash("sha256").update(bytes).digest("hex");
const escape = (text: string): string =>
  encodeURIComponent(text).replace(/[!'()*]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`);

function refuse(service: string, kind: "missing" | "unknown" | "mismatch" | "skew" | "expired"): AwsError {
  if (service === "sts") return refuseSts(kind);
  const ec2 = service === "ec2";
  if (kind === "missing")
    return new AwsError(
      ec2 ? 401 : 403,
      ec2 ? "AuthFailure" : "MissingAuthenticationTokenException",
      "Missing Authentication Token",
    );
  if (kind === "unknown")
    return ec2
      ? new AwsError(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
      : new AwsError(403, "UnrecognizedClientException", "The security token included in the request is invalid.");
  if (kind === "expired")
    return ec2
      ? new AwsError(400, "RequestExpired", "Request has expired.")
      : new AwsError(403, "ExpiredTokenException", "The security token included in the request is expired");
  if (kind === "skew" && ec2) return new AwsError(400, "RequestExpired", "Request has expired.");
  const message =
    kind === "skew"
      ? "Signature expired"
      : "The request signature we calculated does not match the signature you provided.";
  return new AwsError(403, ec2 ? "SignatureDoesNotMatch" : "InvalidSignatureException", message);
}

function refuseSts(kind: string): AwsError {
  if (kind === "missing")
    return new AwsError(403, "MissingAuthenticationToken", "Request is missing Authentication Token");
  if (kind === "unknown")
    return new AwsError(403, "InvalidClientTokenId", "The security token included in the request is invalid.");
  if (kind === "expired")
    return new AwsError(403, "ExpiredToken", "The security token included in the request is expired");
  if (kind === "skew") return new AwsError(403, "SignatureDoesNotMatch", "Signature expired");
  return new AwsError(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.");
}

/** Keys that were derived, which are good for a day: the oldest goes first. */
const signingKeys = new Map<string, KeyObject>();
const mostSigningKeys = 100;

function signingKey(secret: string, date: string, region: string, service: string): KeyObject {
  const name = [secret, date, region, service].join("/");
  const known = signingKeys.get(name);
  if (known !== undefined) return known;
  const key = createSecretKey(hmac(hmac(hmac(hmac(`AWS4${secret}`, date), region), service), "aws4_request"));
  for (const oldest of signingKeys.keys()) if (signingKeys.size >= mostSigningKeys) signingKeys.delete(oldest);
  signingKeys.set(name, key);
  return key;
}

/** The canonical query string of SigV4: decoded, encoded anew, sorted. */
function canonicalQuery(url: URL): string {
  const pairs = [...url.searchParams].map(([key, value]) => `${escape(key)}=${escape(value)}`);
  return pairs.sort().join("&");
}

/**
 * Checks the SigV4 signature of a request, its age, the hash of its body (SHA-256, hexadecimal) and its session token.
 * @throws AwsError as the service named in the credential scope words it.
 */
export function authenticate(
  request: IncomingMessage,
  url: URL,
  bodyHash: string,
  credentials: ReadonlyMap<string, AwsCredentials>,
  now: number,
): Caller {
  const header = request.headers.authorization ?? "";
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      header,
    );
  if (match === null) throw refuse(guessService(request, url.pathname), "missing");
  const [, accessKeyId = "", date = "", region = "", service = "", signedHeaders = "", signature = ""] = match;
  if (!services.includes(service)) throw refuse(guessService(request, url.pathname), "mismatch");
  const known = credentials.get(accessKeyId);
  if (known === undefined) throw refuse(service, "unknown");
  const stamp = String(request.headers["x-amz-date"] ?? "");
  const time = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(stamp);
  if (time === null || !stamp.startsWith(date)) throw refuse(service, "mismatch");
  const [, year, month, day, hour, minute, second] = time.map(Number);
  const sentAt = Date.UTC(year ?? 0, (month ?? 1) - 1, day, hour, minute, second);
  const names = signedHeaders.split(";");
  // What the caller left out of the signature could have been changed on the way.
  const must = Object.keys(request.headers).filter((name) => name.startsWith("x-amz-"));
  const unsigned = ["host", ...must].filter((name) => !names.includes(name) && name !== "x-amz-content-sha256");
  if (unsigned.length > 0) throw refuse(service, "mismatch");
  const declared = request.headers["x-amz-content-sha256"];
  const hash = typeof declared === "string" ? declared : bodyHash;
  if (hash !== "UNSIGNED-PAYLOAD" && hash !== bodyHash) throw refuse(service, "mismatch");
  if (hash === "UNSIGNED-PAYLOAD" && service !== "ebs") throw refuse(service, "mismatch");
  const headers = names.map(
    (name) =>
      `${name}:${String(request.headers[name] ?? "")
        .trim()
        .replace(/ +/g, " ")}\n`,
  );
  const path = url.pathname.split("/").map(escape).join("/");
  const canonical = [request.method, path, canonicalQuery(url), headers.join(""), signedHeaders, hash].join("\n");
  const scope = `${date}/${region}/${service}/aws4_request`;
  const expected = hmac(
    signingKey(known.secretAccessKey, date, region, service),
    ["AWS4-HMAC-SHA256", stamp, scope, sha256(canonical)].join("\n"),
  );
  if (!timingSafeEqual(expected, Buffer.from(signature, "hex"))) throw refuse(service, "mismatch");
  if ((request.headers["x-amz-security-token"] ?? undefined) !== known.sessionToken) throw refuse(service, "unknown");
  if (known.expiresAt !== undefined && now >= known.expiresAt) throw refuse(service, "expired");
  if (Math.abs(now - sentAt) > skewLimitMs) throw refuse(service, "skew");
  const { accountId, arn = `arn:aws:iam::${accountId}:user/simulated` } = known;
  return { accountId, region, service: service as AwsService, accessKeyId, arn };
}
