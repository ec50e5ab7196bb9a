import type { PeerCertificate } from "node:tls";
import { ProviderError, isProviderError } from "@diskferry/core/provider";
import { checkExport, type NbdExport } from "./backend.ts";

/** Finds the export of a name; undefined: there is none. Called once per handshake that asks for the name. */
export type FindNbdExport = (name: string) => NbdExport | undefined | Promise<NbdExport | undefined>;

/** Exports by name. The name that a client gets when it gives none is "". */
export type NbdExports = Readonly<Record<string, NbdExport>> | ReadonlyMap<string, NbdExport> | FindNbdExport;

/** Who wants to open an export. */
export interface NbdConnectionRequest {
  /** Without the epoch. */
  readonly exportName: string;
  /** Stated as the end of the name (`disk@7`), where the server has `epochs`. */
  readonly epoch?: number;
  /** What the client showed in the TLS handshake, verified; absent without client certificates. */
  readonly peerCertificate?: PeerCertificate;
  /** The PSK identity the client proved to hold the key of. */
  readonly pskIdentity?: string;
  /** Absent on a unix socket. */
  readonly remoteAddress?: string;
}

/** Throws, or rejects, to refuse. The message of a ProviderError is shown to the client, of any other error not. */
export type NbdAuthorize = (request: NbdConnectionRequest) => void | Promise<void>;

/** A refusal in the handshake: the reason is sent to the client. */
export class Refusal extends Error {
  readonly kind: "unknown" | "policy";

  constructor(kind: "unknown" | "policy", message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "Refusal";
    this.kind = kind;
  }
}

/** An export that a client may open. */
export interface FoundExport {
  /** Without the epoch. */
  readonly name: string;
  readonly epoch: number | undefined;
  readonly entry: NbdExport;
}

/** Knows the exports of a server, who may open them, and which epochs are over. */
export class ExportDirectory {
  readonly #exports: NbdExports;
  readonly #authorize: NbdAuthorize | undefined;
  readonly #usesEpochs: boolean;
  readonly #fences: Map<string, number>;

  constructor(options: { exports: NbdExports; authorize?: NbdAuthorize | undefined; epochs?: NbdEpochs | undefined }) {
    this.#exports = options.exports;
    this.#authorize = options.authorize;
    this.#usesEpochs = options.epochs !== undefined && options.epochs !== false;
    this.#fences = new Map(typeof options.epochs === "object" ? options.epochs.oldest : []);
    for (const [name, entry] of this.#entries()) checkExport(name, entry);
  }

  /** The export of a name as a client sent it. @throws Refusal */
  async find(name: string, client: Omit<NbdConnectionRequest, "exportName" | "epoch">): Promise<FoundExport> {
    const { base, epoch } = this.#usesEpochs ? splitEpoch(name) : { base: name, epoch: undefined };
    await this.#checkAllowed(base, epoch, client);
    const entry = await this.#lookUp(base);
    if (entry === undefined) throw new Refusal("unknown", `there is no export named ${JSON.stringify(base)}`);
    this.checkEpoch(base, epoch);
    return { name: base, epoch, entry };
  }

  /** @throws Refusal when the epoch is over, or none was stated and one is demanded. */
  checkEpoch(name: string, epoch: number | undefined): void {
    const oldest = this.#fences.get(name);
    if (oldest === undefined || (epoch !== undefined && epoch >= oldest)) return;
    const stated = epoch === undefined ? "states no epoch" : `states epoch ${epoch}`;
    throw new Refusal("policy", `export ${JSON.stringify(name)} is fenced at epoch ${oldest}, this client ${stated}`);
  }

  /** The names that a client may see, with their descriptions. Those of a function are not listed. */
  async list(
    client: Omit<NbdConnectionRequest, "exportName" | "epoch">,
  ): Promise<{ name: string; description: string | undefined }[]> {
    const seen: { name: string; description: string | undefined }[] = [];
    for (const [name, entry] of this.#entries()) {
      try {
        await this.#checkAllowed(name, undefined, client);
      } catch (error) {
        if (error instanceof Refusal) continue;
        throw error;
      }
      seen.push({ name, description: entry.description ?? entry.backend.description });
    }
    return seen;
  }

  /** Ends all epochs before this one. @throws TypeError RangeError; ProviderError FENCED when a newer one has begun. */
  raise(name: string, epoch: number): void {
    if (!this.#usesEpochs) {
      throw new TypeError("serveNbd was not given `epochs`, so its clients state none and cannot be fenced");
    }
    if (!Number.isSafeInteger(epoch) || epoch < 0) throw new RangeError(`an epoch is a whole number, not ${epoch}`);
    const oldest = this.#fences.get(name) ?? 0;
    if (epoch < oldest) {
      throw new ProviderError("FENCED", `NBD export ${JSON.stringify(name)}: epoch ${epoch} is over, ${oldest} began`, {
        operation: "nbd fence",
      });
    }
    this.#fences.set(name, epoch);
  }

  async #checkAllowed(
    exportName: string,
    epoch: number | undefined,
    client: Omit<NbdConnectionRequest, "exportName" | "epoch">,
  ): Promise<void> {
    if (this.#authorize === undefined) return;
    try {
      await this.#authorize({ ...client, exportName, ...(epoch === undefined ? {} : { epoch }) });
    } catch (error) {
      const why = isProviderError(error) ? error.message : `you may not open ${JSON.stringify(exportName)}`;
      throw new Refusal("policy", why, error);
    }
  }

  async #lookUp(name: string): Promise<NbdExport | undefined> {
    const exports = this.#exports;
    if (typeof exports === "function") {
      const entry = await exports(name);
      if (entry !== undefined) checkExport(name, entry);
      return entry;
    }
    return new Map(this.#entries()).get(name);
  }

  #entries(): Iterable<[string, NbdExport]> {
    const exports = this.#exports;
    if (typeof exports === "function") return [];
    return isMap(exports) ? exports.entries() : Object.entries(exports);
  }
}

/**
 * Whether clients state epochs, as `name@7`. `true`: those that state none are let in until the export is fenced.
 * `oldest`: the epochs that are over already, for a server that was started again.
 */
export type NbdEpochs = boolean | { readonly oldest: ReadonlyMap<string, number> };

function isMap(exports: NbdExports): exports is ReadonlyMap<string, NbdExport> {
  return exports instanceof Map;
}

/** `disk@7` is epoch 7 of `disk`; a name without `@` and digits at its end states no epoch. */
function splitEpoch(name: string): { base: string; epoch: number | undefined } {
  const match = /^(.*)@(\d{1,15})$/su.exec(name);
  if (match?.[1] === undefined || match[2] === undefined) return { base: name, epoch: undefined };
  return { base: match[1], epoch: Number(match[2]) };
}
