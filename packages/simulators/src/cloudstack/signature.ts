import { createHmac, timingSafeEqual } from "node:crypto";

/** Version 3 of the signature, where hardening is on, may not look further ahead than this (`ApiServer`: 15 minutes). */
const furthestExpiryMs = 15 * 60_000;

/** What Java's URLEncoder keeps is A-Z a-z 0-9 . - * _; encodeURIComponent keeps a little more. */
function encoded(value: string): string {
  return encodeURIComponent(value).replace(/[!~'()]/g, (each) => `%${each.charCodeAt(0).toString(16)}`);
}

/** The text that a signature is made of: names raw and in the order of their code units, all in lower case. */
export function textToSign(parameters: ReadonlyMap<string, string>): string {
  const names = [...parameters.keys()].filter((name) => name.toLowerCase() !== "signature");
  // Not toSorted(localeCompare): the server sorts by code unit, so `Z` comes before `a`.
  const sorted = names.toSorted((one, other) => (one < other ? -1 : Number(one > other)));
  return sorted
    .map((name) => `${name}=${encoded(parameters.get(name) ?? "")}`)
    .join("&")
    .toLowerCase();
}

/** The signature in base64: HMAC-SHA1 with the secret key. */
export function signatureOf(parameters: ReadonlyMap<string, string>, secretKey: string): string {
  return createHmac("sha1", secretKey).update(textToSign(parameters)).digest("base64");
}

/** Whether the request's signature is right; in constant time. */
export function signatureMatches(parameters: ReadonlyMap<string, string>, given: string, secretKey: string): boolean {
  const expected = Buffer.from(signatureOf(parameters, secretKey));
  const actual = Buffer.from(given);
  return expected.length === actual.length && timingSafeEqual(expected, actual);
}

/** Whether version and expiry are acceptable at `now`; `enforced` is `enforce.post.requests.and.timestamps`. */
export function isTimely(
  signed: { version: string | undefined; expires: string | undefined },
  now: number,
  enforced: boolean,
): boolean {
  if (signed.version !== "3") return !enforced;
  const until = signed.expires === undefined ? undefined : expiryOf(signed.expires);
  if (until === undefined || until < now) return false;
  return !enforced || until <= now + furthestExpiryMs;
}

/** `yyyy-MM-dd'T'HH:mm:ssZ` in milliseconds; undefined for anything else. */
function expiryOf(text: string): number | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(Z|([+-]\d\d)(\d\d))$/.exec(text);
  if (match === null) return undefined;
  const zone = match[2] === "Z" ? "Z" : `${match[3]}:${match[4]}`;
  const time = Date.parse(`${match[1]}${zone}`);
  return Number.isNaN(time) ? undefined : time;
}
