import type { Socket } from "node:net";
import { createServer, type PeerCertificate, type TlsOptions, type TLSSocket } from "node:tls";
import { pskCiphers, type NbdPreSharedKey, type Pem } from "../tls.ts";

/** What a server shows and demands. Given at all, it is required: nothing but STARTTLS is served in the clear. */
export interface NbdServerTls {
  /** The server's certificate chain, PEM. Not with `psk`. */
  readonly cert?: Pem;
  /** Its private key, PEM. */
  readonly key?: Pem;
  /** Given: a client must show a certificate signed by one of these, PEM. */
  readonly ca?: Pem | readonly Pem[];
  /** Keys that clients may prove to know, instead of certificates. */
  readonly psk?: readonly NbdPreSharedKey[];
}

/** What came of a TLS handshake. */
export interface SecuredSocket {
  readonly socket: TLSSocket;
  /** Verified; absent where no client certificate was asked for. */
  readonly peerCertificate: PeerCertificate | undefined;
  readonly pskIdentity: string | undefined;
}

/** @throws TypeError when the options contradict themselves or are incomplete. */
export function checkServerTls(tls: NbdServerTls): void {
  if (tls.psk !== undefined) {
    if (tls.cert !== undefined || tls.key !== undefined || tls.ca !== undefined) {
      throw new TypeError("tls: give either psk, or cert and key");
    }
    if (tls.psk.length === 0) throw new TypeError("tls.psk: give at least one key");
    for (const { identity, key } of tls.psk) {
      if (identity === "" || Buffer.byteLength(identity) > 128 || key.byteLength < 16) {
        throw new TypeError("tls.psk: an identity has 1 to 128 bytes and a key at least 16");
      }
    }
  } else if (tls.cert === undefined || tls.key === undefined) {
    throw new TypeError("tls: a server needs cert and key, or psk");
  }
}

/**
 * Makes the server's side of TLS out of a plain connection. The plain socket must not be listened to for data any more.
 * A server of its own for each connection tells which handshake a result belongs to.
 * @throws Error when the client shows no good certificate, knows no key, breaks the handshake or goes away.
 */
export function secureSocket(plain: Socket, tls: NbdServerTls): Promise<SecuredSocket> {
  return new Promise((resolve, reject) => {
    let pskIdentity: string | undefined;
    const server = createServer(tlsOptionsOf(tls, (identity) => (pskIdentity = identity)));
    const onClose = (): void => reject(new Error("the client went away during the TLS handshake"));
    plain.once("close", onClose);
    server.once("tlsClientError", (error) => {
      plain.off("close", onClose);
      reject(error);
    });
    server.once("secureConnection", (socket) => {
      plain.off("close", onClose);
      if (tls.ca !== undefined && !socket.authorized) {
        socket.destroy();
        plain.destroy();
        reject(new Error(`the client's certificate is not good: ${String(socket.authorizationError)}`));
        return;
      }
      const peerCertificate = tls.ca === undefined ? undefined : socket.getPeerCertificate();
      resolve({ socket, peerCertificate, pskIdentity });
    });
    server.emit("connection", plain);
  });
}

function tlsOptionsOf(tls: NbdServerTls, proved: (identity: string) => void): TlsOptions {
  // The whole handshake of NBD has a deadline, which covers this one: Node's own shall not come first.
  const common: TlsOptions = { minVersion: "TLSv1.2", handshakeTimeout: 2 ** 31 - 1, allowHalfOpen: true };
  if (tls.psk !== undefined) {
    const keys = new Map(tls.psk.map(({ identity, key }) => [identity, key]));
    return {
      ...common,
      ciphers: pskCiphers,
      pskCallback: (_socket, identity) => {
        const key = keys.get(identity);
        if (key !== undefined) proved(identity);
        return key ?? null;
      },
    };
  }
  const pem = (value: Pem): string | Buffer => (typeof value === "string" ? value : Buffer.from(value));
  const ca = tls.ca === undefined ? [] : typeof tls.ca === "string" || tls.ca instanceof Uint8Array ? [tls.ca] : tls.ca;
  return {
    ...common,
    ...(tls.cert === undefined ? {} : { cert: pem(tls.cert) }),
    ...(tls.key === undefined ? {} : { key: pem(tls.key) }),
    // Node would refuse a bad certificate by closing without an event: it is looked at in `secureSocket` instead.
    ...(tls.ca === undefined ? {} : { ca: ca.map(pem), requestCert: true, rejectUnauthorized: false }),
  };
}
