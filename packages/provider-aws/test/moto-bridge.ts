import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A moto server of its own, as it is and through a bridge. */
export interface Moto extends AsyncDisposable {
  /** moto itself. */
  endpoint: string;
  /** moto with the gaps of its EBS closed that no client of AWS could live with; see `mended`. */
  bridged: string;
}

/** Starts moto on a port that the system picks, and a bridge before it. */
export async function startMoto(): Promise<Moto> {
  const child = spawn("moto_server", ["-H", "127.0.0.1", "-p", "0"], {
    stdio: ["ignore", "ignore", "pipe"],
    // Its thousand images of AWS's are not needed, and each listing would carry them.
    env: { ...process.env, MOTO_EC2_LOAD_DEFAULT_AMIS: "false" },
  });
  const exited = once(child, "exit");
  let told = "";
  let listening: ((port: number) => void) | undefined;
  const port = new Promise<number>((resolve, reject) => {
    listening = resolve;
    child.once("error", reject);
    void exited.then(() => reject(new Error(`moto_server ended: ${told}`)));
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    told = (told + text).slice(-4096);
    const found = /Running on http:\/\/127\.0\.0\.1:(\d+)/.exec(told)?.[1];
    if (found !== undefined) listening?.(Number(found));
  });
  const endpoint = `http://127.0.0.1:${await port}`;
  const bridge = await startBridge(endpoint);
  const { port: bridgePort } = bridge.address() as AddressInfo;
  return {
    endpoint,
    bridged: `http://127.0.0.1:${bridgePort}`,
    async [Symbol.asyncDispose]() {
      bridge.close();
      bridge.closeAllConnections();
      child.kill();
      await exited;
    },
  };
}

async function startBridge(endpoint: string): Promise<Server> {
  /** Snapshots that were started and not completed yet: moto calls them completed from the start. */
  const pending = new Set<string>();
  const server = createServer((request, response) => {
    forward(endpoint, pending, request, response).catch(() => request.socket.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

async function forward(
  endpoint: string,
  pending: Set<string>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
  const { method = "GET", url = "/" } = request;
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (!/^(connection|content-length|expect|transfer-encoding)$/.test(name)) headers.set(name, String(value));
  }
  const body = Buffer.concat(parts);
  if (/^(.*&)?Action=DescribeImportImageTasks(&|$)/.test(body.toString("latin1", 0, 4096))) {
    response.writeHead(200, { "content-type": "text/xml" });
    response.end("<DescribeImportImageTasksResponse><importImageTaskSet/></DescribeImportImageTasksResponse>");
    return;
  }
  const answer = await fetch(endpoint + url, { method, headers, ...(body.length > 0 ? { body } : {}) });
  const { status, bytes } = mended(method, url, answer.status, Buffer.from(await answer.arrayBuffer()), pending);
  const own = [...answer.headers].filter(([name]) => !/^(connection|content-encoding|content-length)$/.test(name));
  response.writeHead(status, { ...Object.fromEntries(own), "content-length": bytes.length });
  response.end(bytes);
}

interface Block {
  BlockIndex: number | string;
}

/**
 * What moto 5.2 answers otherwise than AWS, put right: blocks of 512 bytes, indices as text and in no order, listings
 * that begin at the start whatever was asked, snapshots that
 * are completed before they were written, snapshots of EC2's making that its EBS does not know (they hold no data),
 * and tasks of ImportImage, of which it has none.
 */
function mended(
  method: string,
  url: string,
  status: number,
  bytes: Buffer,
  pending: Set<string>,
): { status: number; bytes: Buffer } {
  const [path = "", query = ""] = url.split("?");
  if (method === "POST" && path === "/snapshots" && status < 300) {
    const started = JSON.parse(bytes.toString()) as { SnapshotId: string };
    pending.add(started.SnapshotId);
    return { status, bytes: json({ ...started, BlockSize: 524_288, Status: "pending" }) };
  }
  const completed = /^\/snapshots\/completion\/(.+)$/.exec(path)?.[1];
  if (completed !== undefined && status < 300) pending.delete(completed);
  if (method === "GET" && /\/(changed)?blocks$/.test(path)) {
    const empty = { Blocks: [], VolumeSize: 1 };
    const listed = (status < 300 ? JSON.parse(bytes.toString()) : empty) as Record<string, unknown>;
    for (const name of ["Blocks", "ChangedBlocks"]) {
      if (!Array.isArray(listed[name])) continue;
      const from = Number(new URLSearchParams(query).get("startingBlockIndex") ?? 0);
      const blocks = (listed[name] as Block[])
        .map((each) => ({ ...each, BlockIndex: Number(each.BlockIndex) }))
        .filter(({ BlockIndex }) => BlockIndex >= from);
      listed[name] = blocks.sort((one, other) => one.BlockIndex - other.BlockIndex);
    }
    return { status: 200, bytes: json({ ...listed, BlockSize: 524_288 }) };
  }
  if (path === "/" && pending.size > 0) {
    const facts = /<snapshotId>(snap-[0-9a-f]+)<\/snapshotId>(<volumeId>[^<]*<\/volumeId>)<status>completed</g;
    const text = bytes.toString().replace(facts, (found: string, id: string, volume: string) => {
      return pending.has(id) ? `<snapshotId>${id}</snapshotId>${volume}<status>pending<` : found;
    });
    return { status, bytes: Buffer.from(text) };
  }
  return { status, bytes };
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
