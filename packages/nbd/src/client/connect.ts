import { ProviderError } from "@diskferry/core/provider";
import { transmissionFlag } from "../protocol.ts";
import { readTlsFiles } from "../tls.ts";
import type { NbdTlsOptions } from "../tls.ts";
import { formatNbdUri, parseNbdUri } from "../uri.ts";
import type { NbdAddress } from "../uri.ts";
import { SpreadClient } from "./client.ts";
import type { NbdClient } from "./client.ts";
import { unavailable } from "./errors.ts";
import { HandshakeIntake } from "./handshake-intake.ts";
import { Handshake } from "./handshake.ts";
import type { NbdListedExport, ReplyStyle } from "./handshake.ts";
import { Session } from "./session.ts";
import { Wire } from "./wire.ts";

/** How a server is reached. */
export interface NbdReachOptions {
  /** TLS or no connection; takes the place of what the address says of TLS. */
  readonly tls?: NbdTlsOptions | undefined;
  /** Milliseconds for everything until the export is open: name, connection, TLS, negotiation. Default 30 000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Aborting ends the attempt; afterwards the signal has no meaning for the client. */
  readonly signal?: AbortSignal | undefined;
}

export interface NbdConnectOptions extends NbdReachOptions {
  /** Takes the place of the address's export name. */
  readonly exportName?: string | undefined;
  /**
   * Metadata contexts to ask for: `base:allocation`, `qemu:allocation-depth`, `qemu:dirty-bitmap:NAME`, or all of a
   * kind by a final `*`: `qemu:dirty-bitmap:*`, `diskferry:changes:NAME:*`. What was granted is in `metaContexts`.
   */
  readonly metaContexts?: readonly string[] | undefined;
  /** Milliseconds the server may take for one request, from when it is sent. Default 120 000. */
  readonly requestTimeoutMs?: number | undefined;
  /** How many requests are under way at once on each connection, 1 to 1024. Default 16: qemu-nbd and nbdkit work on no more. */
  readonly maxInFlight?: number | undefined;
  /** How many connections to spread requests over, 1 to 64, where the server says that it is safe. Default 1. */
  readonly connections?: number | undefined;
  /** Use `connections` on a read-only export too that does not say so. The caller knows that its bytes stand still. */
  readonly forceConnections?: boolean | undefined;
  /** The richest framing to ask for. Default `extended`; servers that lack it fall back by themselves. */
  readonly replies?: ReplyStyle | undefined;
}

const defaultConnectTimeoutMs = 30_000;
const defaultRequestTimeoutMs = 120_000;
const defaultMaxInFlight = 16;

/**
 * Opens an export, given by URI or address, and resolves when it is ready.
 * @throws ProviderError CONFIG_INVALID, AUTH (TLS), DENIED, NOT_FOUND (no such export), UNSUPPORTED (no NBD server,
 * oldstyle), UNAVAILABLE (cannot connect, closed, deadline), UNEXPECTED (garbage)
 */
export async function connectNbd(where: string | NbdAddress, options: NbdConnectOptions = {}): Promise<NbdClient> {
  const maxInFlight = within("maxInFlight", options.maxInFlight ?? defaultMaxInFlight, 1024);
  const connections = within("connections", options.connections ?? 1, 64);
  const requestTimeoutMs = within("requestTimeoutMs", options.requestTimeoutMs ?? defaultRequestTimeoutMs, 2 ** 31 - 1);
  const reach = await reachOf(where, options);
  const wishes = {
    exportName: reach.address.exportName ?? "",
    contexts: options.metaContexts ?? [],
    style: options.replies ?? "extended",
  };
  const open = (): Promise<Session> =>
    reached(reach, options, async (handshake, wire) => {
      const agreement = await handshake.go(wishes);
      return new Session(wire, agreement, { maxInFlight, requestTimeoutMs });
    });
  const first = await open();
  const { flags } = first.agreement;
  const safe = (flags & transmissionFlag.canMultiConnection) !== 0;
  const readOnly = (flags & transmissionFlag.readOnly) !== 0;
  const allowed = safe || (readOnly && options.forceConnections === true);
  const more = allowed ? await openMore(first, connections - 1, open) : [];
  return new SpreadClient(reach.uri, first, more);
}

/**
 * What a server lists. Names that it hides may still exist.
 * @throws ProviderError as `connectNbd`; DENIED where the server does not list
 */
export async function listNbdExports(
  where: string | NbdAddress,
  options: NbdReachOptions = {},
): Promise<NbdListedExport[]> {
  return await reached(await reachOf(where, options), options, async (handshake, wire) => {
    const exports = await handshake.list();
    handshake.abort();
    await wire.end(1_000);
    return exports;
  });
}

/**
 * Takes one of the places that a server has for clients, without choosing an export, until it is disposed. Tells how many
 * clients a server takes, at far less cost to it than as many sessions.
 * @throws ProviderError as `connectNbd` does before TLS; UNAVAILABLE where the server lets clients wait
 */
export async function holdNbdPlace(
  where: string | NbdAddress,
  options: Omit<NbdReachOptions, "tls"> = {},
): Promise<AsyncDisposable> {
  const reach = await reachOf(where, options);
  return await reached({ ...reach, tls: undefined }, options, (handshake, wire) =>
    Promise.resolve({
      async [Symbol.asyncDispose](): Promise<void> {
        handshake.abort();
        await wire.end(1_000);
      },
    }),
  );
}

interface Reach {
  address: NbdAddress;
  uri: string;
  tls: NbdTlsOptions | undefined;
}

async function reachOf(
  where: string | NbdAddress,
  options: NbdReachOptions & { exportName?: string | undefined },
): Promise<Reach> {
  options.signal?.throwIfAborted();
  const found = typeof where === "string" ? parseNbdUri(where) : where;
  if ((found.host === undefined) === (found.socketPath === undefined)) {
    throw new TypeError("an NBD address has either a host or a socketPath");
  }
  const address: NbdAddress = {
    ...found,
    exportName: options.exportName ?? found.exportName,
    tls: options.tls ?? found.tls,
  };
  const files = address.tls === undefined ? address.tlsFiles : undefined;
  const tls = files === undefined ? address.tls : await readTlsFiles(files, options.signal);
  return { address, uri: formatNbdUri(address), tls };
}

/** Runs the handshake up to `step` under the deadline and the signal; the wire does not outlive a failure. */
async function reached<Result>(
  reach: Reach,
  options: NbdReachOptions,
  step: (handshake: Handshake, wire: Wire) => Promise<Result>,
): Promise<Result> {
  const { signal } = options;
  signal?.throwIfAborted();
  const timeoutMs = within("connectTimeoutMs", options.connectTimeoutMs ?? defaultConnectTimeoutMs, 2 ** 31 - 1);
  const intake = new HandshakeIntake();
  const wire = new Wire(reach.address, reach.uri, intake);
  const handshake = new Handshake(wire, intake);
  const onAbort = (): void => wire.fail(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(() => {
    wire.fail(unavailable(`${reach.uri}: not connected within ${timeoutMs} ms`, "nbd connect"));
  }, timeoutMs);
  try {
    await handshake.begin(reach.tls, reach.address.host);
    return await step(handshake, wire);
  } catch (error) {
    handshake.abort();
    wire.fail(error);
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

async function openMore(first: Session, count: number, open: () => Promise<Session>): Promise<Session[]> {
  const tries = await Promise.allSettled(Array.from({ length: count }, open));
  const sessions = tries.filter((each) => each.status === "fulfilled").map((each) => each.value);
  const failed = tries.find((each) => each.status === "rejected");
  const differs = sessions.some((each) => !sameExport(first, each));
  if (failed === undefined && !differs) return sessions;
  await Promise.all([first, ...sessions].map((each) => each.close()));
  if (failed !== undefined) throw failed.reason;
  throw new ProviderError("UNEXPECTED", "nbd: two connections to one export see different exports", {
    operation: "nbd connect",
  });
}

function sameExport(left: Session, right: Session): boolean {
  const a = left.agreement;
  const b = right.agreement;
  const names = (contexts: typeof a.contexts): string => JSON.stringify(contexts);
  return a.size === b.size && a.flags === b.flags && a.style === b.style && names(a.contexts) === names(b.contexts);
}

function within(name: string, value: number, maximum: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= maximum) return value;
  throw new RangeError(`${name} is a whole number from 1 to ${maximum}, not ${value}`);
}
