import { createServer, type Server, type Socket } from "node:net";
import { ProviderError } from "@diskferry/core/provider";

/**
 * Where a server listens: a TCP port (0: any free one; host 127.0.0.1 unless given), a unix socket, a listening socket
 * that this process inherited under a number, or the one that a service manager hands over (LISTEN_PID, LISTEN_FDS).
 */
export type NbdListen =
  | { readonly host?: string; readonly port: number }
  | { readonly path: string }
  | { readonly descriptor: number }
  | { readonly activation: true };

/** Where a server can be reached. */
export type NbdServerAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** The first descriptor of socket activation (sd_listen_fds(3), SD_LISTEN_FDS_START). */
const activationDescriptor = 3;

/** Begins to listen. @throws ProviderError IN_USE, DENIED or CONFIG_INVALID, naming the address. */
export async function listen(
  where: NbdListen,
  onConnection: (socket: Socket) => void,
): Promise<{ listener: Server; address: NbdServerAddress }> {
  // Half-open: a client may close its sending side and still wait for answers.
  const listener = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true }, onConnection);
  const target = targetOf(where);
  await new Promise<void>((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException): void => reject(listenError(where, error));
    listener.once("error", onError);
    listener.listen(target, () => {
      listener.off("error", onError);
      resolve();
    });
  });
  return { listener, address: addressOf(listener) };
}

function targetOf(where: NbdListen): { host: string; port: number } | { path: string } | { fd: number } {
  if ("port" in where) return { host: where.host ?? "127.0.0.1", port: where.port };
  if ("path" in where) return { path: where.path };
  return { fd: "descriptor" in where ? where.descriptor : takeActivation() };
}

/** The variables are for this process alone: a child that inherits them would take our socket for its own. */
function takeActivation(): number {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  delete process.env["LISTEN_PID"];
  delete process.env["LISTEN_FDS"];
  delete process.env["LISTEN_FDNAMES"];
  if (pid !== String(process.pid) || !(Number(count) >= 1)) {
    throw new ProviderError(
      "CONFIG_INVALID",
      "socket activation: LISTEN_PID and LISTEN_FDS do not name this process; was it started by a service manager?",
      { operation: "nbd listen" },
    );
  }
  return activationDescriptor;
}

function addressOf(listener: Server): NbdServerAddress {
  const address = listener.address();
  if (address !== null && typeof address === "object") return { host: address.address, port: address.port };
  return { path: address ?? "" };
}

function listenError(where: NbdListen, error: NodeJS.ErrnoException): ProviderError {
  const name = "path" in where ? where.path : JSON.stringify(where);
  const options = { operation: "nbd listen", cause: error };
  switch (error.code) {
    case "EADDRINUSE":
      return new ProviderError("IN_USE", `${name} is in use; stop who listens there or remove a stale socket`, options);
    case "EACCES":
    case "EPERM":
      return new ProviderError("DENIED", `not allowed to listen on ${name}`, options);
    default:
      return new ProviderError("CONFIG_INVALID", `cannot listen on ${name}: ${error.code ?? error.message}`, options);
  }
}
