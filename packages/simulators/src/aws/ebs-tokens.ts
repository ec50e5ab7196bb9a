import { createHmac } from "node:crypto";
import { invalid } from "./aws-error.ts";

/** Block tokens are good for seven days, page tokens for sixty minutes (EC2 user guide, EBS direct APIs FAQ). */
export const blockTokenMs: number = 7 * 86_400_000;
export const pageTokenMs = 3_600_000;

/** Makes a token bound to `subject` (at most 256 characters of base64, as the service model demands). */
export function sealToken(secret: Buffer, subject: string, content: string, expiresAt: number): string {
  const body = `${content}|${Math.floor(expiresAt)}`;
  const seal = createHmac("sha256", secret).update(`${subject}|${body}`).digest("base64url").slice(0, 22);
  return Buffer.from(`${body}|${seal}`).toString("base64");
}

/** Opens a token made for the same subject. @throws AwsError ValidationException with the reason given. */
export function openToken(secret: Buffer, subject: string, token: string, now: number, reason: string): string {
  const parts = Buffer.from(token, "base64").toString().split("|");
  const [content = "", expiry = ""] = parts;
  const genuine = sealToken(secret, subject, content, Number(expiry)) === token;
  const word = reason === "INVALID_PAGE_TOKEN" ? "page" : "block";
  if (!genuine) throw invalid(reason, `The ${word} token is not valid for this request.`);
  if (now >= Number(expiry)) throw invalid(reason, `The ${word} token has expired.`);
  return content;
}

/**
 * Makes the token of one block. Listings hold millions of them, so its seal is a cheap mix over a key for the snapshot
 * instead of a hash: it has to notice a token used for another block, not an attacker.
 */
export function sealBlockToken(key: BlockTokenKey, index: number, generation: number, expiresAt: number): string {
  const seconds = Math.floor(expiresAt / 1000);
  const [low, high] = key.map((half) => mixed(half, index, generation, seconds).toString(16).padStart(8, "0"));
  return `AAAB${seconds.toString(36)}/${generation.toString(36)}/${low}${high}${padding}`;
}

/** What binds block tokens to one snapshot. */
export type BlockTokenKey = readonly [number, number];

/** The key of a snapshot's block tokens. */
export function blockTokenKey(secret: Buffer, snapshotId: string): BlockTokenKey {
  const digest = createHmac("sha256", secret).update(snapshotId).digest();
  return [digest.readInt32LE(0), digest.readInt32LE(4)];
}

/** The generation of a block's token. @throws AwsError INVALID_BLOCK_TOKEN */
export function openBlockToken(key: BlockTokenKey, index: number, token: string, now: number): number {
  const [, seconds = "", generation = ""] = /^AAAB([0-9a-z]+)\/([0-9a-z]+)\//.exec(token) ?? [];
  const expiresAt = Number.parseInt(seconds, 36) * 1000;
  const number = Number.parseInt(generation, 36);
  if (sealBlockToken(key, index, number, expiresAt) !== token)
    throw invalid("INVALID_BLOCK_TOKEN", "The block token is not valid for this request.");
  if (now >= expiresAt) throw invalid("INVALID_BLOCK_TOKEN", "The block token has expired.");
  return number;
}

/** Brings tokens to about the length of AWS's in the user guide's examples. */
const padding = "0AiVLMBWfbDMm5y2GHsDXWRMJxvQV8SJpLoF2GiPT";

function mixed(seed: number, ...values: number[]): number {
  let hash = seed | 0;
  for (const value of values) {
    hash = Math.imul(hash ^ value, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return hash >>> 0;
}
