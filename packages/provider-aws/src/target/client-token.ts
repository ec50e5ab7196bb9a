import { createHash } from "node:crypto";

/**
 * A client token over what a request is about: 64 ASCII characters, the most the documents allow (EBS direct APIs,
 * "Ensure idempotency"). The same parts give the same token, so that a request repeated after a kill is recognised;
 * parts are told apart by their lengths, so that no two lists run together.
 */
export function clientToken(parts: readonly (string | number)[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

/** A name of 20 characters for something long or secret, to be put in tags and names. */
export function shortName(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 20);
}
