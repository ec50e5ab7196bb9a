import type { Server, Socket } from "node:net";
import type { Wait } from "@diskferry/core/provider";
import { defaultMaximumPayload } from "../protocol.ts";
import { BlockPool } from "./block-pool.ts";
import { Connection } from "./connection.ts";
import {
  ExportDirectory,
  type NbdAuthorize,
  type NbdConnectionRequest,
  type NbdEpochs,
  type NbdExports,
} from "./exports.ts";
import { listen, type NbdListen, type NbdServerAddress } from "./listen.ts";
import { checkServerTls, type NbdServerTls } from "./tls.ts";

/** Bounds of what clients can make a server use. All have defaults. */
export interface NbdServerLimits {
  /** Connections at once; one more is closed at once. Default 64. */
  readonly connections?: number;
  /** The longest payload of one request, in bytes: 64 KiB to 1 GiB. Default 32 MiB. */
  readonly payload?: number;
  /** Requests of one connection under way at once; more wait in the socket. Default 32. */
  readonly inFlight?: number;
  /** Payload of all connections under way at once, in bytes; a connection gets a quarter at most. Default 256 MiB. */
  readonly bufferBytes?: number;
  /** From the connection to the begin of transmission, TLS included. Default 10 000. */
  readonly handshakeMs?: number;
  /**
   * For a request that began to arrive, and for answers to be taken: this long, and a second per MiB. Default 30 000.
   */
  readonly messageMs?: number;
  /** How long a client with nothing under way may be silent. Default: for ever. */
  readonly idleMs?: number;
}

/** What {@link serveNbd} needs. */
export interface NbdServerOptions {
  readonly listen: NbdListen;
  readonly exports: NbdExports;
  /** Given: TLS is required. Absent: there is none. */
  readonly tls?: NbdServerTls;
  /** Who may open what. Absent: everyone may open every export. */
  readonly authorize?: NbdAuthorize;
  /**
   * Whether a name may end in an epoch: `disk@7` opens `disk` for epoch 7. Needed for `fence`. To bind an epoch to a
   * client certificate, `authorize` is given both. Default false: names are taken as they are.
   */
  readonly epochs?: NbdEpochs;
  readonly limits?: NbdServerLimits;
  /** For people who watch: connections that were refused, cut or failed, and why. */
  notice?(message: string): void;
}

/** A connection that got through its handshake. */
export interface NbdServerConnection extends NbdConnectionRequest {
  /** Closes it now, whatever is under way. */
  destroy(): void;
}

/** A running server. Disposing closes it. */
export interface NbdServer extends AsyncDisposable {
  readonly address: NbdServerAddress;
  /** The NBD URI of an export, for clients on this machine. */
  uri(exportName?: string): string;
  /** Who has which export open. */
  connections(): NbdServerConnection[];
  /**
   * Ends all epochs of an export before this one: connections of an older epoch, or of none, take no more requests, end
   * what is under way and are closed; new ones are refused. Resolves when no older write can reach the backend any
   * more. Repeating it is fine. @throws ProviderError FENCED when a newer epoch has begun; TypeError without `epochs`.
   */
  fence(exportName: string, epoch: number, wait?: Wait): Promise<void>;
  /**
   * Takes no more connections and requests, ends what is under way and closes; after `deadlineMs` (default 10 000), or
   * when the signal is aborted, by force. Resolves when all sockets are closed. Backends are the caller's to close.
   */
  close(options?: { deadlineMs?: number } & Wait): Promise<void>;
}

/**
 * Serves disks over NBD: fixed newstyle, structured replies, extended headers, meta contexts, TLS.
 * @throws TypeError RangeError for options that cannot be; ProviderError when it cannot listen.
 */
export async function serveNbd(options: NbdServerOptions): Promise<NbdServer> {
  const server = new RunningServer(options);
  await server.start(options.listen);
  return server;
}

class RunningServer implements NbdServer {
  readonly #exports: ExportDirectory;
  readonly #tls: NbdServerTls | undefined;
  readonly #limits: Required<NbdServerLimits>;
  readonly #pool: BlockPool;
  readonly #notice: (message: string) => void;
  readonly #connections = new Set<Connection>();
  readonly #forced = new AbortController();
  #listener: Server | undefined;
  #address: NbdServerAddress = { path: "" };
  #watch: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: NbdServerOptions) {
    if (options.tls !== undefined) checkServerTls(options.tls);
    this.#exports = new ExportDirectory(options);
    this.#tls = options.tls;
    this.#limits = completeLimits(options.limits ?? {});
    this.#pool = new BlockPool({
      budget: this.#limits.bufferBytes,
      retained: Math.min(this.#limits.bufferBytes, 64 * 1024 * 1024),
    });
    this.#notice = (message) => options.notice?.(message);
  }

  get address(): NbdServerAddress {
    return this.#address;
  }

  async start(where: NbdListen): Promise<void> {
    const { listener, address } = await listen(where, (socket) => this.#accept(socket));
    listener.on("error", (error) => this.#notice(`listening failed: ${error.message}`));
    this.#listener = listener;
    this.#address = address;
    const every = Math.min(1000, Math.max(10, Math.min(this.#limits.messageMs, this.#limits.idleMs) / 4));
    this.#watch = setInterval(() => {
      const now = performance.now();
      for (const connection of this.#connections) connection.watch(now);
    }, every);
    this.#watch.unref();
  }

  uri(exportName = ""): string {
    const scheme = this.#tls === undefined ? "nbd" : "nbds";
    const name = encodeURIComponent(exportName);
    if ("path" in this.#address) return `${scheme}+unix:///${name}?socket=${encodeURIComponent(this.#address.path)}`;
    const { host, port } = this.#address;
    return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}/${name}`;
  }

  connections(): NbdServerConnection[] {
    return [...this.#connections].flatMap((connection) => {
      const { session, client } = connection;
      if (session === undefined) return [];
      const { exportName, epoch } = session;
      return [
        { ...client, exportName, ...(epoch === undefined ? {} : { epoch }), destroy: () => connection.destroy() },
      ];
    });
  }

  async fence(exportName: string, epoch: number, wait: Wait = {}): Promise<void> {
    this.#exports.raise(exportName, epoch);
    const older = [...this.#connections].filter(({ session }) => {
      if (session?.exportName !== exportName) return false;
      return session.epoch === undefined || session.epoch < epoch;
    });
    await untilAborted(Promise.all(older.map((connection) => connection.retire())), wait.signal);
  }

  close(options: { deadlineMs?: number } & Wait = {}): Promise<void> {
    this.#closing ??= this.#close(options);
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #accept(socket: Socket): void {
    if (this.#closing !== undefined || this.#connections.size >= this.#limits.connections) {
      this.#notice(`refused a connection: ${this.#connections.size} are open`);
      socket.on("error", () => socket.destroy());
      socket.destroy();
      return;
    }
    const connection = new Connection(socket, {
      exports: this.#exports,
      pool: this.#pool,
      tls: this.#tls,
      limits: {
        payload: this.#limits.payload,
        inFlight: this.#limits.inFlight,
        bufferBytes: this.#limits.bufferBytes / 4,
      },
      deadlines: this.#limits,
      forced: this.#forced.signal,
      closing: () => this.#closing !== undefined,
      notice: this.#notice,
    });
    this.#connections.add(connection);
    void connection.finished.then(() => this.#connections.delete(connection));
  }

  async #close(options: { deadlineMs?: number } & Wait): Promise<void> {
    const listener = this.#listener;
    const stopped = new Promise<void>((resolve) =>
      listener === undefined ? resolve() : listener.close(() => resolve()),
    );
    const all = [...this.#connections];
    const force = (): void => {
      this.#forced.abort(new Error("the NBD server was closed by force"));
      for (const connection of all) connection.destroy();
    };
    const timer = setTimeout(force, options.deadlineMs ?? 10_000);
    options.signal?.addEventListener("abort", force, { once: true });
    if (options.signal?.aborted === true) force();
    const drained = Promise.all(all.map((connection) => connection.retire()));
    const forced = new Promise<void>((resolve) => {
      this.#forced.signal.addEventListener("abort", () => resolve(), { once: true });
      if (this.#forced.signal.aborted) resolve();
    });
    await Promise.race([drained, forced]);
    await Promise.all(all.map((connection) => connection.closed));
    await stopped;
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", force);
    clearInterval(this.#watch);
  }
}

function completeLimits(given: NbdServerLimits): Required<NbdServerLimits> {
  const limits = {
    connections: given.connections ?? 64,
    payload: given.payload ?? defaultMaximumPayload,
    inFlight: given.inFlight ?? 32,
    bufferBytes: given.bufferBytes ?? 256 * 1024 * 1024,
    handshakeMs: given.handshakeMs ?? 10_000,
    messageMs: given.messageMs ?? 30_000,
    idleMs: given.idleMs ?? Infinity,
  };
  for (const [name, value] of Object.entries(limits)) {
    if (!(value > 0)) throw new RangeError(`limits.${name} must be greater than 0, not ${value}`);
  }
  if (limits.payload < 65_536 || limits.payload > 2 ** 30) {
    throw new RangeError(`limits.payload must be 64 KiB to 1 GiB, not ${limits.payload}`);
  }
  if (limits.bufferBytes < limits.payload) {
    throw new RangeError(`limits.bufferBytes (${limits.bufferBytes}) must hold one payload (${limits.payload})`);
  }
  return limits;
}

async function untilAborted(work: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) {
    await work;
    return;
  }
  signal.throwIfAborted();
  let onAbort: () => void = () => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
