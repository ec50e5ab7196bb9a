import { type IncomingMessage, createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** What a scripted server does with one call. */
export type Script = (call: {
  form: URLSearchParams;
  index: number;
  request: IncomingMessage;
}) => { status?: number; body: unknown; headers?: Record<string, string | string[]> } | "cut" | "hang";

/** A server on 127.0.0.1 that answers as its script says. */
export interface ScriptedServer extends AsyncDisposable {
  readonly url: string;
  readonly calls: URLSearchParams[];
}

/** Starts it. */
export async function startScripted(script: Script): Promise<ScriptedServer> {
  const calls: URLSearchParams[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const form = new URLSearchParams(Buffer.concat(parts).toString());
      calls.push(form);
      const answer = script({ form, index: calls.length, request });
      if (answer === "hang") return;
      if (answer === "cut") return void request.socket.destroy();
      const text = typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body);
      response.writeHead(answer.status ?? 200, { "content-type": "text/javascript", ...answer.headers });
      response.end(text);
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/client/api`,
    calls,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((closed) => server.close(() => closed()));
    },
  };
}

/** An error as the server words it. */
export function apiError(
  command: string,
  code: number,
  text: string,
  exception?: number,
): { status: number; body: unknown } {
  const error = { uuidList: [], errorcode: code, cserrorcode: exception, errortext: text };
  return { status: code, body: { [`${command.toLowerCase()}response`]: error } };
}
