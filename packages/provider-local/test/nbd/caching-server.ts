import { type Server, type Socket, connect, createServer } from "node:net";
import { join } from "node:path";
import { type NbdBackend, type NbdServer, serveNbd } from "@diskferry/nbd";
import { freshFolder } from "../folder.ts";

interface Write {
  offset: number;
  data: Uint8Array;
}

/** One connection: what it answered and nobody flushed yet. */
interface Link {
  cache: Write[];
  written: number;
  cut(): void;
}

export interface CachingServerOptions {
  size: number;
  /** Whether the server says that a flush on one connection covers all of them, and does so. */
  multiConnection: boolean;
  random: () => number;
}

/**
 * An NBD server whose every connection has a write cache of its own: a flush makes durable what was answered before the
 * flush came, on this connection alone or on all that live, as the server says; a connection that ends takes what it
 * answered and did not flush with it. Whoever flushes too early, on the wrong connection or after a loss, loses bytes.
 */
export class CachingServer implements AsyncDisposable {
  readonly durable: Uint8Array;
  readonly uri: string;
  /** Called when a flush has come, before it takes effect. */
  onFlush: (flushing: Link, links: readonly Link[]) => Promise<void> | void = () => {};
  flushes = 0;
  /** Connections that ever wrote. */
  writers = 0;
  readonly #options: CachingServerOptions;
  readonly #folder = freshFolder();
  readonly #links = new Set<Link>();
  readonly #servers: NbdServer[] = [];
  readonly #front: Server;
  #opened = 0;
  #isDown = false;

  private constructor(options: CachingServerOptions) {
    this.#options = options;
    this.durable = new Uint8Array(options.size);
    const path = join(this.#folder, "front");
    this.uri = `nbd+unix:///?socket=${path}`;
    this.#front = createServer((client) => void this.#accept(client).catch(() => client.destroy()));
    this.#front.listen(path);
  }

  static start(options: CachingServerOptions): CachingServer {
    return new CachingServer(options);
  }

  /** The power goes: every connection ends, and with it what was not flushed. */
  lose(): void {
    this.#isDown = true;
    for (const link of [...this.#links]) link.cut();
  }

  /** The power is back. */
  restore(): void {
    this.#isDown = false;
  }

  async #accept(client: Socket): Promise<void> {
    if (this.#isDown) return void client.destroy();
    const path = join(this.#folder, `link-${++this.#opened}`);
    const link: Link = { cache: [], written: 0, cut: () => client.destroy() };
    const server = await serveNbd({ listen: { path }, exports: { "": { backend: this.#backend(link) } } });
    this.#servers.push(server);
    this.#links.add(link);
    const far = connect(path);
    client.on("close", () => {
      this.#links.delete(link);
      far.destroy();
    });
    far.on("close", () => client.destroy());
    client.on("error", () => {});
    far.on("error", () => {});
    client.pipe(far).pipe(client);
    if (client.destroyed) far.destroy();
  }

  #backend(link: Link): NbdBackend {
    const { size, multiConnection, random } = this.#options;
    const shared = (): Link[] => (multiConnection ? [...this.#links] : [link]);
    const late = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, random() * 6));
    const keep = async (offset: number, data: Uint8Array): Promise<void> => {
      const copy = new Uint8Array(data);
      await late();
      if (link.written++ === 0) this.writers++;
      link.cache.push({ offset, data: copy });
    };
    return {
      size,
      multiConnection,
      read: (offset, into) => {
        into.set(this.durable.subarray(offset, offset + into.length));
        for (const { cache } of shared()) {
          for (const { offset: at, data } of cache) {
            const from = Math.max(at, offset);
            const to = Math.min(at + data.length, offset + into.length);
            if (from < to) into.set(data.subarray(from - at, to - at), from - offset);
          }
        }
      },
      write: (offset, data) => keep(offset, data),
      zero: (offset, length) => keep(offset, new Uint8Array(length)),
      flush: async () => {
        this.flushes++;
        const answered = shared().map((each) => ({ each, writes: [...each.cache] }));
        await this.onFlush(link, [...this.#links]);
        await late();
        for (const { each, writes } of answered) {
          if (!this.#links.has(each)) continue;
          for (const { offset, data } of writes) this.durable.set(data, offset);
          each.cache = each.cache.filter((write) => !writes.includes(write));
        }
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.lose();
    await Promise.all(this.#servers.map((server) => server.close({ deadlineMs: 0 })));
    await new Promise<void>((resolve) => this.#front.close(() => resolve()));
  }
}
