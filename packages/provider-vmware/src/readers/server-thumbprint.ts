import { isIP } from "node:net";
import { connect } from "node:tls";
import { setTimeout as sleep } from "node:timers/promises";
import type { Wait } from "@diskferry/core/provider";
import { translateTransport, vsphereError } from "../errors.ts";
import { parseThumbprint, thumbprintOf, type Trust } from "../vim/vim-http.ts";

const operation = "read certificate";
const timeoutMs = 30_000;

/**
 * SHA-1 of a server's certificate with colons, the only form that VMware's library takes. The certificate is held against
 * what is trusted first: a thumbprint that was taken from whoever answers proves nothing.
 *
 * @throws ProviderError AUTH for a server that is not to be trusted; UNAVAILABLE where it is not reached
 */
export async function serverThumbprint(server: URL, trust: Trust, wait: Wait = {}): Promise<string> {
  const { signal } = wait;
  signal?.throwIfAborted();
  const pin = trust.thumbprint === undefined ? undefined : parseThumbprint(trust.thumbprint);
  const host = server.hostname.replace(/^\[|\]$/g, "");
  const socket = connect({
    host,
    port: server.port === "" ? 443 : Number(server.port),
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(trust.ca === undefined ? {} : { ca: trust.ca }),
    rejectUnauthorized: pin === undefined,
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("secureConnect", resolve).once("error", reject);
  const late = new AbortController();
  const either = signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]);
  try {
    const deadline = sleep(timeoutMs, undefined, { signal: either }).then(() => {
      throw vsphereError("UNAVAILABLE", `${server.host} did not show its certificate within ${timeoutMs / 1000} s`, {
        operation,
      });
    });
    await Promise.race([promise, deadline]);
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) throw vsphereError("AUTH", `${server.host} shows no certificate`, { operation });
    const shown = thumbprintOf(certificate, pin?.algorithm ?? "sha1");
    if (pin !== undefined && parseThumbprint(shown)?.hex !== pin.hex) {
      throw vsphereError(
        "AUTH",
        `${server.host} shows a certificate with the thumbprint ${shown}, which is not the pinned one`,
        {
          operation,
        },
      );
    }
    return thumbprintOf(certificate, "sha1");
  } catch (error) {
    signal?.throwIfAborted();
    throw translateTransport(error, operation, server.host);
  } finally {
    late.abort();
    socket.on("error", () => undefined);
    socket.destroy();
  }
}
