import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import {
  command,
  extendedReplyMagic,
  greetingMagic,
  infoType,
  option,
  optionMagic,
  optionReply,
  optionReplyMagic,
  replyFlagDone,
  simpleReplyMagic,
  structuredReplyMagic,
  transmissionFlag,
} from "../../src/protocol.ts";

/** What the scripted server says of its export, and what it agrees to. */
export interface ScriptedExport {
  size?: number;
  flags?: number;
  style?: "simple" | "structured" | "extended";
  blockSize?: { minimum: number; preferred: number; maximum: number };
  /** Granted to whoever asks for any context; ids are 1, 2, 3 … */
  contexts?: string[];
  /** Answers INFO and GO with "unsupported", as servers of before 2016 do. */
  exportNameOnly?: boolean;
}

/** A request as the scripted server saw it. */
export interface SeenRequest {
  type: number;
  flags: number;
  cookie: Buffer;
  offset: number;
  length: number;
  data: Buffer;
}

export const everyFlag: number =
  transmissionFlag.hasFlags |
  transmissionFlag.sendFlush |
  transmissionFlag.sendFua |
  transmissionFlag.sendTrim |
  transmissionFlag.sendWriteZeroes |
  transmissionFlag.sendDf |
  transmissionFlag.sendCache |
  transmissionFlag.sendFastZero;

/** One client as the scripted server sees it. */
export class ScriptedPeer {
  readonly socket: Socket;
  #received: Buffer[] = [];
  #length = 0;
  #waiting: (() => void)[] = [];
  #over = false;
  #extended = false;
  /** Options in the order the client asked for them. */
  readonly options: number[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#received.push(bytes);
      this.#length += bytes.byteLength;
      this.#wake();
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#over = true;
      this.#wake();
    });
  }

  /** The next `count` bytes of the client; rejects when it is gone. */
  async take(count: number): Promise<Buffer> {
    while (this.#length < count) {
      if (this.#over) throw new Gone();
      await this.#news();
    }
    const all = Buffer.concat(this.#received);
    this.#received = [all.subarray(count)];
    this.#length -= count;
    return all.subarray(0, count);
  }

  send(...parts: Uint8Array[]): void {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(parts));
  }

  /** Resolves when the client closed. */
  async closed(): Promise<void> {
    while (!this.#over) await this.#news();
  }

  #news(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  greet(flags = 3): void {
    this.send(bytes64(...greetingMagic), bytes64(...optionMagic), bytes16(flags));
  }

  async option(): Promise<{ type: number; data: Buffer }> {
    const header = await this.take(16);
    const type = header.readUInt32BE(8);
    this.options.push(type);
    return { type, data: await this.take(header.readUInt32BE(12)) };
  }

  optionReply(type: number, reply: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(optionReplyOf(type, reply, data));
  }

  /** The whole handshake, up to transmission. */
  async handshake(offered: ScriptedExport = {}): Promise<void> {
    const { size = 1 << 20, flags = everyFlag, style = "structured", contexts = [] } = offered;
    this.greet();
    await this.take(4);
    for (;;) {
      const { type, data } = await this.option();
      if (type === option.extendedHeaders && style === "extended") {
        this.#extended = true;
        this.optionReply(type, optionReply.acknowledge);
      } else if (type === option.structuredReply && style === "structured") {
        this.optionReply(type, optionReply.acknowledge);
      } else if (type === option.setMetaContext) {
        contexts.forEach((name, index) =>
          this.optionReply(type, optionReply.metaContext, Buffer.concat([bytes32(index + 1), Buffer.from(name)])),
        );
        this.optionReply(type, optionReply.acknowledge);
      } else if (type === option.exportName) {
        this.send(bytes64(...halves(size)), bytes16(flags));
        return;
      } else if (type === option.go && offered.exportNameOnly !== true) {
        this.optionReply(
          type,
          optionReply.info,
          Buffer.concat([bytes16(infoType.export), bytes64(...halves(size)), bytes16(flags)]),
        );
        if (offered.blockSize !== undefined) {
          const { minimum, preferred, maximum } = offered.blockSize;
          const sizes = [bytes16(infoType.blockSize), bytes32(minimum), bytes32(preferred), bytes32(maximum)];
          this.optionReply(type, optionReply.info, Buffer.concat(sizes));
        }
        this.optionReply(type, optionReply.acknowledge);
        void data;
        return;
      } else if (type === option.abort) {
        this.socket.end();
        return;
      } else this.optionReply(type, optionReply.unsupported, Buffer.from("not here"));
    }
  }

  /** The next request; DISC too. */
  async request(): Promise<SeenRequest> {
    const header = await this.take(this.#extended ? 32 : 28);
    const seen = {
      flags: header.readUInt16BE(4),
      type: header.readUInt16BE(6),
      cookie: Buffer.from(header.subarray(8, 16)),
      offset: Number(header.readBigUInt64BE(16)),
      length: this.#extended ? Number(header.readBigUInt64BE(24)) : header.readUInt32BE(24),
    };
    const payload = this.#extended ? (seen.flags & 32) !== 0 : seen.type === command.write;
    return { ...seen, data: payload ? await this.take(seen.length) : Buffer.alloc(0) };
  }

  simple(request: SeenRequest, error = 0, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(bytes32(simpleReplyMagic), bytes32(error), request.cookie, data);
  }

  /** A structured or extended reply, as agreed. */
  reply(
    request: SeenRequest,
    type: number,
    payload: Uint8Array = Buffer.alloc(0),
    flags: number = replyFlagDone,
  ): void {
    this.send(this.replyHeader(request, type, payload.byteLength, flags), payload);
  }

  replyHeader(request: SeenRequest, type: number, length: number, flags: number = replyFlagDone): Buffer {
    const kind = [bytes16(flags), bytes16(type), request.cookie];
    return this.#extended
      ? Buffer.concat([bytes32(extendedReplyMagic), ...kind, bytes64(...halves(request.offset)), bytes64(0, length)])
      : Buffer.concat([bytes32(structuredReplyMagic), ...kind, bytes32(length)]);
  }

  content(request: SeenRequest, offset: number, data: Uint8Array, flags = 0): void {
    this.reply(request, 1, Buffer.concat([bytes64(...halves(offset)), data]), flags);
  }

  hole(request: SeenRequest, offset: number, length: number, flags = 0): void {
    this.reply(request, 2, Buffer.concat([bytes64(...halves(offset)), bytes32(length)]), flags);
  }

  done(request: SeenRequest): void {
    this.reply(request, 0);
  }
}

class Gone extends Error {}

/** Everything an iterable gives. */
export async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** A server on 127.0.0.1 that follows a script with each client; a script may end early or run until the client left. */
export interface ScriptedServer extends AsyncDisposable {
  readonly uri: string;
  readonly peers: readonly ScriptedPeer[];
  /** What scripts threw, other than because the client was gone. */
  readonly faults: readonly unknown[];
}

export async function startScripted(script: (peer: ScriptedPeer) => Promise<void> | void): Promise<ScriptedServer> {
  const peers: ScriptedPeer[] = [];
  const faults: unknown[] = [];
  const server = createServer((socket) => {
    const peer = new ScriptedPeer(socket);
    peers.push(peer);
    Promise.resolve()
      .then(() => script(peer))
      .catch((error: unknown) => {
        if (!(error instanceof Gone)) faults.push(error);
        socket.destroy();
      });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    uri: `nbd://127.0.0.1:${(server.address() as AddressInfo).port}/disk`,
    peers,
    faults,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const { socket } of peers) socket.destroy();
      await closed;
    },
  };
}

export function optionReplyOf(type: number, reply: number, data: Uint8Array): Buffer {
  return Buffer.concat([bytes64(...optionReplyMagic), bytes32(type), bytes32(reply), bytes32(data.byteLength), data]);
}

export function bytes16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function bytes32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

export function bytes64(high: number, low: number): Buffer {
  return Buffer.concat([bytes32(high), bytes32(low)]);
}

export function halves(value: number): [number, number] {
  return [Math.floor(value / 0x1_0000_0000), value % 0x1_0000_0000];
}
