import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { Agent } from "undici";
import type { ProviderError } from "@diskferry/core/provider";
import { isExpired, openRanges } from "../../src/download/ranged-file.ts";

// A storage machine, or a proxy before it, that does all that servers do.

const file = Buffer.from("0123456789".repeat(100));
const open: { server: Server; agent: Agent }[] = [];
afterEach(async () => {
  for (const { server, agent } of open.splice(0)) {
    await agent.destroy();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function serve(listener: RequestListener): Promise<{ url: URL; agent: Agent }> {
  const server = createServer(listener);
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const agent = new Agent();
  open.push({ server, agent });
  return { url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/userdata/secret.qcow2`), agent };
}

const honest: RequestListener = (request, response) => {
  const [first = 0, last = 0] = (/bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? []).slice(1).map(Number);
  response.writeHead(206, { "content-range": `bytes ${first}-${last}/${file.length}` });
  response.end(file.subarray(first, last + 1));
};

async function failure(answer: RequestListener): Promise<ProviderError> {
  let count = 0;
  const { url, agent } = await serve((request, response) => (count++ === 0 ? honest : answer)(request, response));
  const ranges = await openRanges(url, agent, "snapshot 1");
  const error = await ranges.read(10, new Uint8Array(20)).then(
    () => expect.fail("it was read"),
    (error: unknown) => error as ProviderError,
  );
  expect(error.message).not.toContain("secret");
  return error;
}

it("reads any range", async () => {
  const { url, agent } = await serve(honest);
  const ranges = await openRanges(url, agent, "snapshot 1");
  expect(ranges.length).toBe(1000);
  const into = Buffer.alloc(25);
  await ranges.read(3, into);
  expect(into.toString()).toBe("3456789012345678901234567");
  await expect(ranges.read(990, new Uint8Array(11))).rejects.toThrow(RangeError);
});

it("refuses the whole file in place of a range", async () => {
  expect(await failure((_, response) => response.end(file))).toMatchObject({ code: "UNSUPPORTED", retryable: false });
});

it("refuses another range than the one asked for", async () => {
  const error = await failure((_, response) => {
    response.writeHead(206, { "content-range": "bytes 0-19/1000" });
    response.end(file.subarray(0, 20));
  });
  expect(error.code).toBe("UNEXPECTED");
});

it("refuses a file that has become shorter, or another one", async () => {
  for (const headers of [
    { "content-range": "bytes 10-29/999" },
    { "content-range": "bytes 10-29/1000", etag: '"new"' },
  ]) {
    const error = await failure((_, response) => {
      response.writeHead(206, headers);
      response.end(file.subarray(10, 30));
    });
    expect(error).toMatchObject({ code: "UNAVAILABLE" });
    expect(isExpired(error)).toBe(true);
  }
});

it("refuses fewer bytes than were promised, and more", async () => {
  const answer =
    (count: number): RequestListener =>
    (_, response) => {
      response.writeHead(206, { "content-range": "bytes 10-29/1000", connection: "close" });
      response.end(file.subarray(10, 10 + count));
    };
  expect(await failure(answer(19))).toMatchObject({ code: "UNAVAILABLE", retryable: true });
  expect((await failure(answer(21))).code).toBe("UNEXPECTED");
});

it("takes 416 and a range that ends early for a file that is cut", async () => {
  expect((await failure((_, response) => response.writeHead(416).end())).code).toBe("CORRUPT");
  const error = await failure((_, response) => {
    response.writeHead(206, { "content-range": "bytes 10-19/1000" });
    response.end(file.subarray(10, 20));
  });
  expect(error.code).toBe("CORRUPT");
});

it("knows a link that has run out", async () => {
  for (const status of [403, 404, 410])
    expect(isExpired(await failure((_, response) => response.writeHead(status).end("gone")))).toBe(true);
  expect(isExpired(await failure((_, response) => response.writeHead(503).end("later")))).toBe(false);
});
