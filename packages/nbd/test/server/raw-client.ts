import { connect, type Socket } from "node:net";
import { once } from "node:events";
import {
  extendedRequestMagic,
  optionMagic,
  option,
  requestMagic,
  commandFlag,
  command,
  optionReply,
} from "../../src/protocol.ts";
import type { NbdServerAddress } from "../../src/server/listen.ts";

/** One answer to an option. */
export interface OptionAnswer {
  option: number;
  type: number;
  data: Buffer;
}

/** One reply of the transmission, of any style. */
export interface Reply {
  style: "simple" | "structured" | "extended";
  cookie: bigint;
  /** Simple: the error. Else: the type. */
  kind: number;
  done: boolean;
  payload: Buffer;
  offset?: bigint;
}

/** A client that says exactly what a test wants, right or wrong, and hears everything. */
export class RawClient {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake: (() => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    const wake = (): void => {
      for (const each of this.#wake.splice(0)) each();
    };
    socket.on("data", (piece) => {
      this.#received = Buffer.concat([this.#received, piece]);
      wake();
    });
    for (const event of ["end", "close", "error"]) {
      socket.on(event, () => {
        this.#ended = true;
        wake();
      });
    }
  }

  static async connect(address: NbdServerAddress): Promise<RawClient> {
    const socket = connect("path" in address ? { path: address.path } : { host: address.host, port: address.port });
    await once(socket, "connect");
    return new RawClient(socket);
  }

  /** Connects and takes the greeting. */
  static async greeted(address: NbdServerAddress, flags = 3): Promise<RawClient> {
    const client = await RawClient.connect(address);
    await client.read(18);
    client.send(uint32(flags));
    return client;
  }

  /** Connects and enters transmission by GO. */
  static async transmitting(
    address: NbdServerAddress,
    options: { name?: string; structured?: boolean; extended?: boolean; contexts?: string[] } = {},
  ): Promise<RawClient> {
    const client = await RawClient.greeted(address);
    const name = options.name ?? "";
    if (options.structured === true || options.contexts !== undefined) {
      await client.ask(option.structuredReply);
    }
    if (options.extended === true) await client.ask(option.extendedHeaders);
    if (options.contexts !== undefined) {
      await client.askAll(option.setMetaContext, queries(name, options.contexts));
    }
    const answers = await client.askAll(option.go, infoRequest(name, [3]));
    const last = answers.at(-1);
    if (last?.type !== optionReply.acknowledge)
      throw new Error(`GO was refused: ${last?.type} ${last?.data.toString()}`);
    return client;
  }

  get ended(): boolean {
    return this.#ended;
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  async read(length: number): Promise<Buffer> {
    while (this.#received.length < length) {
      if (this.#ended) throw new Error(`ended after ${this.#received.length} of ${length} bytes`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    const bytes = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return bytes;
  }

  /** Resolves when the server closed the connection. */
  async closed(): Promise<void> {
    while (!this.#ended) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  sendOption(kind: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(Buffer.concat([...optionMagic.map(uint32), uint32(kind), uint32(data.length), data]));
  }

  async answer(): Promise<OptionAnswer> {
    const header = await this.read(20);
    if (header.readBigUInt64BE(0) !== 0x0003e889045565a9n) throw new Error("no option reply");
    return {
      option: header.readUInt32BE(8),
      type: header.readUInt32BE(12),
      data: await this.read(header.readUInt32BE(16)),
    };
  }

  async ask(kind: number, data?: Uint8Array): Promise<OptionAnswer> {
    this.sendOption(kind, data);
    return this.answer();
  }

  /** All answers up to the acknowledgement or error. */
  async askAll(kind: number, data?: Uint8Array): Promise<OptionAnswer[]> {
    this.sendOption(kind, data);
    const answers: OptionAnswer[] = [];
    for (;;) {
      const answer = await this.answer();
      answers.push(answer);
      if (answer.type === optionReply.acknowledge || answer.type >= 0x80000000) return answers;
    }
  }

  request(
    type: number,
    parts: {
      cookie?: bigint;
      offset?: number | bigint;
      length?: number | bigint;
      flags?: number;
      payload?: Uint8Array;
      extended?: boolean;
    } = {},
  ): void {
    const { cookie = 1n, offset = 0, payload, flags = 0, extended = false } = parts;
    const length = BigInt(parts.length ?? payload?.length ?? 0);
    const header = Buffer.alloc(extended ? 32 : 28);
    const payloadFlag = extended && payload !== undefined ? commandFlag.payloadLength : 0;
    header.writeUInt32BE(extended ? extendedRequestMagic : requestMagic, 0);
    header.writeUInt16BE(flags | payloadFlag, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    if (extended) header.writeBigUInt64BE(length, 24);
    else header.writeUInt32BE(Number(length), 24);
    this.send(payload === undefined ? header : Buffer.concat([header, payload]));
  }

  /** `simplePayload`: bytes that follow a simple reply without error. */
  async reply(simplePayload = 0): Promise<Reply> {
    const magic = (await this.read(4)).readUInt32BE(0);
    if (magic === 0x67446698) {
      const rest = await this.read(12);
      const kind = rest.readUInt32BE(0);
      const payload = kind === 0 ? await this.read(simplePayload) : Buffer.alloc(0);
      return { style: "simple", cookie: rest.readBigUInt64BE(4), kind, done: true, payload };
    }
    const extended = magic === 0x6e8a278c;
    if (!extended && magic !== 0x668e33ef) throw new Error(`no reply: magic ${magic.toString(16)}`);
    const rest = await this.read(extended ? 28 : 16);
    const length = extended ? Number(rest.readBigUInt64BE(20)) : rest.readUInt32BE(12);
    return {
      style: extended ? "extended" : "structured",
      done: (rest.readUInt16BE(0) & 1) !== 0,
      kind: rest.readUInt16BE(2),
      cookie: rest.readBigUInt64BE(4),
      ...(extended ? { offset: rest.readBigUInt64BE(12) } : {}),
      payload: await this.read(length),
    };
  }

  disconnect(): void {
    this.request(command.disconnect);
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** The error of a reply, 0: none. */
export function errorOf(reply: Reply): number {
  if (reply.style === "simple") return reply.kind;
  return reply.kind >= 0x8000 ? reply.payload.readUInt32BE(0) : 0;
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}

/** The data of INFO and GO. */
export function infoRequest(name: string, items: number[] = []): Buffer {
  const count = Buffer.alloc(2 + items.length * 2);
  count.writeUInt16BE(items.length, 0);
  for (const [index, item] of items.entries()) count.writeUInt16BE(item, 2 + index * 2);
  return Buffer.concat([uint32(Buffer.byteLength(name)), Buffer.from(name), count]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function queries(name: string, wanted: string[]): Buffer {
  const each = wanted.flatMap((query) => [uint32(Buffer.byteLength(query)), Buffer.from(query)]);
  return Buffer.concat([uint32(Buffer.byteLength(name)), Buffer.from(name), uint32(wanted.length), ...each]);
}
