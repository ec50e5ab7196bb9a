import { type AddressInfo, type Socket, connect, createServer } from "node:net";

/** A TCP proxy on 127.0.0.1 that closes connections after a number of bytes. */
export interface CuttingProxy extends AsyncDisposable {
  readonly port: number;
  /** Where connections go, a port of 127.0.0.1; may change at any time. */
  upstream: number;
  /** After how many bytes, both ways together, the next connection is cut; Infinity: never. Asked once for each. */
  bytesLeft: () => number;
  /** Connections that were cut. */
  readonly cuts: number;
  /** Cuts every connection there is. */
  cutAll(): void;
}

/** Starts a proxy in front of a server. */
export async function startCuttingProxy(upstream: number): Promise<CuttingProxy> {
  const open = new Set<Socket>();
  let cuts = 0;
  const server = createServer((client) => {
    const far = connect(proxy.upstream, "127.0.0.1");
    let left = proxy.bytesLeft();
    const end = (): void => {
      client.destroy();
      far.destroy();
    };
    for (const [from, to] of [
      [client, far],
      [far, client],
    ] as const) {
      open.add(from);
      from.on("error", end).on("close", () => {
        open.delete(from);
        end();
      });
      from.on("data", (bytes: Buffer) => {
        if (left < bytes.length) {
          cuts++;
          // A part of the message still gets through; the rest never does.
          to.write(bytes.subarray(0, left), end);
          left = 0;
          return;
        }
        left -= bytes.length;
        if (to.write(bytes)) return;
        from.pause();
        to.once("drain", () => from.resume());
      });
    }
  });
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const proxy = {
    port: (server.address() as AddressInfo).port,
    upstream,
    bytesLeft: (): number => Infinity,
    get cuts(): number {
      return cuts;
    },
    cutAll(): void {
      for (const socket of open) socket.destroy();
    },
    async [Symbol.asyncDispose](): Promise<void> {
      proxy.cutAll();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return proxy;
}
