import { ProviderError } from "@diskferry/core/provider";
import type { ProviderErrorCode } from "@diskferry/core/provider";
import {
  defaultMaximumPayload,
  greetingMagic,
  handshakeFlag,
  infoType,
  maximumStringLength,
  oldstyleMagic,
  option,
  optionHeaderLength,
  optionMagic,
  optionReply,
  optionReplyHeaderLength,
  optionReplyMagic,
  transmissionFlag,
} from "../protocol.ts";
import type { NbdTlsOptions } from "../tls.ts";
import { printable, unavailable } from "./errors.ts";
import { defaultBlockSize, Infos } from "./export-info.ts";
import type { HandshakeIntake } from "./handshake-intake.ts";
import type { Wire } from "./wire.ts";

/** How replies look once transmission began. */
export type ReplyStyle = "simple" | "structured" | "extended";

/** A metadata context that the server granted, and the number it goes by in replies. */
export interface GrantedContext {
  readonly name: string;
  readonly id: number;
}

/** What the handshake agreed on. */
export interface Agreement {
  readonly size: number;
  /** Bits of `transmissionFlag`. */
  readonly flags: number;
  readonly style: ReplyStyle;
  readonly contexts: readonly GrantedContext[];
  readonly minimumBlock: number;
  readonly preferredBlock: number;
  readonly maximumPayload: number;
  readonly description: string | undefined;
}

/** What a client wants of the handshake. */
export interface Wishes {
  readonly exportName: string;
  readonly contexts: readonly string[];
  /** The richest style to ask for. */
  readonly style: ReplyStyle;
}

/** An export that a server lists. */
export interface NbdListedExport {
  readonly name: string;
  /** For people; absent where the server gives none. */
  readonly description?: string;
}

/** An option reply is at most two strings and a few numbers; what claims to be longer is refused unread. */
const maximumOptionReply = 3 * maximumStringLength;
/** How many bytes of replies one option may bring, so that an endless list ends. */
const maximumListing = 16 * 1024 * 1024;
const operation = "nbd connect";

interface OptionReply {
  type: number;
  data: Buffer;
}

/** The client's side of a fixed newstyle handshake, step by step. */
export class Handshake {
  readonly #wire: Wire;
  readonly #intake: HandshakeIntake;
  #noZeroes = false;
  #fixed = true;

  constructor(wire: Wire, intake: HandshakeIntake) {
    this.#wire = wire;
    this.#intake = intake;
  }

  /** Reads the greeting, answers it, and turns to TLS where `tls` is given. */
  async begin(tls: NbdTlsOptions | undefined, host: string | undefined): Promise<void> {
    await this.#wire.opened();
    const greeting = await this.#next(18);
    const second = [greeting.readUInt32BE(8), greeting.readUInt32BE(12)] as const;
    if (!same([greeting.readUInt32BE(0), greeting.readUInt32BE(4)], greetingMagic)) {
      throw this.#refuse("UNSUPPORTED", "this is no NBD server; is the port right?");
    }
    if (same(second, oldstyleMagic)) {
      throw this.#refuse("UNSUPPORTED", "the server speaks the oldstyle protocol (before 2011); update it");
    }
    if (!same(second, optionMagic)) throw this.#refuse("UNSUPPORTED", "the server speaks no NBD that we know");
    const flags = greeting.readUInt16BE(16);
    this.#noZeroes = (flags & handshakeFlag.noZeroes) !== 0;
    this.#fixed = (flags & handshakeFlag.fixedNewstyle) !== 0;
    const answer = Buffer.alloc(4);
    answer.writeUInt32BE(flags & (handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes));
    this.#send(answer);
    if (tls === undefined) return;
    if (!this.#fixed) throw this.#refuse("UNSUPPORTED", "the server knows no TLS (it is newstyle, but not fixed)");
    const { type, data } = await this.#ask(option.startTls, Buffer.alloc(0));
    if (type === optionReply.shutdown) throw this.#optionError("UNAVAILABLE", "no TLS", type, data);
    if (type !== optionReply.acknowledge) {
      throw this.#refuse("CONFIG_INVALID", `the server does not offer TLS, which the address demands${textOf(data)}`);
    }
    await this.#wire.secure(tls, host);
  }

  /** Agrees on an export. From here on the wire is in transmission. */
  async go(wishes: Wishes): Promise<Agreement> {
    const name = nameBytes(wishes.exportName);
    if (!this.#fixed) return await this.#exportName(name, "simple", []);
    const style = await this.#style(wishes.style);
    const contexts = style === "simple" ? [] : await this.#contexts(name, wishes.contexts);
    const infos = [infoType.export, infoType.blockSize, infoType.description];
    const request = Buffer.alloc(4 + name.byteLength + 2 + 2 * infos.length);
    request.writeUInt32BE(name.byteLength);
    name.copy(request, 4);
    request.writeUInt16BE(infos.length, 4 + name.byteLength);
    infos.forEach((info, index) => request.writeUInt16BE(info, 6 + name.byteLength + 2 * index));
    const found = new Infos();
    for await (const { type, data } of this.#replies(option.go, request)) {
      if (type === optionReply.info) found.add(data, (why) => this.#refuse("UNEXPECTED", why));
      else if (type === optionReply.unsupported && style !== "extended") {
        return await this.#exportName(name, style, contexts);
      } else if (type !== optionReply.acknowledge) throw this.#exportError(wishes.exportName, type, data);
    }
    return this.#agreement(style, contexts, found);
  }

  /** What the server offers, by name. */
  async list(): Promise<NbdListedExport[]> {
    if (!this.#fixed) throw this.#refuse("UNSUPPORTED", "the server cannot list its exports");
    const exports: NbdListedExport[] = [];
    for await (const { type, data } of this.#replies(option.list, Buffer.alloc(0))) {
      if (type === optionReply.acknowledge) continue;
      if (type !== optionReply.server) {
        throw this.#optionError("DENIED", "the server does not list its exports", type, data);
      }
      const length = data.byteLength < 4 ? -1 : data.readUInt32BE(0);
      if (length < 0 || length > data.byteLength - 4) throw this.#refuse("UNEXPECTED", "a malformed list of exports");
      const description = data.subarray(4 + length).toString("utf8");
      const name = data.subarray(4, 4 + length).toString("utf8");
      exports.push(description === "" ? { name } : { name, description });
    }
    return exports;
  }

  /** Takes leave during the handshake; needs no answer. */
  abort(): void {
    if (this.#fixed && this.#wire.failure === undefined) this.#send(optionRequest(option.abort, Buffer.alloc(0)));
  }

  async #style(richest: ReplyStyle): Promise<ReplyStyle> {
    if (richest === "simple") return "simple";
    if (richest === "extended" && (await this.#accepts(option.extendedHeaders))) return "extended";
    return (await this.#accepts(option.structuredReply)) ? "structured" : "simple";
  }

  async #accepts(wanted: number): Promise<boolean> {
    const { type, data } = await this.#ask(wanted, Buffer.alloc(0));
    if (type === optionReply.acknowledge) return true;
    this.#refuseFatal(type, data);
    return false;
  }

  async #contexts(exportName: Buffer, wanted: readonly string[]): Promise<GrantedContext[]> {
    const names = new Set<string>();
    for (const each of wanted) {
      const found = each.endsWith("*") ? await this.#matching(exportName, each.slice(0, -1)) : [each];
      for (const name of found) names.add(name);
    }
    if (names.size === 0) return [];
    const granted: GrantedContext[] = [];
    for await (const { type, data } of this.#replies(option.setMetaContext, contextRequest(exportName, [...names]))) {
      if (type === optionReply.metaContext) {
        const context = this.#contextOf(data);
        if (granted.some(({ id, name }) => id === context.id || name === context.name)) {
          throw this.#refuse("UNEXPECTED", "the server granted a metadata context twice");
        }
        // A context that nobody asked for would only make replies longer; its replies are still told apart by id.
        granted.push(context);
        if (granted.length > names.size) throw this.#refuse("UNEXPECTED", "the server granted unasked contexts");
      } else if (type !== optionReply.acknowledge) {
        this.#refuseFatal(type, data);
        return [];
      }
    }
    return granted;
  }

  async #matching(exportName: Buffer, prefix: string): Promise<string[]> {
    const names: string[] = [];
    for await (const { type, data } of this.#replies(option.listMetaContext, contextRequest(exportName, [prefix]))) {
      if (type === optionReply.metaContext) {
        const { name } = this.#contextOf(data);
        if (name.startsWith(prefix) && name !== prefix) names.push(name);
        if (names.length > 1024) throw this.#refuse("UNEXPECTED", "the server lists more than 1024 contexts");
      } else if (type !== optionReply.acknowledge) this.#refuseFatal(type, data);
    }
    return names;
  }

  #contextOf(data: Buffer): GrantedContext {
    if (data.byteLength < 5) throw this.#refuse("UNEXPECTED", "a malformed metadata context");
    return { id: data.readUInt32BE(0), name: data.subarray(4).toString("utf8") };
  }

  /** The way of old servers: the answer is bare, and a wrong name is answered by closing the connection. */
  async #exportName(name: Buffer, style: ReplyStyle, contexts: readonly GrantedContext[]): Promise<Agreement> {
    this.#send(optionRequest(option.exportName, name));
    let answer: Buffer;
    try {
      answer = await this.#next(this.#noZeroes ? 10 : 134);
    } catch (error) {
      if (this.#wire.failure?.lost !== true) throw error;
      throw new ProviderError("NOT_FOUND", `${this.#wire.subject}: the server has no such export, or denies it`, {
        operation,
        cause: error,
      });
    }
    const found = new Infos();
    found.addExport(answer.subarray(0, 10), (why) => this.#refuse("UNEXPECTED", why));
    return this.#agreement(style, contexts, found);
  }

  #agreement(style: ReplyStyle, contexts: readonly GrantedContext[], found: Infos): Agreement {
    if (found.export === undefined) throw this.#refuse("UNEXPECTED", "the server did not tell the size of the export");
    const { size, flags } = found.export;
    const { minimum, preferred, maximum } = found.blockSize ?? defaultBlockSize;
    // More than 32 MiB at once is taken for an attack by many peers, and gains nothing.
    const payload = Math.min(maximum, defaultMaximumPayload);
    const unit = payload >= preferred ? preferred : minimum;
    return {
      size,
      flags: (flags & transmissionFlag.hasFlags) === 0 ? 0 : flags,
      style,
      contexts,
      minimumBlock: minimum,
      preferredBlock: preferred,
      maximumPayload: payload - (payload % unit),
      description: found.description,
    };
  }

  /** Asks for an option that has one answer. */
  async #ask(wanted: number, data: Buffer): Promise<OptionReply> {
    this.#send(optionRequest(wanted, data));
    return await this.#reply(wanted);
  }

  /** Asks for an option that has many answers; the last one, an acknowledgement or an error, is given out too. */
  async *#replies(wanted: number, data: Buffer): AsyncGenerator<OptionReply, void, undefined> {
    this.#send(optionRequest(wanted, data));
    let bytes = 0;
    for (;;) {
      const reply = await this.#reply(wanted);
      yield reply;
      if (reply.type === optionReply.acknowledge || reply.type >= 0x8000_0000) return;
      bytes += optionReplyHeaderLength + reply.data.byteLength;
      if (bytes > maximumListing) throw this.#refuse("UNEXPECTED", "the server's answer to an option has no end");
    }
  }

  async #reply(wanted: number): Promise<OptionReply> {
    const header = await this.#next(optionReplyHeaderLength);
    if (!same([header.readUInt32BE(0), header.readUInt32BE(4)], optionReplyMagic)) {
      throw this.#refuse("UNEXPECTED", "the server's answer to an option is garbage");
    }
    if (header.readUInt32BE(8) !== wanted) throw this.#refuse("UNEXPECTED", "the server answered another option");
    const length = header.readUInt32BE(16);
    if (length > maximumOptionReply) throw this.#refuse("UNEXPECTED", `an option reply claims ${length} bytes`);
    return { type: header.readUInt32BE(12), data: await this.#next(length) };
  }

  #next(count: number): Promise<Buffer> {
    return this.#intake.next(this.#wire, count);
  }

  #send(bytes: Uint8Array): void {
    this.#wire.send(bytes, undefined, () => undefined);
  }

  /** An option may be refused and we go on without it, but not for these reasons, which hold for all that follows. */
  #refuseFatal(type: number, data: Buffer): void {
    if (type < 0x8000_0000) throw this.#refuse("UNEXPECTED", "the server's answer to an option makes no sense");
    if (type === optionReply.tlsRequired || type === optionReply.shutdown) {
      throw this.#optionError("UNEXPECTED", "the server refused an option", type, data);
    }
  }

  #exportError(name: string, type: number, data: Buffer): ProviderError {
    if (type === optionReply.unknown) {
      const shown = printable(Buffer.from(name));
      return this.#refuse("NOT_FOUND", `the server has no export "${shown}"${textOf(data)}; list its exports`);
    }
    if (type < 0x8000_0000) return this.#refuse("UNEXPECTED", "the server's answer to an option makes no sense");
    return this.#optionError("UNEXPECTED", "the server refused the export", type, data);
  }

  #optionError(code: ProviderErrorCode, message: string, type: number, data: Buffer): ProviderError {
    const text = textOf(data);
    if (type === optionReply.tlsRequired) {
      return this.#refuse("CONFIG_INVALID", `the server demands TLS${text}; use nbds:// or give TLS options`);
    }
    if (type === optionReply.shutdown) {
      return unavailable(`${this.#wire.subject}: the server is shutting down`, operation);
    }
    if (type === optionReply.policy) return this.#refuse("DENIED", `${message}: its policy forbids it${text}`);
    const hexadecimal = type.toString(16);
    return this.#refuse(code, `${message} (option error 0x${hexadecimal})${text}`);
  }

  #refuse(code: ProviderErrorCode, why: string): ProviderError {
    return new ProviderError(code, `${this.#wire.subject}: ${why}`, { operation });
  }
}

function same(left: readonly [number, number], right: readonly [number, number]): boolean {
  return left[0] === right[0] && left[1] === right[1];
}

function optionRequest(wanted: number, data: Uint8Array): Buffer {
  const request = Buffer.alloc(optionHeaderLength + data.byteLength);
  request.writeUInt32BE(optionMagic[0], 0);
  request.writeUInt32BE(optionMagic[1], 4);
  request.writeUInt32BE(wanted, 8);
  request.writeUInt32BE(data.byteLength, 12);
  request.set(data, optionHeaderLength);
  return request;
}

function contextRequest(exportName: Buffer, queries: readonly string[]): Buffer {
  const parts: Buffer[] = [lengthOf(exportName.byteLength), exportName, lengthOf(queries.length)];
  for (const query of queries) {
    const bytes = nameBytes(query);
    parts.push(lengthOf(bytes.byteLength), bytes);
  }
  return Buffer.concat(parts);
}

function lengthOf(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function nameBytes(name: string): Buffer {
  const bytes = Buffer.from(name, "utf8");
  if (bytes.byteLength > maximumStringLength || name.includes("\0")) {
    throw new ProviderError("CONFIG_INVALID", "a name of an export or context has at most 4096 bytes and no NUL", {
      operation,
    });
  }
  return bytes;
}

function textOf(data: Uint8Array): string {
  const text = printable(data);
  return text === "" ? "" : ` (${text})`;
}
