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
