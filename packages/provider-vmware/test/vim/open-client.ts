import type { VcenterSimulator } from "@diskferry/simulators";
import { VimClient, type VimClientOptions } from "../../src/vim/vim-client.ts";

/** A client of a simulator; over TLS it pins the certificate. */
export function openClient(simulator: VcenterSimulator, more: Partial<VimClientOptions> = {}): Promise<VimClient> {
  const { url, userName, password, tls } = simulator;
  return VimClient.connect({
    url: new URL(url),
    credentials: { userName, password },
    trust: tls === undefined ? undefined : { thumbprint: tls.sha256 },
    protocol: "soap",
    retryForMs: 20_000,
    ...more,
  });
}

/** The reference to the service itself. */
export const serviceInstance = { type: "ServiceInstance", value: "ServiceInstance" };
