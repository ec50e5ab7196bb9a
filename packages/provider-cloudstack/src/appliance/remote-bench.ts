import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { join } from "node:path";
import { checkServerIdentity } from "node:tls";
import { isProviderError, ProviderError, type ProviderErrorCode, type Wait } from "@diskferry/core/provider";
import { connectNbd, defaultNbdPort, NbdServerError, type NbdClient } from "@diskferry/nbd";
import { cloudstackError } from "../errors.ts";
import type { Bench, OpenVolume } from "../target/bench.ts";
import { defaultControlPort, longestReply, type DeviceList, type OpenReply, type OpenRequest } from "./protocol.ts";

/** How an appliance on another machine is reached. */
export interface RemoteApplianceOptions {
  readonly host: string;
  /** NBD's; default 10809. */
  readonly port?: number | undefined;
  /** The control door's; default 10810. */
  readonly controlPort?: number | undefined;
  /** A folder with ca-cert.pem, client-cert.pem and client-key.pem. */
  readonly certificates: string;
  /** The name in the appliance's certificate; default: `host`. */
  readonly serverName?: string | undefined;
  /** Milliseconds until a volume has to be open, the wait for its device included. Default 120 000. */
  readonly openTimeoutMs?: number | undefined;
  /** Milliseconds that the appliance may take for one read or write. Default 120 000. */
  readonly requestTimeoutMs?: number | undefined;
  /** For what did not stop anything: a volume that could not be given back. */
  notice?(message: string): void;
}

/** The bench of another machine, and what its devices are. */
export interface RemoteBench extends Bench {
  /** The volumes that the machine shows, after its buses were asked to look again where `rescan` is given. */
  devices(options?: { rescan?: boolean } & Wait): Promise<DeviceList>;
}

const CONCURRENCY = 8;
const PREFERRED = 1024 * 1024;

interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Opens volumes on the machine that runs `diskferry appliance`, over TLS with certificates on both sides. */
export function remoteBench(options: RemoteApplianceOptions): RemoteBench {
  const door = new ControlClient(options);
  return {
    async open(volume, purpose, wait) {
      const asked: OpenRequest =
        purpose.mode === "read"
          ? { size: volume.size, mode: "read" }
          : { size: volume.size, mode: "write", epoch: purpose.epoch };
      const reply = await door.call<OpenReply>("POST", `/v1/volumes/${volume.id}/open`, asked, wait);
      const { ca, cert, key } = await door.certificates();
      const client = await connectNbd(
        { host: options.host, port: options.port ?? defaultNbdPort, exportName: reply.export },
        {
          tls: { ca, cert, key, serverName: options.serverName },
          signal: wait.signal,
          requestTimeoutMs: options.requestTimeoutMs,
        },
      );
      const open = new RemoteVolume(client, volume, async () => {
        try {
          await door.call("POST", `/v1/volumes/${volume.id}/close`, { export: reply.export }, {});
        } catch (error) {
          options.notice?.(`The appliance keeps volume ${volume.id} open until it is opened anew: ${String(error)}`);
        }
      });
      try {
        open.check(purpose.mode);
        return open;
      } catch (error) {
        await open.close();
        throw error;
      }
    },
    devices: ({ rescan = false, ...wait } = {}) =>
      door.call<DeviceList>(rescan ? "POST" : "GET", rescan ? "/v1/rescan" : "/v1/devices", undefined, wait),
    close: async () => door.close(),
  };
}

/** A volume behind one NBD session; it never reconnects, since a later session's flush says nothing of this one's writes. */
class RemoteVolume implements OpenVolume {
  readonly size: number;
  readonly blockSize: number;
  readonly concurrency: number = CONCURRENCY;
  readonly preferredLength: number = PREFERRED;
  readonly #client: NbdClient;
  readonly #volume: { readonly id: string; readonly size: number };
  readonly #giveBack: () => Promise<void>;
  readonly #underWay = new Set<Promise<void>>();
  #shut: (() => Error) | undefined;
  #closing: Promise<void> | undefined;

  constructor(client: NbdClient, volume: { id: string; size: number }, giveBack: () => Promise<void>) {
    this.#client = client;
    this.#volume = volume;
    this.#giveBack = giveBack;
    this.size = client.size;
    this.blockSize = Math.max(512, client.minimumBlock);
  }

  /** @throws ProviderError for an export that is not what was asked for */
  check(mode: "read" | "write"): void {
    if (this.#client.size !== this.#volume.size) {
      throw cloudstackError(
        "CONFIG_INVALID",
        `The appliance serves ${this.#client.size} bytes for volume ${this.#volume.id} of ${this.#volume.size}. Nothing was written.`,
      );
    }
    if (mode === "write" && (this.#client.readOnly || !this.#client.flags.canFlush)) {
      throw cloudstackError(
        "UNSUPPORTED",
        `The appliance serves volume ${this.#volume.id} read-only or without flush: is it \`diskferry appliance\`?`,
      );
    }
  }

  read(offset: number, into: Uint8Array, { signal }: Wait = {}): Promise<void> {
    return this.#guarded(() => this.#client.read(offset, into, { signal }));
  }

  write(offset: number, data: Uint8Array, { signal }: Wait = {}): Promise<void> {
    return this.#guarded(() => this.#client.write(offset, data, { signal }));
  }

  zero(offset: number, length: number, { signal }: Wait = {}): Promise<void> {
    return this.#guarded(() => this.#client.zero(offset, length, { signal }));
  }

  flush({ signal }: Wait = {}): Promise<void> {
    return this.#guarded(() => this.#client.flush({ signal }));
  }

  async shut(reason: () => Error): Promise<void> {
    this.#shut ??= reason;
    await Promise.all([...this.#underWay].map((work) => work.catch(() => undefined)));
  }

  async close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.shut(
        () => new TypeError(`volume ${this.#volume.id} was used after it had been closed: open it again`),
      );
      await this.#client.close();
      await this.#giveBack();
    })();
    await this.#closing;
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    if (this.#shut !== undefined) throw this.#shut();
    const running = work();
    this.#underWay.add(running);
    try {
      await running;
    } catch (error) {
      if (!endsSession(error)) throw error;
      const lost = this.#lost(error);
      // Everything after it fails the same way: what was written since the last flush is in doubt.
      this.#shut ??= () => lost;
      throw lost;
    } finally {
      this.#underWay.delete(running);
    }
  }

  #lost(cause: unknown): Error {
    return cloudstackError(
      "UNAVAILABLE",
      `The appliance's session of volume ${this.#volume.id} is over: ${cause instanceof Error ? cause.message : String(cause)}. ` +
        `The volume has to be opened anew.`,
      { operation: "nbd", cause, retryable: false },
    );
  }
}

/** An error answered to one request leaves the session whole; everything else ends it. */
function endsSession(error: unknown): boolean {
  if (!isProviderError(error) || error.code !== "UNAVAILABLE") return false;
  return !(error.cause instanceof NbdServerError) || error.cause.code === "ESHUTDOWN";
}

/** Speaks to the control door. */
class ControlClient {
  readonly #options: RemoteApplianceOptions;
  #certificates: Promise<Certificates> | undefined;
  #agent: Agent | undefined;

  constructor(options: RemoteApplianceOptions) {
    this.#options = options;
  }

  certificates(): Promise<Certificates> {
    this.#certificates ??= readCertificates(this.#options.certificates);
    return this.#certificates;
  }

  /** @throws ProviderError as the appliance says; AUTH for TLS, UNAVAILABLE when it is not reached */
  async call<T>(method: "GET" | "POST", path: string, body: object | undefined, { signal }: Wait): Promise<T> {
    const { host, serverName = host, controlPort = defaultControlPort, openTimeoutMs = 120_000 } = this.#options;
    this.#agent ??= new Agent({ ...(await this.certificates()), keepAlive: true, minVersion: "TLSv1.2" });
    const agent = this.#agent;
    const { status, text } = await new Promise<{ status: number; text: string }>((resolve, reject) => {
      const limit = AbortSignal.timeout(openTimeoutMs);
      const call = request(
        {
          agent,
          host,
          port: controlPort,
          method,
          path,
          checkServerIdentity: (_host: string, certificate) => checkServerIdentity(serverName, certificate),
          headers: body === undefined ? {} : { "content-type": "application/json" },
          signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
        },
        (answer) => {
          const parts: Buffer[] = [];
          let length = 0;
          answer.on("data", (part: Buffer) => {
            length += part.length;
            if (length > longestReply) answer.destroy(new Error("the answer is too long"));
            else parts.push(part);
          });
          answer.once("error", reject);
          answer.once("end", () =>
            resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }),
          );
        },
      );
      call.once("error", reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    }).catch((error: unknown) => {
      signal?.throwIfAborted();
      throw unreached(`${host}:${controlPort}`, error);
    });
    return read<T>(status, text, `${host}:${controlPort}`);
  }

  close(): void {
    this.#agent?.destroy();
  }
}

async function readCertificates(folder: string): Promise<Certificates> {
  const read = async (name: string): Promise<string> => {
    try {
      return await readFile(join(folder, name), "utf8");
    } catch (error) {
      throw cloudstackError(
        "CONFIG_INVALID",
        `${join(folder, name)} cannot be read: the appliance wants a certificate.`,
        {
          cause: error,
        },
      );
    }
  };
  const [ca, cert, key] = [await read("ca-cert.pem"), await read("client-cert.pem"), await read("client-key.pem")];
  return { ca, cert, key };
}

/** Codes of TLS that no second attempt mends. */
const tlsCodes = /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|EPROTO)/;

function unreached(where: string, cause: unknown): Error {
  const { code = "", message } = cause as NodeJS.ErrnoException;
  if (tlsCodes.test(code)) {
    return cloudstackError(
      "AUTH",
      `The appliance at ${where} and this machine do not trust each other (${code}): both certificates have to be of the ` +
        `authority in ca-cert.pem, and the appliance's has to name it.`,
      { operation: "appliance", cause },
    );
  }
  return cloudstackError("UNAVAILABLE", `The appliance at ${where} does not answer (${code || message}).`, {
    operation: "appliance",
    cause,
  });
}

const codes: ReadonlySet<string> = new Set<ProviderErrorCode>([
  "CONFIG_INVALID",
  "AUTH",
  "DENIED",
  "NOT_FOUND",
  "EXISTS",
  "IN_USE",
  "UNSUPPORTED",
  "FENCED",
  "THROTTLED",
  "UNAVAILABLE",
  "UNEXPECTED",
]);

function read<T>(status: number, text: string, where: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw cloudstackError("UNEXPECTED", `${where} answered ${status} and no JSON: is it \`diskferry appliance\`?`, {
      cause: error,
    });
  }
  if (status === 200) return value as T;
  const { code, message, retryable } = (value as { error?: Record<string, unknown> }).error ?? {};
  if (typeof code !== "string" || !codes.has(code) || typeof message !== "string")
    throw cloudstackError("UNEXPECTED", `${where} answered ${status} without saying why.`);
  throw new ProviderError(code as ProviderErrorCode, message, {
    provider: "cloudstack",
    operation: "appliance",
    retryable: retryable === true,
  });
}
