import { type NbdAddress, type NbdClient, NbdServerError, connectNbd, formatNbdUri } from "@diskferry/nbd";
import { type Wait, isProviderError } from "@diskferry/core/provider";
import { localError } from "../errors.ts";

/**
 * One export and the one connection that everything on this thread shares: a server may accept a single client
 * (qemu-nbd's default) and end when that one leaves.
 */
export class NbdPlace {
  readonly address: NbdAddress;
  /** Names the export; holds no secret. */
  readonly uri: string;
  readonly #contexts: readonly string[];
  #live: Promise<NbdClient> | undefined;

  constructor(address: NbdAddress, contexts: readonly string[] = []) {
    this.address = address;
    this.uri = formatNbdUri(address);
    this.#contexts = contexts;
  }

  /** The shared session, opened when there is none. */
  async client(wait: Wait = {}): Promise<NbdClient> {
    wait.signal?.throwIfAborted();
    if (this.#live === undefined) {
      const opening = connectNbd(this.address, { metaContexts: this.#contexts, signal: wait.signal });
      this.#live = opening;
      opening.catch(() => {
        if (this.#live === opening) this.#live = undefined;
      });
    }
    return this.#live;
  }

  /** A session that is not to be used again: the next call of `client` opens another. */
  async retire(client: NbdClient): Promise<void> {
    const live = this.#live;
    if (live !== undefined && (await live.catch(() => undefined)) === client && this.#live === live)
      this.#live = undefined;
    await client.close();
  }

  /** Closes the shared session. */
  async close(): Promise<void> {
    const live = this.#live;
    this.#live = undefined;
    await (await live?.catch(() => undefined))?.close();
  }
}

/** Whether an error ends the session, other than one the server merely answered. */
export function endsSession(error: unknown): boolean {
  if (!isProviderError(error) || error.code !== "UNAVAILABLE") return false;
  return !(error.cause instanceof NbdServerError) || error.cause.code === "ESHUTDOWN";
}

/** The unit that reads and writes of an export must keep to, in bytes. */
export function blockSizeOf(client: NbdClient): number {
  return Math.max(512, client.minimumBlock);
}

/** @throws ProviderError CONFIG_INVALID for an export whose size no disk has. */
export function checkExportSize(client: NbdClient): void {
  const unit = blockSizeOf(client);
  if (client.size > 0 && client.size % unit === 0) return;
  const remedy = client.size === 0 ? "an empty export is no disk" : `the size must be a multiple of ${unit}`;
  throw localError(
    "CONFIG_INVALID",
    `${client.uri} has ${client.size} bytes: ${remedy}; check what the server exports`,
  );
}

const farMs = 5;
const nearConcurrency = 8;

/** How requests are best sized for a link: a far server wants fewer and larger ones, and more of them under way. */
export interface LinkShape {
  preferredLength: number;
  concurrency: number;
}

/** Times two small reads, of which the faster tells the round trip. */
export async function linkShape(client: NbdClient, wait: Wait = {}): Promise<LinkShape> {
  const block = new Uint8Array(blockSizeOf(client));
  let roundTrip = Infinity;
  for (let count = 0; count < 2; count++) {
    const start = performance.now();
    await client.read(0, block, { signal: wait.signal });
    roundTrip = Math.min(roundTrip, performance.now() - start);
  }
  const isFar = roundTrip > farMs;
  const length = Math.min(isFar ? 4 * 1024 * 1024 : 1024 * 1024, client.maximumPayload);
  // The window is a power of two of at least one block, so that requests stay on the server's grid.
  return { preferredLength: 2 ** Math.floor(Math.log2(length)), concurrency: isFar ? 16 : nearConcurrency };
}

/** What a lane says of its cost: encryption, and a window that one connection does not fill, are worth a thread. */
export function laneCost(client: NbdClient, shape: LinkShape): { demanding?: true } {
  return client.tls || shape.concurrency > nearConcurrency ? { demanding: true } : {};
}

const mostLanes = 4;
/** Connections of one thread beside its first; more than these bring nothing on two cores. */
const mostBeside = 3;
/** Left to lanes before one is kept for the calling thread. */
const leastLanes = 2;
const probeTimeoutMs = 1_000;

/** What a server takes beside the connection that is open. */
export interface MoreConnections {
  /** How many lanes may have one of their own. */
  limit: number;
  /** Open, for the calling thread: the server works on some while this thread takes from another. The caller closes them. */
  beside: NbdClient[];
}

/**
 * How many more connections the server takes, at most as many as are of use: where it does not say that several are
 * safe, none. Tried out, since a server that takes no more lets a client wait without a word.
 */
export async function moreConnections(place: NbdPlace, client: NbdClient, wait: Wait = {}): Promise<MoreConnections> {
  if (!client.flags.canMultiConn) return { limit: 0, beside: [] };
  const options = { connectTimeoutMs: probeTimeoutMs, signal: wait.signal };
  const tried = await Promise.allSettled(
    Array.from({ length: mostLanes + mostBeside }, () => connectNbd(place.address, options)),
  );
  const probes = tried.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  const kept = Math.max(0, Math.min(mostBeside, probes.length - leastLanes));
  const same = probes.filter(({ size }) => size === client.size);
  const beside = wait.signal?.aborted === true ? [] : same.slice(0, kept);
  await Promise.all(probes.filter((probe) => !beside.includes(probe)).map((probe) => probe.close()));
  wait.signal?.throwIfAborted();
  return { limit: Math.min(mostLanes, probes.length - beside.length), beside };
}
