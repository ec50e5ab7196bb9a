import { setTimeout as sleep } from "node:timers/promises";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import { neverSent, translateFault, vsphereError } from "../errors.ts";
import { type AboutInfo, readAbout } from "./about.ts";
import { negotiateApi, type OfferedApi } from "./api-version.ts";
import { statusError } from "./http-status.ts";
import { type MoRef, moRef, moRefText } from "./moref.ts";
import { onlyReference, SoapCodec } from "./soap-codec.ts";
import { ViJsonCodec } from "./vi-json-codec.ts";
import type { VimArguments } from "./vim-argument.ts";
import type { VimCodec } from "./vim-codec.ts";
import type { VimElement } from "./vim-element.ts";
import { VimFault } from "./vim-fault.ts";
import { type Trust, VimHttp } from "./vim-http.ts";
import { vimMethod, type VimMethodName } from "./vim-methods.ts";
import { endedSession } from "./vim-properties.ts";
import { abandonable, VimSession } from "./vim-session.ts";

/** Who logs in: a user, or the bearer of a ticket that another session of the same user drew (good once). */
export type VimCredentials =
  | { readonly userName: string; readonly password: string }
  | { readonly cloneTicket: string };

/** How to reach a vCenter or an ESXi host; what is left out has the default named. */
export interface VimClientOptions {
  /** `https://host[:port]`. */
  url: URL;
  credentials: VimCredentials;
  trust?: Trust | undefined;
  /** Milliseconds for one request; default 300,000. */
  timeoutMs?: number | undefined;
  /** Milliseconds until a connection stands; default 30,000. */
  connectTimeoutMs?: number | undefined;
  /** Connections for calls at once; default 8. Long waits and streams have their own. */
  connections?: number | undefined;
  /** `auto`, the default: VI/JSON where the server offers it, else SOAP. */
  protocol?: "auto" | "soap" | "vi-json" | undefined;
  /** Milliseconds between calls that keep an idle session alive; default 300,000 (vCenter ends it after 30 minutes). */
  keepAliveMs?: number | undefined;
  /** Milliseconds that calls which may be repeated are, while the server restarts; default 600,000. */
  retryForMs?: number | undefined;
  /** For people: reconnections, fallbacks. */
  notice?: ((message: string) => void) | undefined;
}

const defaultTimeoutMs = 300_000;
const defaultKeepAliveMs = 300_000;
const defaultRetryForMs = 600_000;
const firstPauseMs = 250;
const longestPauseMs = 15_000;

/** The singletons of the service that calls are made on, from RetrieveServiceContent; absent ones a host may lack. */
export interface ServiceReferences {
  readonly rootFolder: MoRef;
  readonly propertyCollector: MoRef;
  readonly sessionManager: MoRef;
  readonly viewManager?: MoRef | undefined;
  readonly searchIndex?: MoRef | undefined;
  readonly authorizationManager?: MoRef | undefined;
  readonly perfManager?: MoRef | undefined;
}

/**
 * A login at a vCenter or ESXi host, through which calls of the table are made. It logs in again when the session has
 * ended, once for each call, and repeats calls that may be repeated while the server is away; everything else fails at
 * once. Disposing logs out.
 */
export class VimClient implements AsyncDisposable {
  readonly about: AboutInfo;
  readonly references: ServiceReferences;
  readonly http: VimHttp;
  readonly #options: VimClientOptions;
  readonly #codec: VimCodec;
  readonly #session: VimSession;
  readonly #closing = new AbortController();
  #user: SessionUser = { key: "", userName: "" };
  #lastAnswer = Date.now();
  #keepAlive: NodeJS.Timeout | undefined;
  #soap: Promise<VimClient> | undefined;

  private constructor(options: VimClientOptions, http: VimHttp, codec: VimCodec, content: VimElement) {
    this.#options = options;
    this.http = http;
    this.#codec = codec;
    this.about = readAbout(content);
    this.references = readReferences(content);
    this.#session = new VimSession((wait) => this.#login(wait));
  }

  /**
   * Connects and logs in. Nothing is repeated yet: a wrong address fails at once.
   *
   * @throws ProviderError AUTH for a wrong password or a server that is not to be trusted; UNAVAILABLE where it is not
   * reached; UNSUPPORTED where VI/JSON is demanded and not offered
   */
  static async connect(options: VimClientOptions, wait: Wait = {}): Promise<VimClient> {
    const { url, trust, timeoutMs = defaultTimeoutMs, connectTimeoutMs, connections } = options;
    const http = new VimHttp({ origin: url, trust, timeoutMs, connectTimeoutMs, connections });
    try {
      const api = await negotiateApi(http, options.protocol ?? "auto", wait);
      if (api.notice !== undefined) options.notice?.(api.notice);
      const client = new VimClient(options, http, codecOf(api), api.content);
      await client.#session.renew(0, wait);
      client.#keepAlive = setInterval(() => void client.#stayAlive(), options.keepAliveMs ?? defaultKeepAliveMs);
      client.#keepAlive.unref();
      return client;
    } catch (error) {
      await http[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The encoding in use. */
  get protocol(): "soap" | "vi-json" {
    return this.#codec.name;
  }

  /** The API version that calls are made in, such as `8.0.3.0`. */
  get apiVersion(): string {
    return this.#codec.version;
  }

  /** Milliseconds that one request may take. */
  get timeoutMs(): number {
    return this.#options.timeoutMs ?? defaultTimeoutMs;
  }

  /** Who is logged in, as the server knows it: `VSPHERE.LOCAL\\Administrator`, with the session's key. */
  get user(): SessionUser {
    return this.#user;
  }

  /** Grows when a new session began: collectors, views and leases of the one before are gone. */
  get generation(): number {
    return this.#session.generation;
  }

  /** For people: `vCenter vc.example.org 8.0.3`. */
  get place(): string {
    return `${this.about.kind === "vcenter" ? "vCenter" : "ESXi host"} ${this.http.host}`;
  }

  /** The session's cookie, verbatim, for links of leases and datastores. Only a SOAP client has one; see {@link soap}. */
  get cookie(): string | undefined {
    return this.#codec.name === "soap" ? this.#session.credential : undefined;
  }

  /** Tells people something that was handled. */
  notice(message: string): void {
    this.#options.notice?.(message);
  }

  /**
   * A client that speaks SOAP to the same server: this one where it does, else a second login. Leases belong to a session
   * and their links want its cookie, so exports are made through it. It is disposed with this one.
   */
  soap(wait: Wait = {}): Promise<VimClient> {
    if (this.#codec.name === "soap") return Promise.resolve(this);
    // The second login is everybody's, too: it ends with this client, and not with the first who asked for it.
    this.#soap ??= this.#openSoap({ signal: this.#closing.signal }).catch((error: unknown) => {
      this.#soap = undefined;
      throw error;
    });
    return abandonable(this.#soap, wait.signal);
  }

  /** A ticket with which a worker joins as the same user without the password, once and soon. */
  async cloneTicket(wait: Wait = {}): Promise<string> {
    const [ticket] = await this.call("AcquireCloneTicket", this.references.sessionManager, {}, wait);
    return ticket?.text ?? "";
  }

  /**
   * Makes one call. The elements are what the method returns: none, one, or those of a list.
   *
   * @throws ProviderError by the one table of translations, with the `VimFault` as its cause (see `faultOf`);
   * UNAVAILABLE where the connection broke: a call that is not `repeatable` may have happened then
   */
  async call(name: VimMethodName, self: MoRef, args: VimArguments = {}, wait: CallWait = {}): Promise<VimElement[]> {
    const { retryForMs = defaultRetryForMs } = this.#options;
    const deadline = Date.now() + retryForMs;
    let renewed = false;
    for (let attempt = 0; ; attempt++) {
      const generation = this.#session.generation;
      try {
        return await this.#once(name, self, args, wait);
      } catch (error) {
        wait.signal?.throwIfAborted();
        if (error instanceof VimFault) {
          if (error.type !== "NotAuthenticated" || renewed || this.#closing.signal.aborted) {
            throw translateFault(error, name, wait.about ?? moRefText(self));
          }
          renewed = true;
          this.#options.notice?.(`the session at ${this.http.host} has ended; logging in again`);
          await this.#renew(generation, deadline, wait);
          continue;
        }
        if (!this.#mayRepeat(name, error)) throw error;
        await this.#pause(error, attempt, deadline, wait);
      }
    }
  }

  /** Like {@link call}, for a method that returns exactly one reference. */
  async callForReference(
    name: VimMethodName,
    self: MoRef,
    args: VimArguments = {},
    wait: CallWait = {},
  ): Promise<MoRef> {
    return onlyReference(name, await this.call(name, self, args, wait));
  }

  /** Logs out and closes every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    clearInterval(this.#keepAlive);
    const soap = await this.#soap?.catch(() => undefined);
    await soap?.[Symbol.asyncDispose]();
    try {
      if (this.#session.credential !== undefined) {
        await this.#once("Logout", this.references.sessionManager, {}, { timeoutMs: logoutTimeoutMs });
      }
    } catch (error) {
      // The session ends by itself after its idle time; whoever watches may want to know that it lives on until then.
      if (!(error instanceof VimFault && error.type === "NotAuthenticated")) {
        this.#options.notice?.(`logging out of ${this.http.host} failed: ${(error as Error).message}`);
      }
    } finally {
      this.#session.end();
      await this.http[Symbol.asyncDispose]();
    }
  }

  async #once(name: VimMethodName, self: MoRef, args: VimArguments, wait: CallWait): Promise<VimElement[]> {
    const { path, headers, body } = this.#codec.encode(name, self, args, this.#session.credential);
    const answer = await this.http.request(path, { ...wait, headers, body, operation: name });
    const elements = decodeAnswer(this.#codec, name, answer, this.http.host);
    const ended = endedSession(elements);
    if (ended !== undefined) throw ended;
    this.#lastAnswer = Date.now();
    return elements;
  }

  async #login(wait: Wait): Promise<string> {
    const { credentials } = this.#options;
    const [name, args] =
      "cloneTicket" in credentials
        ? (["CloneSession", { cloneTicket: credentials.cloneTicket }] as const)
        : (["Login", { userName: credentials.userName, password: credentials.password }] as const);
    const manager = this.references.sessionManager;
    const { path, headers, body } = this.#codec.encode(name, manager, args, undefined);
    const answer = await this.http.request(path, { ...wait, headers, body, operation: name });
    try {
      const [session] = decodeAnswer(this.#codec, name, answer, this.http.host);
      this.#user = { key: session?.string("key") ?? "", userName: session?.string("userName") ?? "" };
    } catch (error) {
      if (!(error instanceof VimFault)) throw error;
      const who = "userName" in credentials ? credentials.userName : "the bearer of a ticket";
      throw translateFault(error, "login", `${who} at ${this.http.host}`);
    }
    const credential = this.#codec.credentialOf(answer);
    if (credential === undefined) {
      throw vsphereError("UNEXPECTED", `${this.http.host} accepted the login and gave no session`, { operation: name });
    }
    this.#lastAnswer = Date.now();
    return credential;
  }

  /** Logs in again, while the server may be starting. */
  async #renew(generation: number, deadline: number, wait: Wait): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await this.#session.renew(generation, wait);
        return;
      } catch (error) {
        wait.signal?.throwIfAborted();
        if (!isProviderError(error) || !error.retryable) throw error;
        await this.#pause(error, attempt, deadline, wait);
      }
    }
  }

  #mayRepeat(name: VimMethodName, error: unknown): boolean {
    if (this.#closing.signal.aborted || !isProviderError(error) || !error.retryable) return false;
    return vimMethod(name).repeatable === true || neverSent(error);
  }

  async #pause(error: unknown, attempt: number, deadline: number, wait: Wait): Promise<void> {
    const asked = isProviderError(error) ? error.retryAfterMs : undefined;
    const longest = Math.min(firstPauseMs * 2 ** Math.min(attempt, 10), longestPauseMs);
    const pauseMs = asked ?? longest * (0.5 + Math.random() / 2);
    if (Date.now() + pauseMs > deadline) throw error;
    if (attempt === 0) this.#options.notice?.(`${(error as Error).message}; trying again`);
    const either =
      wait.signal === undefined ? this.#closing.signal : AbortSignal.any([wait.signal, this.#closing.signal]);
    try {
      await sleep(pauseMs, undefined, { signal: either });
    } catch {
      wait.signal?.throwIfAborted();
      throw error;
    }
  }

  async #stayAlive(): Promise<void> {
    const { keepAliveMs = defaultKeepAliveMs } = this.#options;
    if (Date.now() - this.#lastAnswer < keepAliveMs / 2) return;
    try {
      await this.call("CurrentTime", moRef("ServiceInstance", "ServiceInstance"), {}, { signal: this.#closing.signal });
    } catch (error) {
      // The next call finds out by itself.
      if (!this.#closing.signal.aborted) {
        this.#options.notice?.(`keeping the session at ${this.http.host} alive failed: ${(error as Error).message}`);
      }
    }
  }

  async #openSoap(wait: Wait): Promise<VimClient> {
    const { credentials } = this.#options;
    const joined = "cloneTicket" in credentials ? { cloneTicket: await this.cloneTicket(wait) } : credentials;
    return VimClient.connect({ ...this.#options, credentials: joined, protocol: "soap" }, wait);
  }
}

/** Whose session it is. */
export interface SessionUser {
  /** The session's key, which privileges are asked by; a secret as good as the cookie. */
  readonly key: string;
  readonly userName: string;
}

/** The last argument of a call. */
export interface CallWait extends Wait {
  /** What the call is made on, for messages; default the reference. */
  about?: string | undefined;
  /** Milliseconds for this call; default the client's. */
  timeoutMs?: number;
  /** The call waits at the server for long. */
  waits?: boolean;
}

const logoutTimeoutMs = 5_000;

function codecOf(api: OfferedApi): VimCodec {
  return api.protocol === "vi-json" ? new ViJsonCodec(api.version) : new SoapCodec(api.version);
}

/**
 * What an answer returns.
 *
 * @throws VimFault; ProviderError for what is no answer of vim25, retryable where it looks cut short
 */
export function decodeAnswer(
  codec: VimCodec,
  name: VimMethodName,
  answer: Parameters<VimCodec["decode"]>[1],
  host: string,
): VimElement[] {
  // Faults come with 500; anything else but success is not vim25's own.
  if (answer.status !== 200 && answer.status !== 204 && answer.status !== 500) throw statusError(answer, name, host);
  try {
    return codec.decode(name, answer);
  } catch (error) {
    if (error instanceof VimFault) throw error;
    if (answer.status === 500) throw statusError(answer, name, host);
    const why = (error as Error).message.split("\n", 1)[0];
    throw vsphereError("UNAVAILABLE", `${name} at ${host}: the answer cannot be read, it may be cut short (${why})`, {
      operation: name,
      cause: error,
    });
  }
}

function readReferences(content: VimElement): ServiceReferences {
  const wanted = (name: string): MoRef => {
    const found = content.reference(name);
    if (found === undefined) throw vsphereError("UNSUPPORTED", `the server has no ${name}: it is no vSphere`);
    return found;
  };
  return {
    rootFolder: wanted("rootFolder"),
    propertyCollector: wanted("propertyCollector"),
    sessionManager: wanted("sessionManager"),
    viewManager: content.reference("viewManager"),
    searchIndex: content.reference("searchIndex"),
    authorizationManager: content.reference("authorizationManager"),
    perfManager: content.reference("perfManager"),
  };
}
