import type { Socket } from "node:net";
import {
  greetingMagic,
  handshakeFlag,
  infoType,
  maximumStringLength,
  option,
  optionHeaderLength,
  optionMagic,
  optionReply,
  optionReplyHeaderLength,
  optionReplyMagic,
} from "../protocol.ts";
import { Refusal, type ExportDirectory, type FoundExport, type NbdConnectionRequest } from "./exports.ts";
import { contextsOf, matchesQuery, type MetaContext } from "./meta-contexts.ts";
import type { Receiver } from "./receiver.ts";
import { clipUtf8, type ReplyStyle } from "./reply.ts";
import { transmissionFlagsOf, type Session } from "./session.ts";

/** The longest data of one option that is looked at, in bytes; longer data is thrown away and answered TOO_BIG. */
const longestOption = 64 * 1024;
/** The longest data of one option that is thrown away to keep in step; longer ends the connection. */
const longestDrained = 1024 * 1024;

/** What a handshake works with. */
export interface NegotiationParts {
  readonly socket: Socket;
  readonly receiver: Receiver;
  readonly exports: ExportDirectory;
  readonly client: Omit<NbdConnectionRequest, "exportName" | "epoch">;
  /** `required`: nothing but STARTTLS and ABORT is served. `done`: this is the inside of TLS. */
  readonly tls: "off" | "required" | "done";
  readonly maximumPayload: number;
  /** Whether the server is being closed. */
  readonly closing: () => boolean;
}

/** What a handshake ends with. */
export type NegotiationResult =
  | { readonly kind: "session"; readonly session: Session }
  | { readonly kind: "tls" }
  | { readonly kind: "end"; readonly reason: string | undefined };

/** Greets a client and reads its flags. @throws Error when its flags are none we know. */
export async function greet(socket: Socket, receiver: Receiver): Promise<{ noZeroes: boolean }> {
  const greeting = Buffer.allocUnsafe(18);
  for (const [index, half] of [...greetingMagic, ...optionMagic].entries()) greeting.writeUInt32BE(half, index * 4);
  greeting.writeUInt16BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes, 16);
  socket.write(greeting);
  const answer = Buffer.allocUnsafe(4);
  await receiver.fill(answer, true);
  const flags = answer.readUInt32BE(0);
  if ((flags & ~(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes)) !== 0) {
    throw new Error(`the client answered the greeting with unknown flags 0x${flags.toString(16)}`);
  }
  return { noZeroes: (flags & handshakeFlag.noZeroes) !== 0 };
}

/** Haggles options with one client until it enters transmission, asks for TLS or ends. @throws ConnectionEnded */
export class Negotiation {
  readonly #parts: NegotiationParts;
  readonly #noZeroes: boolean;
  #style: ReplyStyle = "simple";
  #chosen: { exportName: string; contexts: MetaContext[] } | undefined;

  constructor(parts: NegotiationParts, noZeroes: boolean) {
    this.#parts = parts;
    this.#noZeroes = noZeroes;
  }

  async run(): Promise<NegotiationResult> {
    const { receiver, socket } = this.#parts;
    const header = Buffer.allocUnsafe(optionHeaderLength);
    for (;;) {
      // Answers that nobody reads must not pile up.
      if (socket.writableNeedDrain) await drained(socket);
      await receiver.fill(header, true);
      if (header.readUInt32BE(0) !== optionMagic[0] || header.readUInt32BE(4) !== optionMagic[1]) {
        return end("the client sent something that is no option");
      }
      const kind = header.readUInt32BE(8);
      const length = header.readUInt32BE(12);
      if (length > longestDrained) return end(`the client sent an option of ${length} bytes`);
      if (length > longestOption) {
        await receiver.skip(length);
        if (kind === option.exportName) return end("the client asked for an export with an endless name");
        this.#reply(kind, optionReply.tooBig, text(`the data of an option is at most ${longestOption} bytes`));
        continue;
      }
      const data = Buffer.allocUnsafe(length);
      await receiver.fill(data);
      const result = await this.#answer(kind, data);
      if (result !== undefined) return result;
    }
  }

  async #answer(kind: number, data: Buffer): Promise<NegotiationResult | undefined> {
    if (kind === option.abort) {
      this.#reply(kind, optionReply.acknowledge);
      return end(undefined);
    }
    if (kind === option.startTls) return this.#startTls(data);
    if (this.#parts.tls === "required") {
      if (kind === option.exportName) return end("the client asked for an export without TLS");
      this.#reply(kind, optionReply.tlsRequired, text("this server speaks TLS only: use STARTTLS (nbds://)"));
      return undefined;
    }
    if (this.#parts.closing()) {
      if (kind === option.exportName) return end("the server is being closed");
      this.#reply(kind, optionReply.shutdown, text("the server is being closed"));
      return undefined;
    }
    switch (kind) {
      case option.exportName:
        return this.#enterByName(data);
      case option.list:
        return this.#list(data);
      case option.info:
      case option.go:
        return this.#inform(kind, data);
      case option.structuredReply:
        return this.#chooseStyle(kind, data, "structured");
      case option.extendedHeaders:
        return this.#chooseStyle(kind, data, "extended");
      case option.listMetaContext:
      case option.setMetaContext:
        return this.#contexts(kind, data);
      default:
        this.#reply(kind, optionReply.unsupported, text(`option ${kind} is not known here`));
        return undefined;
    }
  }

  #startTls(data: Buffer): NegotiationResult | undefined {
    const { tls, receiver } = this.#parts;
    if (tls === "off") {
      this.#reply(option.startTls, optionReply.policy, text("this server does not speak TLS"));
    } else if (tls === "done" || data.length > 0) {
      const why = tls === "done" ? "TLS is on already" : "STARTTLS has no data";
      this.#reply(option.startTls, optionReply.invalid, text(why));
    } else if (receiver.buffered > 0) {
      // Bytes sent in the clear before the answer would be taken for the first ones inside TLS (command injection).
      return end("the client sent more in the clear after STARTTLS");
    } else {
      this.#reply(option.startTls, optionReply.acknowledge);
      return { kind: "tls" };
    }
    return undefined;
  }

  #chooseStyle(kind: number, data: Buffer, style: "structured" | "extended"): undefined {
    if (data.length > 0) {
      this.#reply(kind, optionReply.invalid, text("this option has no data"));
    } else if (style === "structured" && this.#style === "extended") {
      this.#reply(kind, optionReply.extendedHeadersRequired, text("extended headers were agreed on already"));
    } else {
      this.#style = style;
      this.#reply(kind, optionReply.acknowledge);
    }
    return undefined;
  }

  async #list(data: Buffer): Promise<undefined> {
    if (data.length > 0) {
      this.#reply(option.list, optionReply.invalid, text("LIST has no data"));
      return undefined;
    }
    for (const { name, description } of await this.#parts.exports.list(this.#parts.client)) {
      const bytes = Buffer.from(name, "utf8");
      const about = clipUtf8(description ?? "", maximumStringLength);
      this.#reply(option.list, optionReply.server, Buffer.concat([uint32(bytes.length), bytes, about]));
    }
    this.#reply(option.list, optionReply.acknowledge);
    return undefined;
  }

  async #enterByName(data: Buffer): Promise<NegotiationResult> {
    if (this.#style === "extended") return end("the client used EXPORT_NAME after extended headers");
    if (data.length > maximumStringLength) return end("the client asked for an export with an endless name");
    let found: FoundExport;
    try {
      found = await this.#find(data.toString("utf8"));
    } catch (error) {
      if (error instanceof Refusal) return end(`refused without words (EXPORT_NAME): ${error.message}`);
      throw error;
    }
    if ((found.entry.backend.blockSize ?? 1) > 512) {
      return end("the client used EXPORT_NAME where block sizes must be agreed on");
    }
    const answer = Buffer.alloc(this.#noZeroes ? 10 : 134);
    putUint64(answer, 0, found.entry.backend.size);
    answer.writeUInt16BE(transmissionFlagsOf(found.entry, this.#style, false), 8);
    this.#parts.socket.write(answer);
    return this.#enter(found, data.toString("utf8"));
  }

  async #inform(kind: number, data: Buffer): Promise<NegotiationResult | undefined> {
    const asked = parseInfo(data);
    if (asked === undefined) {
      this.#reply(kind, optionReply.invalid, text("the data of this option cannot be understood"));
      return undefined;
    }
    const found = await this.#findOrRefuse(kind, asked.name);
    if (found === undefined) return undefined;
    this.#replyInfo(kind, found, asked);
    const blockSize = found.entry.backend.blockSize ?? 1;
    // A client that does not ask keeps to 512 by itself: only more than that has to be agreed on.
    if (kind === option.go && blockSize > 512 && !asked.items.has(infoType.blockSize)) {
      this.#reply(kind, optionReply.blockSizeRequired, text(`this export has blocks of ${blockSize} bytes`));
      return undefined;
    }
    this.#reply(kind, optionReply.acknowledge);
    return kind === option.go ? this.#enter(found, asked.name) : undefined;
  }

  #replyInfo(kind: number, found: FoundExport, asked: InfoRequest): void {
    const { items } = asked;
    const { backend, description = backend.description } = found.entry;
    const about = Buffer.alloc(12);
    about.writeUInt16BE(infoType.export, 0);
    putUint64(about, 2, backend.size);
    about.writeUInt16BE(transmissionFlagsOf(found.entry, this.#style, this.#contextsFor(asked.name).length > 0), 10);
    this.#reply(kind, optionReply.info, about);
    if (items.has(infoType.name)) {
      this.#reply(kind, optionReply.info, Buffer.concat([uint16(infoType.name), text(found.name)]));
    }
    if (items.has(infoType.description) && description !== undefined) {
      const words = clipUtf8(description, maximumStringLength);
      this.#reply(kind, optionReply.info, Buffer.concat([uint16(infoType.description), words]));
    }
    const sizes = Buffer.alloc(14);
    const blockSize = backend.blockSize ?? 1;
    sizes.writeUInt16BE(infoType.blockSize, 0);
    sizes.writeUInt32BE(blockSize, 2);
    sizes.writeUInt32BE(Math.min(Math.max(blockSize, backend.preferredLength ?? 4096), this.#parts.maximumPayload), 6);
    sizes.writeUInt32BE(this.#parts.maximumPayload, 10);
    this.#reply(kind, optionReply.info, sizes);
  }

  async #contexts(kind: number, data: Buffer): Promise<undefined> {
    const selecting = kind === option.setMetaContext;
    if (selecting) this.#chosen = undefined;
    if (this.#style === "simple") {
      this.#reply(kind, optionReply.invalid, text("meta contexts need structured replies"));
      return undefined;
    }
    const asked = parseQueries(data);
    if (asked === undefined) {
      this.#reply(kind, optionReply.invalid, text("the data of this option cannot be understood"));
      return undefined;
    }
    const found = await this.#findOrRefuse(kind, asked.name);
    if (found === undefined) return undefined;
    const all = contextsOf(found.entry);
    const matching = all.filter(({ name }) =>
      selecting ? asked.queries.includes(name) : matchesAny(name, asked.queries),
    );
    for (const [id, { name }] of matching.entries()) {
      this.#reply(kind, optionReply.metaContext, Buffer.concat([uint32(selecting ? id : 0), text(name)]));
    }
    this.#reply(kind, optionReply.acknowledge);
    if (selecting) this.#chosen = { exportName: asked.name, contexts: matching };
    return undefined;
  }

  /** A choice counts for the very name it was made for. */
  #contextsFor(name: string): MetaContext[] {
    return this.#chosen?.exportName === name ? this.#chosen.contexts : [];
  }

  #enter(found: FoundExport, name: string): NegotiationResult {
    const contexts = this.#contextsFor(name);
    const session = { exportName: found.name, epoch: found.epoch, entry: found.entry, style: this.#style, contexts };
    return { kind: "session", session };
  }

  async #find(name: string): Promise<FoundExport> {
    return this.#parts.exports.find(name, this.#parts.client);
  }

  async #findOrRefuse(kind: number, name: string): Promise<FoundExport | undefined> {
    try {
      return await this.#find(name);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const reply = error.kind === "unknown" ? optionReply.unknown : optionReply.policy;
      this.#reply(kind, reply, clipUtf8(error.message, maximumStringLength));
      return undefined;
    }
  }

  #reply(kind: number, type: number, data: Buffer = Buffer.alloc(0)): void {
    const reply = Buffer.allocUnsafe(optionReplyHeaderLength + data.length);
    reply.writeUInt32BE(optionReplyMagic[0], 0);
    reply.writeUInt32BE(optionReplyMagic[1], 4);
    reply.writeUInt32BE(kind, 8);
    reply.writeUInt32BE(type, 12);
    reply.writeUInt32BE(data.length, 16);
    reply.set(data, optionReplyHeaderLength);
    this.#parts.socket.write(reply);
  }
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off("drain", done).off("close", done);
      resolve();
    };
    socket.on("drain", done).on("close", done);
  });
}

function end(reason: string | undefined): NegotiationResult {
  return { kind: "end", reason };
}

interface InfoRequest {
  readonly name: string;
  readonly items: ReadonlySet<number>;
}

function parseInfo(data: Buffer): InfoRequest | undefined {
  if (data.length < 6) return undefined;
  const nameLength = data.readUInt32BE(0);
  if (nameLength > maximumStringLength || nameLength > data.length - 6) return undefined;
  const count = data.readUInt16BE(4 + nameLength);
  if (data.length !== 6 + nameLength + 2 * count) return undefined;
  const items = new Set<number>();
  for (let index = 0; index < count; index++) items.add(data.readUInt16BE(6 + nameLength + 2 * index));
  return { name: data.toString("utf8", 4, 4 + nameLength), items };
}

function parseQueries(data: Buffer): { name: string; queries: string[] } | undefined {
  let at = 0;
  const word = (): string | undefined => {
    if (at + 4 > data.length) return undefined;
    const length = data.readUInt32BE(at);
    if (length > maximumStringLength || at + 4 + length > data.length) return undefined;
    const string = data.toString("utf8", at + 4, at + 4 + length);
    at += 4 + length;
    return string;
  };
  const name = word();
  if (name === undefined || at + 4 > data.length) return undefined;
  const count = data.readUInt32BE(at);
  at += 4;
  const queries: string[] = [];
  for (let index = 0; index < count; index++) {
    const query = word();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return at === data.length ? { name, queries } : undefined;
}

/** A listing without queries wants everything. */
function matchesAny(name: string, queries: readonly string[]): boolean {
  return queries.length === 0 || queries.some((query) => matchesQuery(name, query));
}

function text(words: string): Buffer {
  return Buffer.from(words, "utf8");
}

function uint16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16BE(value, 0);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}

function putUint64(into: Buffer, at: number, value: number): void {
  into.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  into.writeUInt32BE(value % 2 ** 32, at + 4);
}
