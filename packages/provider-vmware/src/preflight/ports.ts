import { connect } from "node:net";
import type { Wait } from "@diskferry/core/provider";

/** Milliseconds that a port has to answer; a firewall that drops never does. */
const longestWaitMs = 5_000;

/** Why a port cannot be reached, for people; undefined where it can. */
export type Reach = (host: string, port: number, wait?: Wait) => Promise<string | undefined>;

/** Tries to connect by TCP and says nothing to whoever answers. */
export const reachPort: Reach = async (host, port, wait = {}) => {
  const { signal } = wait;
  signal?.throwIfAborted();
  const socket = connect({ host, port });
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
  const giveUp = (): void => reject(signal?.reason as Error);
  signal?.addEventListener("abort", giveUp, { once: true });
  socket.setTimeout(longestWaitMs, () => resolve(`no answer within ${longestWaitMs / 1000} s, as of a firewall`));
  socket.once("connect", () => resolve(undefined));
  socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  try {
    return await promise;
  } finally {
    signal?.removeEventListener("abort", giveUp);
    socket.destroy();
  }
};
