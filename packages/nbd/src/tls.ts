import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import type { ConnectionOptions } from "node:tls";
import { ProviderError } from "@diskferry/core/provider";

/** A PEM text, or its bytes. */
export type Pem = string | Uint8Array;

/**
 * What one side of a TLS connection shows and demands. Certificates or PSK, not both. A client always verifies its
 * server: by `ca` and name, by `pin`, or by the shared key; there is no way to turn that off.
 */
export interface NbdTlsOptions {
  /**
   * Who may have signed the other side's certificate. Client: absent means the certificate authorities that Node
   * trusts. Server: given means that clients must show a certificate signed by it.
   */
  readonly ca?: Pem | readonly Pem[] | undefined;
  /** Our own certificate chain. */
  readonly cert?: Pem | undefined;
  /** The private key of `cert`. */
  readonly key?: Pem | undefined;
  /**
   * Client only: the SHA-256 fingerprint of the server's certificate, 64 hex digits with or without colons. It takes
   * the place of `ca` and the server's name: that very certificate, or no connection.
   */
  readonly pin?: string | undefined;
  /** Client only: the name sent as SNI and looked for in the certificate. Default: the host of the address. */
  readonly serverName?: string | undefined;
  /** A key both sides know, and the identity it goes by. */
  readonly psk?: NbdPreSharedKey | undefined;
}

/** A pre-shared key. */
export interface NbdPreSharedKey {
  /** At most 128 bytes of UTF-8. */
  readonly identity: string;
  /** The secret; at least 16 bytes. */
  readonly key: Uint8Array;
}

/**
 * OpenSSL's ciphers for a client: AES-128 before AES-256 costs a sixth less per byte; otherwise Node's modern ones.
 */
const certificateCiphers =
  "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:" +
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:" +
  "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/** External pre-shared keys are bound to SHA-256 in TLS 1.3 (RFC 8446, 4.2.11), hence no AES-256-GCM-SHA384 there. */
export const pskCiphers: string =
  "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:ECDHE-PSK-CHACHA20-POLY1305:" +
  "DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384";

/**
 * What `tls.connect` needs to open a verified connection as these options say.
 * @throws ProviderError CONFIG_INVALID when the options contradict themselves.
 */
export function clientTlsOptions(options: NbdTlsOptions, host: string | undefined): ConnectionOptions {
  const name = options.serverName ?? host;
  const common: ConnectionOptions = { minVersion: "TLSv1.2", rejectUnauthorized: true };
  // A literal address is no SNI host name (RFC 6066, section 3).
  if (name !== undefined && isIP(name) === 0) common.servername = name;
  if (options.psk !== undefined) return { ...common, ...pskOptions(options, options.psk) };
  if ((options.cert === undefined) !== (options.key === undefined)) {
    throw invalid("a client certificate needs both cert and key");
  }
  if (options.ca !== undefined) common.ca = pemList(options.ca);
  if (options.cert !== undefined) common.cert = Buffer.from(options.cert);
  if (options.key !== undefined) common.key = Buffer.from(options.key);
  common.ciphers = certificateCiphers;
  if (options.pin !== undefined) {
    fingerprintOf(options.pin);
    // The certificate itself is compared once the handshake is through, before a byte of NBD is sent.
    return { ...common, rejectUnauthorized: false };
  }
  if (name === undefined) {
    throw invalid("a unix socket has no host name to verify: give serverName (in a URI tls-hostname) or pin");
  }
  // Without SNI Node would look for "localhost" in the certificate: the name is always given explicitly.
  common.checkServerIdentity = (_host, certificate) => checkServerIdentity(name, certificate);
  return common;
}

/**
 * Whether the certificate with this SHA-256 fingerprint is the pinned one.
 * @throws ProviderError CONFIG_INVALID when the pin is no SHA-256 fingerprint.
 */
export function matchesPin(pin: string, fingerprint: string): boolean {
  return fingerprintOf(pin) === fingerprintOf(fingerprint);
}

/** Where TLS material lies in files, as in the `tls-*` parameters of an NBD URI. */
export interface NbdTlsFiles {
  /** A folder with `ca-cert.pem` and, for a client certificate, `client-cert.pem` and `client-key.pem`. */
  readonly certificates?: string | undefined;
  /** A file of lines `identity:hex`, as `psktool` writes it. */
  readonly pskFile?: string | undefined;
  /** The identity to look for in `pskFile`. Absent: its first one. */
  readonly username?: string | undefined;
  readonly serverName?: string | undefined;
}

/**
 * Reads TLS options from files.
 * @throws ProviderError CONFIG_INVALID naming the file that cannot be read or used.
 */
export async function readTlsFiles(files: NbdTlsFiles, signal?: AbortSignal): Promise<NbdTlsOptions> {
  const serverName = files.serverName;
  if (files.pskFile !== undefined) {
    return { serverName, psk: presharedKeyOf(await readTls(files.pskFile, signal), files.pskFile, files.username) };
  }
  if (files.certificates === undefined) return { serverName };
  const ca = await readTls(join(files.certificates, "ca-cert.pem"), signal);
  const cert = await readTlsIfThere(join(files.certificates, "client-cert.pem"), signal);
  const key = await readTlsIfThere(join(files.certificates, "client-key.pem"), signal);
  return { serverName, ca, cert, key };
}

function pskOptions(options: NbdTlsOptions, psk: NbdPreSharedKey): ConnectionOptions {
  if (options.cert !== undefined || options.pin !== undefined) {
    throw invalid("psk cannot be used together with cert or pin");
  }
  if (Buffer.byteLength(psk.identity) > 128 || psk.identity === "") {
    throw invalid("a PSK identity has 1 to 128 bytes");
  }
  if (psk.key.byteLength < 16 || psk.key.byteLength > 512) throw invalid("a PSK has 16 to 512 bytes");
  return {
    ciphers: pskCiphers,
    pskCallback: () => ({ identity: psk.identity, psk: psk.key }),
    // Called only when the server showed a certificate, which means that it did not prove to know the key.
    checkServerIdentity: (host, certificate) =>
      certificate.raw === undefined ? undefined : new Error(`${host} answered a PSK with a certificate`),
  };
}

function pemList(ca: Pem | readonly Pem[]): Buffer[] {
  const list = typeof ca === "string" || ca instanceof Uint8Array ? [ca] : ca;
  return list.map((each) => Buffer.from(each));
}

function fingerprintOf(text: string): string {
  const digits = text.replaceAll(":", "").toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(digits)) {
    throw invalid("pin is no SHA-256 fingerprint (64 hex digits, as `openssl x509 -fingerprint -sha256` prints)");
  }
  return digits;
}

function presharedKeyOf(text: string, path: string, username: string | undefined): NbdPreSharedKey {
  for (const line of text.split("\n")) {
    const colon = line.lastIndexOf(":");
    const identity = line.slice(0, colon).trim();
    if (colon <= 0 || identity.startsWith("#") || (username !== undefined && identity !== username)) continue;
    const digits = line.slice(colon + 1).trim();
    if (!/^([0-9a-f]{2})+$/i.test(digits)) throw invalid(`${path}: the key of ${identity} is not written in hex`);
    return { identity, key: Buffer.from(digits, "hex") };
  }
  throw invalid(`${path}: no key${username === undefined ? "" : ` of ${username}`}`);
}

async function readTls(path: string, signal: AbortSignal | undefined): Promise<string> {
  try {
    return await readFile(path, { encoding: "utf8", signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw new ProviderError("CONFIG_INVALID", `TLS: ${path} cannot be read: ${codeOf(error)}`, { cause: error });
  }
}

async function readTlsIfThere(path: string, signal: AbortSignal | undefined): Promise<string | undefined> {
  try {
    return await readTls(path, signal);
  } catch (error) {
    if (codeOf((error as Error).cause) === "ENOENT") return undefined;
    throw error;
  }
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown } | undefined)?.code ?? error);
}

function invalid(message: string): ProviderError {
  return new ProviderError("CONFIG_INVALID", `TLS: ${message}`, { operation: "nbd connect" });
}
