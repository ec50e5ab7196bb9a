const secretWords = new Set([
  "password",
  "passwd",
  "passphrase",
  "passcode",
  "pass",
  "pwd",
  "pw",
  "pin",
  "secret",
  "secrets",
  "token",
  "credential",
  "credentials",
  "signature",
  "sig",
  "auth",
  "authorization",
  "bearer",
  "cookie",
  "jwt",
  "key",
  "apikey",
  "accesskey",
  "accesskeyid",
  "awsaccesskeyid",
  "secretkey",
  "privatekey",
  "sessionid",
  "sessionkey",
]);
/** A last word that makes the name one of a place where a secret lies, which is no secret. */
const placeWords = new Set(["file", "path", "dir", "directory", "fd", "env", "variable", "name"]);

/**
 * Whether a member or parameter of this name is likely to hold a secret: `password`, `apiKey`, `X-Amz-Signature`; not
 * `tls-psk-file`, which names a place. Errs on the side of yes.
 */
export function isSecretName(name: string): boolean {
  const words = name
    .replace(/([a-z\d])([A-Z])/g, "$1 $2")
    .toLowerCase()
    .split(/[^a-z\d]+/)
    .filter((word) => word !== "");
  const last = words.at(-1);
  if (last !== undefined && placeWords.has(last)) return false;
  return words.some((word) => secretWords.has(word) || /(?:password|passwd|secret|token)$/.test(word));
}

/** What stands where a secret stood. */
export const redacted = "***";

/**
 * A URI with what may be secret replaced by `***`: the password of its user part and the values of parameters with
 * secret names, in query and fragment. For text that is shown although it was refused; works on anything.
 */
export function redactUri(text: string): string {
  const open = hasBrokenAuthority(text)
    ? text.replace(/^([a-z][a-z\d+.-]*:\/\/).*$/is, `$1${redacted}`)
    : text.replace(/^([a-z][a-z\d+.-]*:(?:\/\/)?[^/?#:]*):[^/?#]*@/i, `$1:${redacted}@`);
  return open.replace(/([?&;#])([^=&;#?]*)=([^&;#]*)/g, (whole: string, separator: string, name: string) =>
    isSecretName(decoded(name)) ? `${separator}${name}=${redacted}` : whole,
  );
}

/**
 * Whether what follows `//` is no host: its port is no number, as in `nbd://user:pass/word@host`, where a password that
 * is not percent-encoded ends the host early.
 */
export function hasBrokenAuthority(text: string): boolean {
  const authority = /^[a-z][a-z\d+.-]*:\/\/([^/?#]*)/i.exec(text)?.[1] ?? "";
  const host = authority.slice(authority.lastIndexOf("@") + 1);
  return !/^(?:\[[^\]]*\]|[^:]*)(?::\d*)?$/.test(host);
}

/** Percent-decoded where that is possible, else as it is. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
