import { connect as connectPlain } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { copyInto, ProviderError } from "@diskferry/core/provider";
import { clientTlsOptions, matchesPin } from "../tls.ts";
import type { NbdTlsOptions } from "../tls.ts";
import { defaultNbdPort } from "../uri.ts";
import type { NbdAddress } from "../uri.ts";
import { unavailable } from "./errors.ts";

/**
 * What takes the bytes of a {@link Wire}. Bytes either land in the wire's scratch and are offered to `take`, or land
 * straight in the place that `place` names.
 */
export interface Intake {
  /** How many bytes of scratch `take` needs before it can go on. */
  readonly wanted: number;
  /** How many bytes to fetch into scratch at once; at least `wanted`. */
  readonly window: number;
  /** Consumes bytes of scratch from `start` and tells how many; 0: more are needed, or none are wanted now. */
  take(scratch: Buffer, start: number, end: number): number;
  /** Where the next bytes belong; undefined: scratch. Never empty, and asked only while scratch holds nothing. */
  place(): Uint8Array | undefined;
  /** So many bytes arrived in the last place. Returns how many of them lie behind its end proper, in slack. */
  placed(count: number): number;
  /** The wire is dead: nothing comes any more, and nothing is written into any place. */
  ended(error: unknown): void;
}

/** Why a wire is dead. */
export interface WireFailure {
  readonly error: unknown;
  /** The other side closed or reset it; otherwise we did. */
  readonly lost: boolean;
}

const scratchLength = 64 * 1024;

/**
 * One connection. On a plain socket the kernel reads straight into the place that the intake names (`onread`, a
 * documented option of `net.connect`); on TLS the decrypted records are copied there. The place that was named last
 * belongs to the kernel until the next bytes arrived or the wire was destroyed.
 */
export class Wire {
  /** For messages: what this wire leads to. */
  readonly subject: string;
  #socket: Socket;
  #encrypted = false;
  #intake: Intake;
  readonly #scratch = Buffer.allocUnsafeSlow(scratchLength);
  #start = 0;
  #end = 0;
  #offered: Uint8Array | undefined;
  #failure: WireFailure | undefined;
  readonly #opened: Promise<void>;

  constructor(address: NbdAddress, subject: string, intake: Intake) {
    this.subject = subject;
    this.#intake = intake;
    const onread = {
      buffer: (): Uint8Array => this.#offer(),
      callback: (count: number): boolean => {
        this.#arrived(count);
        return true;
      },
    };
    this.#socket =
      address.socketPath === undefined
        ? connectPlain({ host: address.host ?? "", port: address.port ?? defaultNbdPort, onread, noDelay: true })
        : connectPlain({ path: address.socketPath, onread });
    this.#opened = this.#watch(this.#socket, "connect", (error) => this.#connectError(error));
    if (address.socketPath === undefined) this.#socket.setKeepAlive(true, 30_000);
  }

  /** Why the wire is dead; undefined while it lives. */
  get failure(): WireFailure | undefined {
    return this.#failure;
  }

  /** Whether what goes over it is encrypted. */
  get encrypted(): boolean {
    return this.#encrypted;
  }

  /** Whether the kernel may at any moment write into the place that the intake named last. */
  get kernelOwnsPlace(): boolean {
    return this.#offered !== undefined && this.#failure === undefined && !this.#encrypted;
  }

  /** How many bytes arrived that nobody took yet. */
  get pending(): number {
    return this.#end - this.#start;
  }

  /** Resolves when the connection stands. */
  opened(): Promise<void> {
    return this.#opened;
  }

  /** Hands everything that comes from here on to another intake. */
  redirect(intake: Intake): void {
    this.#intake = intake;
    if (this.#failure === undefined) this.poke();
    else intake.ended(this.#failure.error);
  }

  /** Offers what lies in scratch to the intake, after its wants changed. */
  poke(): void {
    try {
      while (this.#start < this.#end && this.#failure === undefined) {
        const taken = this.#intake.take(this.#scratch, this.#start, this.#end);
        if (taken === 0) break;
        this.#start += taken;
      }
    } catch (error) {
      this.fail(error);
    }
  }

  /**
   * Sends bytes, `second` right behind `first`. `done` is called once the bytes are no longer needed: they are in the
   * kernel, or the wire is dead.
   */
  send(first: Uint8Array, second: Uint8Array | undefined, done: () => void): void {
    if (second === undefined) {
      this.#socket.write(first, done);
      return;
    }
    this.#socket.cork();
    this.#socket.write(first);
    this.#socket.write(second, done);
    this.#socket.uncork();
  }

  /**
   * Turns to TLS and resolves when the server is verified. Nothing that came before counts any more.
   * @throws ProviderError AUTH when the server is not the one that `options` demand.
   */
  async secure(options: NbdTlsOptions, host: string | undefined): Promise<void> {
    if (this.pending > 0) {
      // Bytes in front of the TLS handshake may come from a third party (CVE-2021-3716 was of this kind).
      throw new ProviderError("UNEXPECTED", `${this.subject}: bytes came before TLS was up; the session is refused`, {
        operation: "nbd connect",
      });
    }
    const plain = this.#socket;
    const settings = clientTlsOptions(options, host);
    const socket = this.#wrap({ ...settings, socket: plain });
    this.#encrypted = true;
    this.#offered = undefined;
    this.#socket = socket;
    this.#tap(socket);
    await this.#watch(socket, "secureConnect", (error) => this.#tlsError(error));
    if (options.pin !== undefined) {
      const fingerprint = socket.getPeerX509Certificate()?.fingerprint256 ?? "";
      if (fingerprint === "" || !matchesPin(options.pin, fingerprint)) {
        throw this.#distrust(`the server's certificate is not the pinned one, its fingerprint is ${fingerprint}`);
      }
    }
  }

  /** Says that nothing more is sent, and resolves when the other side closed too, or after `graceMs`. */
  async end(graceMs: number): Promise<void> {
    if (this.#failure !== undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket.once("close", () => resolve());
    const timer = setTimeout(resolve, graceMs);
    this.#socket.end();
    await promise;
    clearTimeout(timer);
    this.fail(unavailable(`${this.subject}: the session was closed`, "nbd close"));
  }

  /** Kills the connection at once; when this returns, no place and no sent bytes are touched any more. */
  fail(error: unknown, lost = false): void {
    if (this.#failure !== undefined) return;
    this.#failure = { error, lost };
    this.#socket.destroy();
    this.#offered = undefined;
    this.#intake.ended(error);
  }

  #watch(socket: Socket, event: "connect" | "secureConnect", translate: (error: Error) => unknown): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let open = false;
    socket.once(event, () => {
      open = true;
      resolve();
    });
    const over = (error: unknown): void => {
      reject(error);
      // A plain socket under TLS closes with it, and its own error says less.
      if (this.#socket === socket) this.fail(error, true);
    };
    socket.on("error", (error) => over(open ? this.#lost(error) : translate(error)));
    const closed = (): unknown => (open || event === "connect" ? this.#lost(undefined) : this.#shutDuringTls());
    socket.on("end", () => over(closed()));
    socket.on("close", () => over(this.#failure?.error ?? closed()));
    promise.catch(() => undefined);
    return promise;
  }

  #wrap(settings: ConnectionOptions): TLSSocket {
    try {
      return connectTls(settings);
    } catch (cause) {
      const code = cause instanceof Error ? codeOf(cause) : "unknown";
      const what = "a certificate, key or authority is not PEM that OpenSSL can use, or they do not belong together";
      throw new ProviderError("CONFIG_INVALID", `${this.subject}: TLS: ${what} (${code})`, {
        operation: "nbd connect",
        cause,
      });
    }
  }

  /**
   * Takes decrypted bytes where a Readable would begin to queue them, which saves a sixth of the whole cost (see
   * docs/decisions/002-nbd-over-tls.md). Should Node ever bring them past `push`, they come as `data`.
   */
  #tap(socket: TLSSocket): void {
    const push = socket.push.bind(socket);
    socket.push = (bytes: unknown, encoding?: BufferEncoding): boolean => {
      if (!(bytes instanceof Uint8Array)) return push(bytes, encoding);
      this.#feed(bytes);
      return true;
    };
    socket.on("data", (bytes: Buffer) => this.#feed(bytes));
  }

  #offer(): Uint8Array {
    if (this.#failure !== undefined) return this.#scratch;
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
      const place = this.#intake.place();
      this.#offered = place;
      if (place !== undefined) return place;
    }
    this.#offered = undefined;
    const { wanted, window } = this.#intake;
    if (scratchLength - this.#start < Math.max(wanted, 1) || this.#end === scratchLength) {
      this.#scratch.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const until = Math.min(scratchLength, Math.max(this.#start + window, this.#end + 1));
    // Full scratch that nobody wants: #arrived refuses it; the kernel must never be given an empty buffer (ENOBUFS).
    return until > this.#end ? this.#scratch.subarray(this.#end, until) : this.#scratch;
  }

  #arrived(count: number): void {
    if (this.#failure !== undefined) return;
    const place = this.#offered;
    try {
      if (place === undefined) {
        this.#end += count;
        if (this.#end > scratchLength) throw this.#unasked();
      } else {
        const extra = this.#intake.placed(count);
        if (extra > 0) this.#scratch.set(place.subarray(count - extra, count), 0);
        this.#end = extra;
      }
    } catch (error) {
      this.fail(error);
      return;
    }
    this.poke();
  }

  #feed(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength && this.#failure === undefined;) {
      const place = this.#offer();
      const count = Math.min(place.byteLength, bytes.byteLength - at);
      copyInto(place, bytes.subarray(at, at + count));
      at += count;
      this.#arrived(count);
    }
  }

  #unasked(): ProviderError {
    return new ProviderError("UNEXPECTED", `${this.subject}: the server sends what nobody asked for`, {
      operation: "nbd connect",
    });
  }

  #lost(cause: Error | undefined): ProviderError {
    const why = cause === undefined ? "the server closed the connection" : `the connection broke (${codeOf(cause)})`;
    return unavailable(`${this.subject}: ${why}`, "nbd", cause);
  }

  #connectError(error: Error): ProviderError {
    const code = codeOf(error);
    const denied = code === "EACCES" || code === "EPERM";
    return new ProviderError(
      denied ? "DENIED" : "UNAVAILABLE",
      `${this.subject}: cannot connect (${code}); is the server running, and the address right?`,
      { operation: "nbd connect", cause: error },
    );
  }

  #tlsError(error: Error): ProviderError {
    const code = codeOf(error);
    // A connection that merely breaks says nothing about who the server is.
    if (code === "ECONNRESET" || code === "EPIPE" || code === "ETIMEDOUT") return this.#shutDuringTls(error);
    const [message = ""] = error.message.split(";");
    return this.#distrust(`${code}: ${message.slice(0, 200)}`, error);
  }

  #shutDuringTls(cause?: Error): ProviderError {
    const hint = "does it demand a client certificate, or another key?";
    return unavailable(`${this.subject}: the server closed during the TLS handshake; ${hint}`, "nbd connect", cause);
  }

  #distrust(why: string, cause?: Error): ProviderError {
    const remedy = "check the certificate authority, the name, the pin or the key";
    return new ProviderError("AUTH", `${this.subject}: TLS failed, ${why}; ${remedy}`, {
      operation: "nbd connect",
      cause,
    });
  }
}

function codeOf(error: Error): string {
  return (error as NodeJS.ErrnoException).code ?? error.name;
}
