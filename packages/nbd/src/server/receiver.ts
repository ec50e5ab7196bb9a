import type { Socket } from "node:net";

/** Received bytes kept while nobody asks for them; beyond it the socket is paused, and the client's sends block. */
const pauseAbove = 256 * 1024;

/** The rejection of a wait for bytes that will not come any more. */
export class ConnectionEnded extends Error {
  /** Whether the client closed between two messages, which is a normal end. */
  readonly clean: boolean;

  constructor(clean: boolean, cause?: unknown) {
    super(clean ? "the client closed the connection" : "the connection ended within a message", { cause });
    this.name = "ConnectionEnded";
    this.clean = clean;
  }
}

interface Pending {
  /** Absent: the bytes are thrown away. */
  target: Uint8Array | undefined;
  at: number;
  end: number;
  resolve: () => void;
  reject: (reason: unknown) => void;
}

/**
 * Hands out the bytes of a socket in the order and the lengths its user asks for, one request at a time. Each received
 * piece is copied once, while it is still in the processor's cache, and its memory is given back at once instead of
 * being left to the garbage collector (docs/decisions/003-nbd-server-receive-path.md).
 */
export class Receiver {
  readonly #socket: Socket;
  readonly #pieces: Uint8Array[] = [];
  readonly #listeners: {
    data: (piece: Uint8Array) => void;
    end: () => void;
    close: () => void;
    error: (error: Error) => void;
  };
  #first = 0;
  #buffered = 0;
  #pending: Pending | undefined;
  #ended = false;
  #failure: unknown;
  #insideMessage = false;
  #message = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#listeners = {
      data: (piece) => this.#receive(piece),
      end: () => this.#end(undefined),
      close: () => this.#end(undefined),
      error: (error) => this.#end(error),
    };
    const { data, end, close, error } = this.#listeners;
    socket.on("data", data).on("end", end).on("close", close).on("error", error);
    this.#tap();
  }

  /** Bytes received and not asked for yet. */
  get buffered(): number {
    return this.#buffered;
  }

  /** Counts the messages that somebody began to wait for. */
  get message(): number {
    return this.#message;
  }

  /** Whether a message has begun to arrive and somebody waits for the rest of it. */
  get waitingInside(): boolean {
    return this.#pending !== undefined && (this.#insideMessage || this.#pending.at > 0);
  }

  /** Whether somebody waits for the first byte of a message. */
  get waitingBetween(): boolean {
    return this.#pending !== undefined && !this.waitingInside;
  }

  /**
   * Fills all of `target`; undefined: done already, so that the usual case costs no turn of the event loop.
   * `begins`: the first bytes of a message, where the client may close. @throws ConnectionEnded
   */
  fill(target: Uint8Array, begins = false): Promise<void> | undefined {
    return this.#request(target, target.byteLength, begins);
  }

  /** Throws `length` bytes away. */
  skip(length: number): Promise<void> | undefined {
    return this.#request(undefined, length, false);
  }

  /** Stops listening, for another owner of the socket (TLS). */
  detach(): void {
    const { data, end, close, error } = this.#listeners;
    this.#socket.off("data", data).off("end", end).off("close", close).off("error", error).pause();
  }

  /**
   * Takes bytes that somebody waits for where a Readable would begin to queue them, which saves a twentieth of the whole
   * time (docs/decisions/003-nbd-server-receive-path.md). All others come as `data`, and so can be paused; and while some
   * of those are still queued nothing may pass them.
   */
  #tap(): void {
    const push = this.#socket.push.bind(this.#socket);
    this.#socket.push = (bytes: unknown, encoding?: BufferEncoding): boolean => {
      const inLine = this.#pending === undefined || this.#socket.readableLength > 0;
      if (inLine || !(bytes instanceof Uint8Array)) return push(bytes, encoding);
      this.#receive(bytes);
      return true;
    };
  }

  #request(target: Uint8Array | undefined, length: number, begins: boolean): Promise<void> | undefined {
    this.#insideMessage = !begins;
    if (begins) this.#message += 1;
    const request: Pending = { target, at: 0, end: length, resolve: ignore, reject: ignore };
    while (request.at < request.end && this.#pieces.length > 0) {
      const piece = this.#pieces[0] as Uint8Array;
      const taken = copyInto(request, piece, this.#first);
      this.#first += taken;
      this.#buffered -= taken;
      if (this.#first === piece.byteLength) {
        this.#pieces.shift();
        this.#first = 0;
        giveBack(piece);
      }
    }
    if (this.#buffered === 0 && this.#socket.isPaused()) this.#socket.resume();
    if (request.at === request.end) return undefined;
    if (this.#ended) return Promise.reject(this.#ending(request));
    return new Promise((resolve, reject) => {
      request.resolve = resolve;
      request.reject = reject;
      this.#pending = request;
    });
  }

  #receive(piece: Uint8Array): void {
    let taken = 0;
    const pending = this.#pending;
    if (pending !== undefined) {
      taken = copyInto(pending, piece, 0);
      if (pending.at === pending.end) {
        this.#pending = undefined;
        pending.resolve();
      }
    }
    if (taken === piece.byteLength) {
      giveBack(piece);
      return;
    }
    if (this.#pieces.length === 0) this.#first = taken;
    this.#pieces.push(piece);
    this.#buffered += piece.byteLength - taken;
    if (this.#buffered > pauseAbove) this.#socket.pause();
  }

  #end(failure: unknown): void {
    this.#ended = true;
    this.#failure ??= failure;
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    pending.reject(this.#ending(pending));
  }

  #ending(request: Pending): ConnectionEnded {
    return new ConnectionEnded(!this.#insideMessage && request.at === 0, this.#failure);
  }
}

function copyInto(request: Pending, piece: Uint8Array, from: number): number {
  const length = Math.min(request.end - request.at, piece.byteLength - from);
  if (request.target !== undefined) {
    const whole = from === 0 && length === piece.byteLength;
    request.target.set(whole ? piece : piece.subarray(from, from + length), request.at);
  }
  request.at += length;
  return length;
}

/**
 * Frees the memory of a piece now. Left to the garbage collector, every read of 64 KiB would get fresh cold memory,
 * which doubles the processor time of receiving. Only where the piece is all of its memory: a shared one stays.
 */
function giveBack(piece: Uint8Array): void {
  const { buffer } = piece;
  if (buffer instanceof ArrayBuffer && piece.byteLength === buffer.byteLength && !buffer.detached) buffer.transfer(0);
}

function ignore(): void {
  // A request that never had to wait.
}
