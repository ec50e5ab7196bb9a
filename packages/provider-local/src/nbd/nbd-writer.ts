import { type NbdAddress, type NbdClient, connectNbd, nbdHeadroom } from "@diskferry/nbd";
import {
  type BlockWriter,
  type LaneWriter,
  type Volume,
  type Wait,
  type WriteOptions,
  ProviderError,
  isProviderError,
} from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { type NbdPlace, blockSizeOf, checkExportSize, endsSession, laneCost, linkShape } from "./nbd-place.ts";

/** What an NBD writer's lane is opened with. */
export interface NbdWriterLaneData {
  address: NbdAddress;
  size: number;
}

const laneModule = new URL(
  import.meta.url.endsWith(".ts") ? "./nbd-writer-lane.ts" : "./nbd-writer-lane.js",
  import.meta.url,
).href;

/** What an NBD writer's owner knows. */
export interface NbdWriterOptions extends Wait {
  generation: string;
  /** Bytes the export must at least have. */
  size: number;
  volume: Volume;
}

/**
 * Writes an export in place. It never reconnects: once the session is lost everything rejects, since a later session's
 * flush says nothing of this one's writes. It writes over several connections, and lanes have some of their own, where
 * the server says that a flush on one covers what was answered on all (CAN_MULTI_CONN).
 */
export async function openNbdWriter(place: NbdPlace, options: NbdWriterOptions): Promise<BlockWriter> {
  const client = await place.client(options);
  checkWritable(client, options.size);
  const { shape, limit, use } = await place.join(client, options);
  const session = new WriteSession(client, use);
  const data: NbdWriterLaneData = { address: place.address, size: client.size };

  return {
    size: client.size,
    blockSize: blockSizeOf(client),
    ...shape,
    generation: options.generation,
    ...(limit === 0 ? {} : { lane: { module: laneModule, limit, data, ...laneCost(client) } }),
    write: (offset, bytes, wait) => session.write(offset, bytes, wait),
    ...(client.flags.canZero
      ? { zero: (offset: number, length: number, wait?: Wait) => session.zero(offset, length, wait) }
      : {}),
    read: (offset, into, wait) => session.run(() => client.read(offset, into, { signal: wait?.signal })),
    flush: (wait) => session.flush(wait),
    async commit(wait): Promise<Volume> {
      await session.flush(wait);
      return { ...options.volume, size: client.size };
    },
    async abandon(): Promise<void> {},
    async [Symbol.asyncDispose](): Promise<void> {
      // A request that was given up may still reach the disk: only an idle session may serve somebody else.
      if (!session.isClean) await place.retire(client);
    },
  };
}

/** A writer of the same export over a connection of its own, for a worker thread. */
export async function openNbdWriterLane(data: NbdWriterLaneData, wait: Wait = {}): Promise<LaneWriter> {
  const client = await connectNbd(data.address, { signal: wait.signal });
  try {
    checkWritable(client, data.size);
    if (!client.flags.canMultiConn) {
      throw localError("UNSUPPORTED", `${client.uri} no longer says that several connections are safe; start again`);
    }
    const session = new WriteSession(client, () => [client]);
    return {
      size: client.size,
      blockSize: blockSizeOf(client),
      ...(await linkShape(client, wait)),
      write: (offset, bytes, options) => session.write(offset, bytes, options),
      ...(client.flags.canZero
        ? { zero: (offset: number, length: number, zeroWait?: Wait) => session.zero(offset, length, zeroWait) }
        : {}),
      settle: () => session.settle(),
      [Symbol.asyncDispose]: () => client.close(),
    };
  } catch (error) {
    await client.close();
    throw error;
  }
}

/**
 * Connections that are written over in turn and are lost together. Keeps a session from being used once it was lost, and
 * from being shared while something may be under way.
 */
class WriteSession {
  readonly #first: NbdClient;
  readonly #use: () => readonly NbdClient[];
  /** Those that were written over. */
  readonly #used = new Set<NbdClient>();
  #turn = 0;
  #lost: Error | undefined;
  #isGivenUp = false;

  constructor(first: NbdClient, use: () => readonly NbdClient[]) {
    this.#first = first;
    this.#use = use;
  }

  get #next(): NbdClient {
    const clients = this.#use();
    const next = clients[this.#turn++ % clients.length] ?? this.#first;
    this.#used.add(next);
    return next;
  }

  get isClean(): boolean {
    return this.#lost === undefined && !this.#isGivenUp;
  }

  write(offset: number, bytes: Uint8Array, options: WriteOptions = {}): Promise<void> {
    const headroom = (options.headroom ?? 0) >= nbdHeadroom;
    return this.run(() => this.#next.write(offset, bytes, { signal: options.signal, headroom }));
  }

  zero(offset: number, length: number, wait: Wait = {}): Promise<void> {
    return this.run(() => this.#next.zero(offset, length, { signal: wait.signal }));
  }

  /** A flush on one connection covers what was answered on all of them, as long as all of them live. */
  flush(wait: Wait = {}): Promise<void> {
    return this.run(async () => {
      await this.#first.flush({ signal: wait.signal });
      this.#checkAlive();
    });
  }

  /** Leaves flushing to another connection of the same server. */
  settle(): Promise<void> {
    return this.run(async () => this.#checkAlive());
  }

  #checkAlive(): void {
    const dead = this.#used.values().find(({ alive }) => !alive);
    if (dead === undefined) return;
    throw localError("UNAVAILABLE", `${dead.uri}: a connection died, and what became of its writes is not known`, {
      operation: "nbd flush",
    });
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#lost !== undefined) throw this.#lost;
    try {
      return await work();
    } catch (error) {
      if (error instanceof Error && endsSession(error)) {
        this.#lost ??= lostSession(error);
        throw this.#lost;
      }
      if (!isProviderError(error)) this.#isGivenUp = true;
      throw error;
    }
  }
}

/** Sending the request again cannot help: the writer has to be opened anew and all since the last flush repeated. */
function lostSession(error: Error): Error {
  if (!isProviderError(error)) return error;
  return new ProviderError("UNAVAILABLE", error.message, {
    provider: "local",
    operation: error.operation,
    retryable: false,
    cause: error,
  });
}

function checkWritable(client: NbdClient, size: number): void {
  checkExportSize(client);
  if (client.readOnly) {
    throw localError("DENIED", `${client.uri} is exported read-only; export it writable, or name another target`);
  }
  if (client.size < size) {
    throw localError(
      "CONFIG_INVALID",
      `${client.uri} has ${client.size} bytes, ${size - client.size} too few for a disk of ${size}; nothing was written: ` +
        "export a larger disk",
    );
  }
  if (!client.flags.canFlush) {
    throw localError(
      "UNSUPPORTED",
      `${client.uri} offers no flush, so that nothing could be proven durable; turn flushing on at the server`,
    );
  }
}
