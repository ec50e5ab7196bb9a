import { ProviderError } from "@diskferry/core/provider";
import type { NbdTlsFiles, NbdTlsOptions } from "./tls.ts";

/** The port IANA assigned to NBD. */
export const defaultNbdPort = 10809;

/** Where an export is served. */
export interface NbdAddress {
  /** Host name or address for TCP. Exactly one of `host` and `socketPath` is given. */
  readonly host?: string | undefined;
  /** Default 10809. */
  readonly port?: number | undefined;
  /** Path of a unix socket; one that begins with NUL is in the abstract namespace. */
  readonly socketPath?: string | undefined;
  /** Default: the empty name, which most servers take for their default export. */
  readonly exportName?: string | undefined;
  /** Given: TLS or no connection. Absent: no TLS. It is never left to the server. */
  readonly tls?: NbdTlsOptions | undefined;
  /** The same, with the material in files that are read when connecting. `tls` comes first. */
  readonly tlsFiles?: NbdTlsFiles | undefined;
}

/** The URI schemes of NBD, without the colon. */
export const nbdSchemes: readonly string[] = ["nbd", "nbds", "nbd+unix", "nbds+unix"];

/**
 * Parses an NBD URI (NetworkBlockDevice/nbd, `doc/uri.md`): `nbd`, `nbds`, `nbd+unix` and `nbds+unix`, with the
 * parameters `socket`, `tls-certificates`, `tls-psk-file`, `tls-username`, `tls-hostname`, `tls-type` (`x509`, `psk`)
 * and `tls-verify-peer` (`1` alone).
 * @throws ProviderError CONFIG_INVALID, never repeating more of the text than the name of a wrong parameter.
 */
export function parseNbdUri(text: string): NbdAddress {
  const found = /^(nbds?)(\+unix)?:(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?(#.*)?$/s.exec(text);
  if (found === null) throw invalid("not an NBD URI: it begins with nbd://, nbds://, nbd+unix:// or nbds+unix://");
  const [, scheme, unix, authority = "", path = "", query = "", fragment] = found;
  if (fragment !== undefined) throw invalid("a URI of an export has no #fragment");
  const parameters = parametersOf(query);
  const { username, host, port } = authorityOf(authority);
  const exportName = decode(path.replace(/^\//, ""), "export name");
  const tlsFiles = scheme === "nbds" ? tlsFilesOf(parameters, username) : undefined;
  if (scheme === "nbd") {
    for (const name of parameters.keys()) {
      if (name.startsWith("tls-")) throw invalid(`${name} needs the scheme nbds${unix ?? ""}`);
    }
  }
  if (unix === undefined) {
    if (parameters.has("socket")) throw invalid("socket needs the scheme nbd+unix or nbds+unix");
    if (host === "") throw invalid("the host is missing");
    return { host, port: port ?? defaultNbdPort, exportName, tlsFiles };
  }
  if (host !== "" || port !== undefined) throw invalid("a URI of a unix socket has no host: write nbd+unix:///");
  const socketPath = parameters.get("socket");
  if (socketPath === undefined || socketPath === "") throw invalid("the parameter socket is missing");
  return { socketPath, exportName, tlsFiles };
}

/** The URI that identifies an address: no key, no file of keys, no user, only what tells one export from another. */
export function formatNbdUri(address: NbdAddress): string {
  const scheme = isEncrypted(address) ? "nbds" : "nbd";
  const name = encodeURIComponent(address.exportName ?? "").replaceAll("%2F", "/");
  if (address.socketPath !== undefined) {
    return `${scheme}+unix:///${name}?socket=${encodeURIComponent(address.socketPath).replaceAll("%2F", "/")}`;
  }
  const host = address.host ?? "";
  const port = address.port ?? defaultNbdPort;
  const authority = host.includes(":") ? `[${host}]` : host;
  return `${scheme}://${authority}${port === defaultNbdPort ? "" : `:${port}`}/${name}`;
}

/** Whether the address demands TLS. */
export function isEncrypted(address: NbdAddress): boolean {
  return address.tls !== undefined || address.tlsFiles !== undefined;
}

const knownParameters = new Set([
  "socket",
  "tls-certificates",
  "tls-psk-file",
  "tls-username",
  "tls-hostname",
  "tls-type",
  "tls-verify-peer",
]);

function parametersOf(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of query.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = decode(equals === -1 ? part : part.slice(0, equals), "parameter");
    // A wrong name may be a mistyped secret: only what looks like a name is repeated.
    const shown = /^[a-z0-9-]{1,32}$/.test(name) ? name : "(unprintable)";
    if (!knownParameters.has(name)) throw invalid(`unknown parameter ${shown}`);
    if (parameters.has(name)) throw invalid(`the parameter ${shown} is given twice`);
    parameters.set(name, decode(equals === -1 ? "" : part.slice(equals + 1), name));
  }
  return parameters;
}

function tlsFilesOf(parameters: Map<string, string>, username: string | undefined): NbdTlsFiles {
  const type = parameters.get("tls-type");
  if (type !== undefined && type !== "x509" && type !== "psk") {
    throw invalid("tls-type is x509 or psk: the server is always verified");
  }
  if ((parameters.get("tls-verify-peer") ?? "1") !== "1") {
    throw invalid("tls-verify-peer is 1: the server is always verified; name its authority with tls-certificates");
  }
  const files: NbdTlsFiles = {
    certificates: parameters.get("tls-certificates"),
    pskFile: parameters.get("tls-psk-file"),
    username: parameters.get("tls-username") ?? username,
    serverName: parameters.get("tls-hostname"),
  };
  if (files.certificates !== undefined && files.pskFile !== undefined) {
    throw invalid("tls-certificates and tls-psk-file exclude each other");
  }
  if (type === "psk" && files.pskFile === undefined) throw invalid("tls-type=psk needs tls-psk-file");
  return files;
}

function authorityOf(authority: string): { username?: string; host: string; port?: number } {
  const found = /^(?:([^@]*)@)?(\[[0-9a-fA-F:.%]+\]|[^:@[\]]*)(?::([0-9]*))?$/.exec(authority);
  if (found === null) throw invalid("the host is malformed");
  const [, user, host = "", digits = ""] = found;
  if (user?.includes(":") === true) throw invalid("a URI of an export holds no password");
  const port = digits === "" ? undefined : Number(digits);
  if (port !== undefined && (port < 1 || port > 65535)) throw invalid("the port is out of range");
  return {
    host: decode(host.replace(/^\[|\]$/g, ""), "host"),
    ...(user === undefined ? {} : { username: decode(user, "user") }),
    ...(port === undefined ? {} : { port }),
  };
}

function decode(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid(`the ${what} is not percent-encoded UTF-8`);
  }
}

function invalid(message: string): ProviderError {
  return new ProviderError("CONFIG_INVALID", `NBD URI: ${message}`, { operation: "nbd connect" });
}
