import type { ProviderContext, Wait } from "@diskferry/core/provider";
import type { VsphereOptions } from "./options.ts";
import { connectVsphere } from "./vsphere-connection.ts";

/** A session that draws tickets for workers. It has to stay open until they have joined. */
export interface TicketSession extends AsyncDisposable {
  /** A secret for the option `cloneTicket` of one worker: it joins as the same user without the password, once and soon. */
  ticket(wait?: Wait): Promise<string>;
}

/**
 * Logs in to draw tickets (SessionManager, AcquireCloneTicket), so that processes elsewhere work without being given the password.
 * VMware's library takes none: such workers read by `nfc` or `folder`.
 *
 * @throws ProviderError as the provider's source does when it connects
 */
export async function openTicketSession(options: VsphereOptions, context?: ProviderContext): Promise<TicketSession> {
  const connection = await connectVsphere(options, context);
  return {
    ticket: (wait) => connection.client.cloneTicket(wait),
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}
