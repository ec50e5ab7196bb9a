import { createHmac } from "node:crypto";

/** A request's parameters by name; of a name that occurs twice the server signs the first value alone. */
export type SignedParameters = ReadonlyMap<string, string> | Readonly<Record<string, string>>;

/**
 * The text that is signed (`ApiServer.verifyRequest`): parameters in Java's string order of their names as they are sent,
 * names raw, values as `URLEncoder` writes them, all of it in lower case. `signature` itself is left out.
 */
export function textToSign(parameters: SignedParameters): string {
  const pairs: [string, string][] = isMap(parameters) ? [...parameters] : Object.entries(parameters);
  return pairs
    .filter(([name]) => name.toLowerCase() !== "signature")
    .sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0))
    .map(([name, value]) => `${name}=${encodeLikeJava(value)}`)
    .join("&")
    .toLowerCase();
}

function isMap(parameters: SignedParameters): parameters is ReadonlyMap<string, string> {
  return parameters instanceof Map;
}

/** The `signature` of a request: HMAC-SHA1 of {@link textToSign} in base64. */
export function signatureOf(parameters: SignedParameters, secretKey: string): string {
  return createHmac("sha1", secretKey).update(textToSign(parameters)).digest("base64");
}

/** `URLEncoder.encode` with `+` as `%20`: it keeps letters, digits and `. - * _`, JavaScript keeps `! ~ ' ( )` too. */
function encodeLikeJava(value: string): string {
  return encodeURIComponent(value).replace(
    /[!~'()]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

/** How CloudStack writes a time that it reads as `expires`: `2030-01-01T00:00:00+0000`. */
export function expiresText(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace(/\.\d{3}Z$/, "+0000");
}
