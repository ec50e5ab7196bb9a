import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import { isProviderError, type ProviderErrorCode } from "@diskferry/core/provider";
import { type DevicePlaces, rescan } from "../device/find-device.ts";
import { cloudstackError } from "../errors.ts";
import { listDevices } from "./list-devices.ts";
import { isVolumeId, longestRequest, protocolVersion, type DeviceList, type ErrorReply } from "./protocol.ts";
import type { VolumeSessions } from "./volume-sessions.ts";

/** What the control door is opened with. */
export interface ControlDoorOptions {
  readonly host: string;
  readonly port: number;
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string };
  readonly places: DevicePlaces;
  readonly sessions: VolumeSessions;
  readonly notice: (message: string) => void;
}

/** An open control door. */
export interface ControlDoor {
  readonly port: number;
  close(): Promise<void>;
}

/** Requests under way at once; more are refused, so that nobody can make this machine wait for a thousand devices. */
const MOST_REQUESTS = 64;

const statuses: Partial<Record<ProviderErrorCode, number>> = {
  CONFIG_INVALID: 400,
  AUTH: 401,
  DENIED: 403,
  NOT_FOUND: 404,
  IN_USE: 409,
  FENCED: 409,
  UNSUPPORTED: 422,
  THROTTLED: 429,
  UNAVAILABLE: 503,
};

/** Opens the control door: HTTPS for those who show a certificate of the authority. */
export async function openControlDoor(options: ControlDoorOptions): Promise<ControlDoor> {
  const underWay = new Set<Promise<void>>();
  const stop = new AbortController();
  const server = createServer(
    { ...options.tls, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.2" },
    (request, response) => {
      const work = serve(request, response, options, { busy: underWay.size >= MOST_REQUESTS, stop: stop.signal });
      underWay.add(work);
      void work.finally(() => underWay.delete(work));
    },
  );
  server.requestTimeout = 30_000;
  server.headersTimeout = 10_000;
  server.maxConnections = 256;
  server.on("tlsClientError", (error) => options.notice(`the control door refused a client: ${error.message}`));
  await listening(server, options);
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      stop.abort(cloudstackError("UNAVAILABLE", "The appliance is stopping."));
      const closed = new Promise<void>((done) => server.close(() => done()));
      await Promise.all(underWay);
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listening(server: Server, { host, port }: ControlDoorOptions): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const code = error.code === "EADDRINUSE" ? "IN_USE" : error.code === "EACCES" ? "DENIED" : "CONFIG_INVALID";
      reject(
        cloudstackError(code, `The control door cannot listen on ${host}:${port} (${error.code ?? error.message}).`),
      );
    });
    server.listen(port, host, resolve);
  });
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  options: ControlDoorOptions,
  { busy, stop }: { busy: boolean; stop: AbortSignal },
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => gone.abort(new Error("the client went away")));
  try {
    if (busy) throw cloudstackError("THROTTLED", "The appliance has too many requests under way: ask again later.");
    const holder = (request.socket as TLSSocket).getPeerCertificate().fingerprint256;
    const answer = await route(request, holder, options, AbortSignal.any([gone.signal, stop]));
    send(response, 200, answer);
  } catch (error) {
    if (gone.signal.aborted) return;
    const known = isProviderError(error)
      ? error
      : cloudstackError(
          "UNEXPECTED",
          `The appliance failed: ${error instanceof Error ? error.message : String(error)}`,
        );
    if (!isProviderError(error)) options.notice(String(error instanceof Error ? error.stack : error));
    const body: ErrorReply = { error: { code: known.code, message: known.message, retryable: known.retryable } };
    send(response, statuses[known.code] ?? 500, body);
  }
}

async function route(
  request: IncomingMessage,
  holder: string,
  { places, sessions }: ControlDoorOptions,
  signal: AbortSignal,
): Promise<object> {
  const path = new URL(request.url ?? "/", "https://appliance").pathname;
  const call = `${request.method} ${path}`;
  if (call === "GET /v1/devices") return devices(places);
  if (call === "POST /v1/rescan") {
    await rescan(places);
    return devices(places);
  }
  const match = /^POST \/v1\/volumes\/([^/]*)\/(open|close)$/.exec(call);
  if (match?.[1] === undefined)
    throw cloudstackError("UNSUPPORTED", `The appliance speaks version ${protocolVersion} and does not know ${call}.`);
  const [, volumeId, verb] = match;
  if (!isVolumeId(volumeId)) throw cloudstackError("CONFIG_INVALID", `'${volumeId.slice(0, 64)}' is no volume's id.`);
  const body = await bodyOf(request);
  if (verb === "open") return sessions.open(volumeId, openRequestOf(body), holder, { signal });
  if (typeof body["export"] !== "string")
    throw cloudstackError("CONFIG_INVALID", "export: the export's name is missing.");
  await sessions.close(volumeId, body["export"], holder, { signal });
  return {};
}

function openRequestOf(body: Record<string, unknown>): { size: number; mode: "read" | "write"; epoch?: number } {
  const { size, mode, epoch } = body;
  const wrong = (what: string): Error => cloudstackError("CONFIG_INVALID", `open: ${what}`);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size <= 0) throw wrong("size is a number of bytes.");
  if (mode === "read") return { size, mode };
  if (mode !== "write") throw wrong("mode is read or write.");
  if (typeof epoch !== "number" || !Number.isSafeInteger(epoch) || epoch < 0)
    throw wrong("epoch is the whole number of the job's lease; nobody writes without one.");
  return { size, mode, epoch };
}

async function devices(places: DevicePlaces): Promise<DeviceList> {
  return { version: protocolVersion, devices: await listDevices(places) };
}

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > longestRequest)
      throw cloudstackError("CONFIG_INVALID", `A request has at most ${longestRequest} bytes.`);
    parts.push(part);
  }
  let value: unknown;
  try {
    value = JSON.parse(Buffer.concat(parts).toString("utf8"));
  } catch (error) {
    throw cloudstackError("CONFIG_INVALID", "The request is no JSON.", { cause: error });
  }
  if (typeof value !== "object" || value === null) throw cloudstackError("CONFIG_INVALID", "The request is no object.");
  return value as Record<string, unknown>;
}

function send(response: ServerResponse, status: number, body: object): void {
  if (response.destroyed || response.headersSent) return;
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(JSON.stringify(body));
}
