import {
  type NbdAddress,
  type NbdClient,
  NbdServerError,
  connectNbd,
  formatNbdUri,
  holdNbdPlace,
} from "@diskferry/nbd";
import { type Wait, isProviderError } from "@diskferry/core/provider";
import { localError } from "../errors.ts";

/**
 * One export and the connections that everything on this thread shares. There is one at first, since a server may accept
 * a single client (qemu-nbd's default) and end when that one leaves; {@link NbdPlace.join} adds others.
 */
export class NbdPlace {
  readonly address: NbdAddress;
  /** Names the export; holds no secret. */
  readonly uri: string;
  readonly #contexts: readonly string[];
  #live: Promise<NbdClient> | undefined;
  #joined: { client: NbdClient; joined: Promise<Joined> } | undefined;

  constructor(address: NbdAddress, contexts: readonly string[] = []) {
    this.address = address;
    this.uri = formatNbdUri(address);
    this.#contexts = contexts;
  }

  /**
   * The shared session, opened when there is none or the one there was has ended: what that one knew of the export, its
   * size and its bitmaps, may be another server's by now.
   */
  async client(wait: Wait = {}): Promise<NbdClient> {
    wait.signal?.throwIfAborted();
    const before = await this.#live;
    if (before?.alive === false) await this.retire(before);
    if (this.#live === undefined) {
      const opening = connectNbd(this.address, { metaContexts: this.#contexts, signal: wait.signal });
      this.#live = opening;
      opening.catch(() => {
        if (this.#live === opening) this.#live = undefined;
      });
    }
    return this.#live;
  }

  /** The link of the shared session, and the sessions beside it; found out once for each. */
  async join(client: NbdClient, wait: Wait = {}): Promise<Joined> {
    if (this.#joined?.client !== client) {
      const joined = joinMore(this.address, client, wait);
      const mine = { client, joined };
      this.#joined = mine;
      joined.catch(() => {
        if (this.#joined === mine) this.#joined = undefined;
      });
    }
    return this.#joined.joined;
  }

  /** Sessions that are not to be used again: the next call of `client` opens another. */
  async retire(client: NbdClient): Promise<void> {
    const live = this.#live;
    if (live !== undefined && (await live.catch(() => undefined)) === client && this.#live === live)
      this.#live = undefined;
    await Promise.all([client.close(), this.#part(client)]);
  }

  /** Closes the shared sessions. */
  async close(): Promise<void> {
    const live = this.#live;
    this.#live = undefined;
    const client = await live?.catch(() => undefined);
    if (client !== undefined) await Promise.all([client.close(), this.#part(client)]);
  }

  async #part(client: NbdClient): Promise<void> {
    const found = this.#joined;
    if (found?.client !== client) return;
    this.#joined = undefined;
    await (await found.joined.catch(() => undefined))?.part();
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

/** How a lane's connection, which stands alone, is best used. */
export async function linkShape(client: NbdClient, wait: Wait = {}): Promise<LinkShape> {
  return shapeFor(client, await isFar(client, wait));
}

/** Times a small read, and another where the first was slow, as first ones may be: the faster tells the round trip. */
async function isFar(client: NbdClient, wait: Wait): Promise<boolean> {
  const block = new Uint8Array(blockSizeOf(client));
  for (let count = 0; count < 2; count++) {
    const start = performance.now();
    await client.read(0, block, { signal: wait.signal });
    if (performance.now() - start <= farMs) return false;
  }
  return true;
}

function shapeFor(client: NbdClient, far: boolean): LinkShape {
  const length = Math.min(far ? 4 * 1024 * 1024 : 1024 * 1024, client.maximumPayload);
  // The window is a power of two of at least one block, so that requests stay on the server's grid.
  return { preferredLength: 2 ** Math.floor(Math.log2(length)), concurrency: far ? 16 : nearConcurrency };
}

/** What a lane says of its cost: encryption is worth a thread. A long way is not, as one thread has several connections. */
export function laneCost(client: NbdClient): { demanding?: true } {
  return client.tls ? { demanding: true } : {};
}

const mostLanes = 4;
/** Connections of one thread beside its first, near and far; more than these bring nothing on two cores. */
const mostBeside = { near: 1, far: 3 };
/** Left to lanes before one is kept for the calling thread. */
const leastLanes = 2;
const probeTimeoutMs = 1_000;

/** The link of a session, and what the server takes beside it. */
export interface Joined {
  shape: LinkShape;
  /** How many lanes may have a connection of their own. */
  limit: number;
  /**
   * The calling thread's, the given one first: the server works on some while this thread takes from another. The others
   * come while the first works already, since some servers look at their whole disk for every connection, and over TLS with
   * the first use alone, since threads with lanes need none.
   */
  readonly use: () => readonly NbdClient[];
  /** Closes those that came beside the first. */
  part(): Promise<void>;
}

/**
 * Sizes a session's link and opens others beside it, at most as many as are of use: where the server does not say that
 * several are safe, none.
 */
async function joinMore(address: NbdAddress, client: NbdClient, wait: Wait): Promise<Joined> {
  const far = await isFar(client, wait);
  const most = far ? mostBeside.far : mostBeside.near;
  const room = client.flags.canMultiConn ? await roomFor(mostLanes + most, address, wait) : 0;
  const beside = Math.max(0, Math.min(most, room - leastLanes));
  const clients = [client];
  const parting = new AbortController();
  let opening: Promise<unknown> | undefined;

  async function openAnother(): Promise<void> {
    const another = await connectNbd(address, { signal: parting.signal });
    if (another.size === client.size && !parting.signal.aborted) clients.push(another);
    else await another.close();
  }

  function use(): readonly NbdClient[] {
    // One that does not come is not needed.
    opening ??= Promise.allSettled(Array.from({ length: beside }, openAnother));
    return clients;
  }

  if (laneCost(client).demanding !== true) use();
  return {
    shape: shapeFor(client, far),
    limit: Math.min(mostLanes, room - beside),
    use,
    async part(): Promise<void> {
      parting.abort();
      await opening;
      await Promise.all(clients.slice(1).map((each) => each.close()));
    },
  };
}

/**
 * How many of `most` further clients the server takes at once. Tried out, since a server that takes no more lets a client
 * wait without a word.
 */
async function roomFor(most: number, address: NbdAddress, wait: Wait): Promise<number> {
  const options = { connectTimeoutMs: probeTimeoutMs, signal: wait.signal };
  const tried = await Promise.allSettled(Array.from({ length: most }, () => holdNbdPlace(address, options)));
  const held = tried.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  await Promise.all(held.map((each) => each[Symbol.asyncDispose]()));
  wait.signal?.throwIfAborted();
  return held.length;
}
