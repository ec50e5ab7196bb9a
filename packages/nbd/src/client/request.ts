import type { ProviderError } from "@diskferry/core/provider";
import {
  command as commands,
  commandFlag,
  extendedRequestHeaderLength,
  extendedRequestMagic,
  requestHeaderLength,
  requestMagic,
} from "../protocol.ts";
import { Coverage } from "./coverage.ts";

/** Bytes behind `into` that a read with slack may overwrite, and before `data` that a write with headroom may. */
export const nbdHeadroom = 32;

/** What a caller asks of a session: one command that fits the limits of the server. */
export interface Asked {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Reads: where the bytes go; as long as `length`. */
  readonly into?: Uint8Array | undefined;
  /** Reads: whether the 32 bytes behind `into` may be overwritten. */
  readonly slack?: boolean | undefined;
  /** Writes and status requests: what goes along. */
  readonly data?: Uint8Array | undefined;
  /** Writes: whether the 32 bytes before `data` may be overwritten. */
  readonly headroom?: boolean | undefined;
  /** Status requests: the numbers of the contexts that the reply must hold, each once. */
  readonly contexts?: readonly number[] | undefined;
}

/** One command on its way. */
export class Request {
  readonly asked: Asked;
  readonly timeoutMs: number;
  /** 32 bits, on the wire the low half of the cookie. */
  cookie: number = 0;
  /** `performance.now()` at which the server has taken too long. */
  deadline: number = Infinity;
  /** Reads: where the bytes go; undefined once nobody waits for them. */
  into: Uint8Array | undefined;
  readonly coverage: Coverage | undefined;
  /** Reads: how many replies with content came. */
  contents: number = 0;
  /** Status requests: the raw descriptors of each context. */
  readonly statuses: Map<number, Buffer> | undefined;
  /** The first error of the reply. */
  error: ProviderError | undefined;
  answered: boolean = false;
  /** Whether the socket still needs our bytes. */
  sending: boolean = false;
  settled: boolean = false;
  /** Why nobody waits any more, while the kernel may still write into `into`. */
  abandoned: { reason: unknown } | undefined;
  readonly #resolve: () => void;
  readonly #reject: (error: unknown) => void;
  readonly #signal: AbortSignal | undefined;
  #onAbort: (() => void) | undefined;

  constructor(
    asked: Asked,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    resolve: () => void,
    reject: (error: unknown) => void,
  ) {
    this.asked = asked;
    this.timeoutMs = timeoutMs;
    this.into = asked.into;
    this.coverage = asked.command === commands.read ? new Coverage() : undefined;
    this.statuses = asked.command === commands.blockStatus ? new Map() : undefined;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Calls `onAbort` if the signal fires before the request settles. */
  watch(onAbort: (reason: unknown) => void): void {
    const signal = this.#signal;
    if (signal === undefined) return;
    // Not written where it is assigned: V8 makes such functions in its old generation, as ones that stay, from where they
    // keep all that they know of alive until the next full collection.
    const listener = (): void => onAbort(signal.reason);
    this.#onAbort = listener;
    signal.addEventListener("abort", listener, { once: true });
  }

  /** Ends the caller's wait, once. */
  settle(failure: { error: unknown } | undefined): void {
    if (this.settled) return;
    this.settled = true;
    this.into = undefined;
    if (this.#onAbort !== undefined) this.#signal?.removeEventListener("abort", this.#onAbort);
    if (failure === undefined) this.#resolve();
    else this.#reject(failure.error);
  }

  /** Writes the header at `at` and returns its length. */
  writeHeader(target: Buffer, at: number, extended: boolean): number {
    const { command, flags, offset, length, data } = this.asked;
    const payload = extended && data !== undefined ? commandFlag.payloadLength : 0;
    target.writeUInt32BE(extended ? extendedRequestMagic : requestMagic, at);
    target.writeUInt16BE(flags | payload, at + 4);
    target.writeUInt16BE(command, at + 6);
    target.writeUInt32BE(0, at + 8);
    target.writeUInt32BE(this.cookie, at + 12);
    target.writeUInt32BE(Math.floor(offset / 0x1_0000_0000), at + 16);
    target.writeUInt32BE(offset % 0x1_0000_0000, at + 20);
    if (!extended) {
      target.writeUInt32BE(length, at + 24);
      return requestHeaderLength;
    }
    const announced = payload === 0 ? length : (data?.byteLength ?? 0);
    target.writeUInt32BE(Math.floor(announced / 0x1_0000_0000), at + 24);
    target.writeUInt32BE(announced % 0x1_0000_0000, at + 28);
    return extendedRequestHeaderLength;
  }
}
