import { ProviderError } from "../provider/error.ts";
import { knownProviders } from "./known-providers.ts";
import { decoded, hasBrokenAuthority, isSecretName, redactUri } from "./secrets.ts";

/** What a user writes to name a disk. Holds no secret, so that it may be printed and recorded. */
export interface DiskUri {
  /** In lower case; `local` for a plain path. */
  readonly scheme: string;
  /** The text as it was given, a plain path included. */
  readonly text: string;
}

/**
 * Reads the name of a disk: `scheme:…`, or a path (`disk.raw`, `./disk.raw`, `/dev/vdb`, `C:\disk.raw`), which belongs to
 * the scheme `local`. A file whose name looks like a URI is named by `./name`.
 * @throws ProviderError CONFIG_INVALID when it is empty, malformed or carries a secret.
 */
export function parseUri(text: string): DiskUri {
  if (text.trim() === "") throw invalid("the name of a disk is empty; give a path or a URI such as nbd://host/export");
  if (hasControlCharacter(text))
    throw invalid(`the disk's name ${JSON.stringify(redactUri(text))} holds a control character; remove it`);
  const match = /^([a-z][a-z\d+.-]+):/i.exec(text);
  if (match?.[1] === undefined) return { scheme: "local", text };
  refuseSecrets(text);
  return { scheme: match[1].toLowerCase(), text };
}

/** The error for a scheme that no registered provider answers to: lists those that are known and the package to install. */
export function unknownScheme(uri: DiskUri, registered: readonly string[]): ProviderError {
  const known = knownProviders.find(({ schemes }) => schemes.includes(uri.scheme));
  const remedy =
    known === undefined
      ? `known schemes are ${schemeList(registered)}; for another provider install its package, or name the package's folder (--provider ./ on the command line); for a file of that name write ./${redactUri(uri.text)}`
      : `it comes with the provider "${known.name}"; run: npm install ${known.package}`;
  return invalid(`no provider for "${uri.scheme}:" in ${redactUri(uri.text)}; ${remedy}`);
}

function schemeList(registered: readonly string[]): string {
  const packages = new Map(knownProviders.flatMap((each) => each.schemes.map((scheme) => [scheme, each.package])));
  const schemes = [...new Set([...registered, ...packages.keys()])].toSorted();
  return schemes
    .map((scheme) => (registered.includes(scheme) ? scheme : `${scheme} (npm install ${packages.get(scheme)})`))
    .join(", ");
}

function refuseSecrets(text: string): void {
  const user = /^[a-z][a-z\d+.-]*:(?:\/\/)?([^/?#]*)@/i.exec(text)?.[1];
  if (user?.includes(":") === true || hasBrokenAuthority(text)) {
    throw invalid(
      `${redactUri(text)} carries a password, and URIs are printed and recorded; leave it out and give it as an option of the provider, for example from an environment variable: password: \${DISK_PASSWORD}`,
    );
  }
  const start = text.search(/[?#]/);
  if (start < 0) return;
  const names = text
    .slice(start + 1)
    .split(/[?&;#]/)
    .filter((part) => part.includes("="))
    .map((part) => decoded(part.slice(0, part.indexOf("="))));
  const secret = names.find((name) => isSecretName(name));
  if (secret === undefined) return;
  throw invalid(
    `${redactUri(text)}: the parameter "${secret}" looks like a secret, and URIs are printed and recorded; give it as an option of the provider, for example from an environment variable`,
  );
}

function hasControlCharacter(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code < 32 || code === 127) return true;
  }
  return false;
}

function invalid(message: string): ProviderError {
  return new ProviderError("CONFIG_INVALID", message, { operation: "parse URI" });
}
