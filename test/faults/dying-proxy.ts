import { createServer, request as send, type IncomingMessage } from "node:http";
import type { AddressInfo, Socket } from "node:net";

/** A way to a simulator that ends with its user. */
export interface DyingProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** Operations of the calls that went through, in their order. */
  readonly calls: readonly string[];
  readonly isDead: boolean;
}

/**
 * Lets `lives` calls through to a simulator over HTTP. The last of them is done, and its answer never read: then, as with a
 * process that was killed, every connection is gone, and no later call arrives. `onDeath` is told of it.
 */
export async function dyingProxy(to: string, lives: number, onDeath: () => void = () => {}): Promise<DyingProxy> {
  const { hostname, port } = new URL(to);
  const calls: string[] = [];
  const sockets = new Set<Socket>();
  let isDead = false;
  const die = (): void => {
    isDead = true;
    for (const socket of sockets) socket.destroy();
  };
  const server = createServer((incoming, outgoing) => {
    void bytesOf(incoming).then(
      (body) => {
        if (isDead || calls.length >= lives) return incoming.socket.destroy();
        calls.push(operationOf(incoming, body));
        const isLast = calls.length === lives;
        const { method, url, headers } = incoming;
        const forward = send({ hostname, port, method, path: url, headers }, (answer) => {
          if (isLast) {
            answer.resume();
            answer.once("end", () => {
              die();
              onDeath();
            });
            return;
          }
          outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(outgoing);
        });
        forward.once("error", () => incoming.socket.destroy());
        forward.end(body);
        return undefined;
      },
      () => incoming.socket.destroy(),
    );
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    get isDead() {
      return isDead;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((done) => server.close(done));
      die();
      await closed;
    },
  };
}

async function bytesOf(message: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of message) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** For messages: `CreateSnapshots`, `PUT /snapshots/snap-…/blocks/7`. */
function operationOf({ method, url }: IncomingMessage, body: Buffer): string {
  const action = /(?:^|&)Action=(\w+)/.exec(body.toString("latin1", 0, 4096))?.[1];
  return action ?? `${method} ${url?.split("?")[0]}`;
}
