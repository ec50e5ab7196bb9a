import { ProviderError } from "@diskferry/core/provider";
import { command, commandFlag, transmissionFlag } from "../protocol.ts";
import { alignStatuses, joined } from "./block-status.ts";
import type { NbdExtent } from "./block-status.ts";
import { unavailable } from "./errors.ts";
import type { GrantedContext } from "./handshake.ts";
import { nbdHeadroom } from "./request.ts";
import type { Asked } from "./request.ts";
import type { RequestWait, Session } from "./session.ts";

/** How a request is waited for. */
export interface NbdWait {
  /**
   * Aborting rejects with the signal's reason as soon as the buffers of the call are free. What was sent may still
   * happen at the server.
   */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds the server may take, from when the request is sent; then the session is over. */
  readonly timeoutMs?: number | undefined;
}

export interface NbdReadOptions extends NbdWait {
  /** Ask for the reply in one piece (DF), where the server can; elsewhere it has no effect. */
  readonly dontFragment?: boolean | undefined;
  /** The 32 bytes that follow `into` in its buffer are ours to overwrite; saves a system call per request. */
  readonly slack?: boolean | undefined;
}

export interface NbdWriteOptions extends NbdWait {
  /** Resolve only once these bytes are durable. Where the server has no FUA, a flush follows. */
  readonly fua?: boolean | undefined;
  /** The 32 bytes that precede `data` in its buffer are ours to overwrite; header and data then go out as one write. */
  readonly headroom?: boolean | undefined;
}

export interface NbdZeroOptions extends NbdWait {
  readonly fua?: boolean | undefined;
  /** Keep the range allocated (NO_HOLE). */
  readonly noHole?: boolean | undefined;
  /** Reject with UNSUPPORTED rather than be as slow as writing zeroes (FAST_ZERO). */
  readonly fast?: boolean | undefined;
}

export interface NbdStatusOptions extends NbdWait {
  /** Which of the granted contexts to tell of. Default: all of `metaContexts`. */
  readonly contexts?: readonly string[] | undefined;
}

/** What an export can do. */
export interface NbdCapabilities {
  readonly canFlush: boolean;
  readonly canFua: boolean;
  readonly canTrim: boolean;
  readonly canZero: boolean;
  readonly canFastZero: boolean;
  readonly canDf: boolean;
  readonly canCache: boolean;
  /** A flush on one connection covers what any connection has written. */
  readonly canMultiConn: boolean;
  /** The server says that seeking costs. */
  readonly rotational: boolean;
}

/**
 * One session with one export: it never reconnects. When a connection dies, everything rejects with UNAVAILABLE
 * (retryable, on a new session) and a flush of a later session says nothing of this one's writes. An error that the
 * server merely answers (EIO, ENOSPC …) rejects its own call alone; its name is in `cause.code`.
 *
 * Offsets and lengths are multiples of `minimumBlock`, in bytes, and inside the export: else RangeError. Calls of any
 * length are split to what the server takes; calls may overlap in time, and are queued beyond `maxInFlight`.
 */
export interface NbdClient extends AsyncDisposable {
  /** The URI of the export; holds no secret. */
  readonly uri: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly flags: NbdCapabilities;
  /** What offsets and lengths are multiples of; 1 where the server demands nothing. */
  readonly minimumBlock: number;
  /** The unit the server serves best. */
  readonly preferredBlock: number;
  /** The most a single request carries; longer calls are split. */
  readonly maximumPayload: number;
  /** The contexts the server granted, which may be fewer than were asked for. */
  readonly metaContexts: readonly string[];
  readonly tls: boolean;
  /** How replies are framed: `extended` headers allow requests beyond 4 GiB. */
  readonly replies: "simple" | "structured" | "extended";
  /** How many connections requests are spread over. */
  readonly connections: number;
  /** False once a connection died: what the server did with the writes it had answered on it is not known. */
  readonly alive: boolean;
  /** What the server says of the export, for people. */
  readonly description: string | undefined;
  /**
   * Fills all of `into`, or rejects. On a plain socket the kernel writes straight into it; it is the caller's again
   * when the call settles, and not before. It may be shared memory.
   */
  read(offset: number, into: Uint8Array, options?: NbdReadOptions): Promise<void>;
  /** Resolves when the server has the bytes; no reference to `data` is kept then. */
  write(offset: number, data: Uint8Array, options?: NbdWriteOptions): Promise<void>;
  /** Makes a range read as zeroes. @throws ProviderError UNSUPPORTED where the server cannot. */
  zero(offset: number, length: number, options?: NbdZeroOptions): Promise<void>;
  /** Gives a range up; what it reads as afterwards is unknown. @throws ProviderError UNSUPPORTED */
  trim(offset: number, length: number, options?: NbdWait & { fua?: boolean | undefined }): Promise<void>;
  /**
   * Makes durable every write of this session that settled before the call.
   * @throws ProviderError UNSUPPORTED where the server cannot promise it.
   */
  flush(options?: NbdWait): Promise<void>;
  /** Hints that a range will be read. @throws ProviderError UNSUPPORTED */
  cache(offset: number, length: number, options?: NbdWait): Promise<void>;
  /**
   * The status of a range: ascending, contiguous extents that cover exactly `[offset, offset + length)`.
   * @throws ProviderError UNSUPPORTED when a context was not granted.
   */
  blockStatus(offset: number, length: number, options?: NbdStatusOptions): AsyncIterable<NbdExtent>;
  /** Lets calls under way finish for a short while, disconnects cleanly. Idempotent; never rejects. */
  close(): Promise<void>;
}

/** Zero and trim requests carry no payload, but may take the server long: at most 1 GiB each. */
const maximumEffect = 1024 * 1024 * 1024;
/** A status request's length fits 32 bits unless headers are extended. */
const maximumStatus = 2 * 1024 * 1024 * 1024;

/** The client over the sessions it spreads its requests over. All of them live, or none does. */
export class SpreadClient implements NbdClient {
  readonly uri: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly flags: NbdCapabilities;
  readonly minimumBlock: number;
  readonly preferredBlock: number;
  readonly maximumPayload: number;
  readonly metaContexts: readonly string[];
  readonly tls: boolean;
  readonly replies: "simple" | "structured" | "extended";
  readonly connections: number;
  readonly description: string | undefined;
  readonly #first: Session;
  readonly #sessions: readonly Session[];
  readonly #contexts: readonly GrantedContext[];
  readonly #statusPayload: boolean;

  constructor(uri: string, first: Session, more: readonly Session[]) {
    const { agreement } = first;
    const has = (flag: number): boolean => (agreement.flags & flag) !== 0;
    this.uri = uri;
    this.size = agreement.size;
    this.readOnly = has(transmissionFlag.readOnly);
    this.flags = {
      canFlush: has(transmissionFlag.sendFlush),
      canFua: has(transmissionFlag.sendFua),
      canTrim: has(transmissionFlag.sendTrim),
      canZero: has(transmissionFlag.sendWriteZeroes),
      canFastZero: has(transmissionFlag.sendFastZero),
      canDf: has(transmissionFlag.sendDf) && agreement.style !== "simple",
      canCache: has(transmissionFlag.sendCache),
      canMultiConn: has(transmissionFlag.canMultiConnection),
      rotational: has(transmissionFlag.rotational),
    };
    this.minimumBlock = agreement.minimumBlock;
    this.preferredBlock = agreement.preferredBlock;
    this.maximumPayload = agreement.maximumPayload;
    this.metaContexts = agreement.contexts.map(({ name }) => name);
    this.tls = first.encrypted;
    this.replies = agreement.style;
    this.connections = 1 + more.length;
    this.description = agreement.description;
    this.#first = first;
    this.#sessions = [first, ...more];
    this.#contexts = agreement.contexts;
    this.#statusPayload = agreement.style === "extended" && has(transmissionFlag.blockStatusPayload);
  }

  get alive(): boolean {
    return !this.#sessions.some((each) => each.dead);
  }

  async read(offset: number, into: Uint8Array, options: NbdReadOptions = {}): Promise<void> {
    const length = into.byteLength;
    this.#check(offset, length);
    if (options.slack === true && into.byteOffset + length + nbdHeadroom > into.buffer.byteLength) {
      throw new RangeError("slack: into is not followed by 32 bytes of its buffer");
    }
    const flags = options.dontFragment === true && this.flags.canDf ? commandFlag.doNotFragment : 0;
    const asked = (from: number, to: number): Asked => ({
      command: command.read,
      flags,
      offset: offset + from,
      length: to - from,
      into: from === 0 && to === length ? into : into.subarray(from, to),
      slack: options.slack === true && to === length,
    });
    if (length > this.maximumPayload) await this.#inPieces(length, asked, options);
    else if (length > 0) await this.#ask(asked(0, length), options);
  }

  async write(offset: number, data: Uint8Array, options: NbdWriteOptions = {}): Promise<void> {
    const length = data.byteLength;
    this.#check(offset, length);
    this.#checkWritable("write");
    if (options.headroom === true && data.byteOffset < nbdHeadroom) {
      throw new RangeError("headroom: data is not preceded by 32 bytes of its buffer");
    }
    const flags = this.#fua(options.fua);
    const asked = (from: number, to: number): Asked => ({
      command: command.write,
      flags,
      offset: offset + from,
      length: to - from,
      data: from === 0 && to === length ? data : data.subarray(from, to),
      headroom: options.headroom === true && from === 0,
    });
    if (length > this.maximumPayload) await this.#inPieces(length, asked, options);
    else if (length > 0) await this.#ask(asked(0, length), options);
    if (options.fua === true && flags === 0) await this.flush(options);
  }

  async zero(offset: number, length: number, options: NbdZeroOptions = {}): Promise<void> {
    this.#check(offset, length);
    this.#checkWritable("zero");
    this.#demand(this.flags.canZero, "write zeroes");
    if (options.fast === true) this.#demand(this.flags.canFastZero, "say whether zeroing is fast");
    const fua = this.#fua(options.fua);
    const flags =
      fua | (options.noHole === true ? commandFlag.noHole : 0) | (options.fast === true ? commandFlag.fastZero : 0);
    await this.#oneByOne(command.writeZeroes, flags, offset, length, maximumEffect, options);
    if (options.fua === true && fua === 0) await this.flush(options);
  }

  async trim(offset: number, length: number, options: NbdWait & { fua?: boolean | undefined } = {}): Promise<void> {
    this.#check(offset, length);
    this.#checkWritable("trim");
    this.#demand(this.flags.canTrim, "trim");
    const flags = this.#fua(options.fua);
    await this.#oneByOne(command.trim, flags, offset, length, maximumEffect, options);
    if (options.fua === true && flags === 0) await this.flush(options);
  }

  async flush(options: NbdWait = {}): Promise<void> {
    this.#demand(this.flags.canFlush, "flush, so that nothing can be proven durable");
    await this.#ask({ command: command.flush, flags: 0, offset: 0, length: 0 }, options);
    // The writes of a connection that died meanwhile are not covered by what another one says.
    this.#alive();
  }

  async cache(offset: number, length: number, options: NbdWait = {}): Promise<void> {
    this.#check(offset, length);
    this.#demand(this.flags.canCache, "cache");
    await this.#oneByOne(command.cache, 0, offset, length, this.maximumPayload, options);
  }

  async *blockStatus(
    offset: number,
    length: number,
    options: NbdStatusOptions = {},
  ): AsyncGenerator<NbdExtent, void, undefined> {
    this.#check(offset, length);
    const contexts = this.#chosen(options.contexts);
    const extended = this.replies === "extended";
    const end = offset + length;
    let pending: NbdExtent | undefined;
    for (let at = offset; at < end;) {
      const asked = this.#statusRequest(at, extended ? end - at : Math.min(end - at, maximumStatus), contexts);
      const request = await this.#ask(asked, options);
      const before = at;
      for (const extent of alignStatuses(request, contexts, Math.min(end, at + asked.length), extended)) {
        at += extent.length;
        const both = pending === undefined ? undefined : joined(pending, extent);
        if (pending !== undefined && both === undefined) yield pending;
        pending = both ?? extent;
      }
      if (at === before) {
        throw new ProviderError("UNEXPECTED", `${this.uri}: the status at ${at} tells of no byte`, {
          operation: "nbd block status",
        });
      }
    }
    if (pending !== undefined) yield pending;
  }

  async close(): Promise<void> {
    await Promise.all(this.#sessions.map((each) => each.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #statusRequest(offset: number, length: number, contexts: readonly GrantedContext[]): Asked {
    const base = { command: command.blockStatus, flags: 0, offset, length };
    if (!this.#statusPayload || contexts.length === this.#contexts.length) {
      return { ...base, contexts: this.#contexts.map(({ id }) => id) };
    }
    const data = Buffer.alloc(8 + 4 * contexts.length);
    data.writeUInt32BE(Math.floor(length / 0x1_0000_0000), 0);
    data.writeUInt32BE(length % 0x1_0000_0000, 4);
    contexts.forEach(({ id }, index) => data.writeUInt32BE(id, 8 + 4 * index));
    return { ...base, data, contexts: contexts.map(({ id }) => id) };
  }

  #chosen(names: readonly string[] | undefined): readonly GrantedContext[] {
    const wanted = names ?? this.metaContexts;
    const chosen = this.#contexts.filter(({ name }) => wanted.includes(name));
    const missing = wanted.filter((name) => !this.metaContexts.includes(name));
    if (chosen.length === 0 || missing.length > 0) {
      const which = missing.length === 0 ? "any metadata context" : missing.join(", ");
      throw new ProviderError(
        "UNSUPPORTED",
        `${this.uri}: the server did not grant ${which}; connect with metaContexts`,
        {
          operation: "nbd block status",
        },
      );
    }
    return chosen;
  }

  /** Asks for what one request of this server cannot carry. */
  async #inPieces(length: number, asked: (from: number, to: number) => Asked, wait: RequestWait): Promise<void> {
    const limit = this.maximumPayload;
    const asks: Promise<unknown>[] = [];
    for (let from = 0; from < length; from += limit) {
      asks.push(this.#ask(asked(from, Math.min(from + limit, length)), wait));
    }
    // All of them, not the first failure: the buffer is the caller's again only when no piece uses it.
    const failed = (await Promise.allSettled(asks)).find((each) => each.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #oneByOne(
    wanted: number,
    flags: number,
    offset: number,
    length: number,
    limit: number,
    wait: RequestWait,
  ): Promise<void> {
    for (let at = 0; at < length; at += limit) {
      const asked = { command: wanted, flags, offset: offset + at, length: Math.min(limit, length - at) };
      await this.#ask(asked, wait);
    }
  }

  #ask(asked: Asked, wait: RequestWait): ReturnType<Session["ask"]> {
    let idlest = this.#first;
    if (this.#sessions.length > 1) {
      try {
        this.#alive();
      } catch (error) {
        return Promise.reject(error);
      }
      for (const each of this.#sessions) if (each.load < idlest.load) idlest = each;
    }
    return idlest.ask(asked, wait);
  }

  #alive(): void {
    if (this.alive) return;
    const error = unavailable(`${this.uri}: a connection of this session died, so the session is over`, "nbd");
    for (const each of this.#sessions) each.fail(error);
    throw error;
  }

  #fua(fua: boolean | undefined): number {
    if (fua !== true) return 0;
    if (this.flags.canFua) return commandFlag.fua;
    this.#demand(this.flags.canFlush, "make a write durable");
    return 0;
  }

  #demand(can: boolean, what: string): void {
    if (can) return;
    throw new ProviderError("UNSUPPORTED", `${this.uri}: the server cannot ${what}`, { operation: "nbd" });
  }

  #checkWritable(what: string): void {
    if (!this.readOnly) return;
    throw new ProviderError("DENIED", `${this.uri}: the export is read-only; ${what} needs one that is not`, {
      operation: `nbd ${what}`,
    });
  }

  #check(offset: number, length: number): void {
    const sound = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (!sound || offset + length > this.size) {
      throw new RangeError(`${length} bytes at ${offset} are not inside an export of ${this.size} bytes`);
    }
    const unit = this.minimumBlock;
    if (offset % unit !== 0 || length % unit !== 0) {
      throw new RangeError(`${length} bytes at ${offset}: the server demands multiples of ${unit}`);
    }
  }
}
