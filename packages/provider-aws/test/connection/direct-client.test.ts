import { createHash } from "node:crypto";
import { type RequestListener, createServer } from "node:http";
import { type AddressInfo, type Socket, createServer as createTcpServer } from "node:net";
import { inspect } from "node:util";
import { StartSnapshotCommand } from "@aws-sdk/client-ebs";
import { expect, test, vi } from "vitest";
import type { AwsOptions } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { makeClients } from "../../src/connection/clients.ts";
import { Credentials } from "../../src/connection/credentials.ts";
import type { BlockPage } from "../../src/connection/block-page.ts";
import type { Receiver } from "../../src/connection/direct-client.ts";
import {
  getSnapshotBlock,
  listChangedBlocks,
  listSnapshotBlocks,
  putSnapshotBlock,
} from "../../src/connection/ebs-block-calls.ts";
import { settingsOf } from "../../src/options.ts";
import { awsWorld, block, randomBlock } from "../aws-world.ts";

const keys = { accessKeyId: "AKIAEXAMPLE", secretAccessKey: "a very secret key", sessionToken: "a very secret token" };
const about = { object: "block 0 of snap-1", snapshotId: "snap-1" };
const wanted = { snapshotId: "snap-1", index: 0, token: "t" };
const page = listSnapshotBlocks("snap-1", { pageSize: 100 });

/** Snapshots that can be listed at once. */
const listed = { emptyPageEvery: 0, delays: { completeMs: 0, listableMs: 0 } };

/** Writes a body into memory and checks nothing. */
function into(buffer: Uint8Array): () => Receiver<void> {
  let length = 0;
  return () => ({
    take(bytes) {
      buffer.set(bytes, length);
      length += bytes.byteLength;
      return true;
    },
    end() {},
  });
}

function entriesOf(listing: BlockPage): Record<string, unknown>[] {
  return [...listing.entries].flat() as Record<string, unknown>[];
}

/** A connection to a server of our own. */
async function peer(answer: RequestListener, options: Partial<AwsOptions> = {}) {
  const sockets = new Set<Socket>();
  const server = createServer(answer);
  server.on("connection", (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const all: AwsOptions = {
    region: "us-east-1",
    endpoint: { ebs: endpoint },
    credentials: { ...keys, accountId: "111111111111" },
    ...options,
  };
  const connection = await AwsConnection.open(all);
  return {
    connection,
    endpoint,
    options: all,
    sockets,
    [Symbol.asyncDispose]: async () => {
      await connection[Symbol.asyncDispose]();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test("temporary keys: the simulator takes the signature of every call, and the session token is in it", async () => {
  await using world = await awsWorld(listed);
  const temporary = { accessKeyId: "ASIATEMPORARY", secretAccessKey: "secret", sessionToken: "token/+=" };
  world.simulator.addCredentials({ ...temporary, accountId: "111111111111" });
  await using connection = await AwsConnection.open({ ...world.options(), credentials: temporary, product: "Fähre" });
  const started = await connection.ebs(new StartSnapshotCommand({ VolumeSize: 1 }), { object: "a snapshot" });
  const snapshotId = started.SnapshotId!;
  const data = randomBlock();
  const checksum = createHash("sha256").update(data).digest("base64");
  await connection.patiently(() =>
    connection.direct(putSnapshotBlock({ snapshotId, index: 5, data, checksum }), {
      object: snapshotId,
      snapshotId,
      settling: true,
    }),
  );
  const { simulator } = world;
  const volume = simulator.volumesOf(simulator.instances.linux)[0]!;
  const first = simulator.takeSnapshot(volume);
  await simulator.writeVolume(volume, 3 * block, data);
  const second = simulator.takeSnapshot(volume);
  const object = { object: second };
  const all = await connection.direct(listSnapshotBlocks(second, { pageSize: 100, from: 3 }), object);
  const changed = await connection.direct(listChangedBlocks(first, second, { pageSize: 100, from: 0 }), object);
  const [entry] = entriesOf(all);
  expect(entry?.["BlockIndex"]).toBe(3);
  expect(entriesOf(changed).map(({ BlockIndex }) => BlockIndex)).toEqual([3]);
  const token = String(entry?.["BlockToken"]);
  const buffer = new Uint8Array(block);
  await connection.direct(getSnapshotBlock({ snapshotId: second, index: 3, token }, into(buffer)), object);
  expect(Buffer.compare(buffer, data)).toBe(0);
});

test("keys that AWS calls expired are exchanged once for all blocks that were refused, and these asked for again", async () => {
  await using world = await awsWorld(listed);
  let given = 0;
  const keysOf = (number: number) => ({
    accessKeyId: `ASIA${number}`,
    secretAccessKey: `s${number}`,
    sessionToken: "t",
  });
  const allow = (number: number, expiresAt: number) =>
    world.simulator.addCredentials({ ...keysOf(number), accountId: "111111111111", expiresAt });
  const credentials = async () => {
    allow(++given, Date.now() + 3_600_000);
    return keysOf(given);
  };
  await using connection = await AwsConnection.open({ ...world.options(), credentials });
  const snapshotId = world.simulator.takeSnapshot(world.simulator.addSyntheticVolume({ sizeGib: 1 }));
  const call = listSnapshotBlocks(snapshotId, { pageSize: 100 });
  const ask = () => connection.direct(call, { object: snapshotId });
  await ask();
  expect(given).toBe(1);
  allow(1, Date.now() - 1);
  await Promise.all(Array.from({ length: 8 }, ask));
  expect(given).toBe(2);
});

test("a clock that is an hour off is set right by AWS's answer, the call made again, and later ones made once", async () => {
  await using world = await awsWorld(listed);
  await using connection = await AwsConnection.open(world.options());
  const snapshotId = world.simulator.takeSnapshot(world.simulator.addSyntheticVolume({ sizeGib: 1 }));
  const ask = () => connection.direct(listSnapshotBlocks(snapshotId, { pageSize: 100 }), { object: snapshotId });
  await ask();
  const calls = () => world.simulator.faults.counters()["ListSnapshotBlocks"] ?? 0;
  // Wrong the other way too, by what was learned from the first answer.
  for (const ms of [3_600_000, 7_200_000, -10_800_000]) {
    world.simulator.advance(ms);
    const before = calls();
    await ask();
    expect(calls() - before).toBe(2);
    await ask();
    expect(calls() - before).toBe(3);
  }
});

test("a body that stops half way is given up after its time, and nothing is written into the buffer later", async () => {
  let goOn: (() => void) | undefined;
  await using far = await peer(
    (_, response) => {
      response.writeHead(200, { "content-length": block }).write(Buffer.alloc(block / 2, 1));
      goOn = () => response.end(Buffer.alloc(block / 2, 2));
    },
    { timeouts: { blockMs: 300 } },
  );
  const buffer = new Uint8Array(block);
  const reading = far.connection.direct(getSnapshotBlock(wanted, into(buffer)), about);
  await expect(reading).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
  buffer.fill(0x5a);
  goOn?.();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(buffer.every((byte) => byte === 0x5a)).toBe(true);
});

test("an abort ends the call with its reason, closes the connection, and leaves the buffer alone", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  let goOn: (() => void) | undefined;
  await using far = await peer((_, response) => {
    // Several parts in one delivery of the socket.
    response.writeHead(200).cork();
    for (let part = 0; part < 8; part++) response.write(Buffer.alloc(1024, 1));
    response.uncork();
    goOn = () => response.end(Buffer.alloc(block / 2, 2));
  });
  const buffer = new Uint8Array(block);
  const write = into(buffer);
  let parts = 0;
  const taking = (): Receiver<void> => {
    const inner = write();
    return {
      take(bytes) {
        parts++;
        controller.abort(reason);
        return inner.take(bytes);
      },
      end: () => inner.end(),
    };
  };
  const reading = far.connection.direct(getSnapshotBlock(wanted, taking), { ...about, signal: controller.signal });
  await expect(reading).rejects.toBe(reason);
  expect(parts).toBe(1);
  buffer.fill(0x5a);
  goOn?.();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(buffer.every((byte) => byte === 0x5a)).toBe(true);
  expect([...far.sockets].every((socket) => socket.destroyed)).toBe(true);
});

test("an answer that breaks off is no answer, whatever the call", async () => {
  await using far = await peer((request, response) => {
    request.resume();
    response
      .writeHead(200, { "content-length": 1000 })
      .write('{"BlockSize":524288,"Blocks":[]}', () => response.destroy());
  });
  const retryable = { code: "UNAVAILABLE", retryable: true };
  const data = randomBlock();
  const put = putSnapshotBlock({ snapshotId: "snap-1", index: 0, data, checksum: "c" });
  await expect(far.connection.direct(page, about)).rejects.toMatchObject(retryable);
  await expect(
    far.connection.direct(getSnapshotBlock(wanted, into(new Uint8Array(block))), about),
  ).rejects.toMatchObject(retryable);
  await expect(far.connection.direct(put, about)).rejects.toMatchObject(retryable);
});

test("a kept connection that the server closes is told as passing, or not used at all, and nothing crashes", async () => {
  let asked = 0;
  await using far = await peer((request, response) => {
    // The second request meets a server that has just given the connection up.
    if (++asked === 2) return void request.socket.resetAndDestroy();
    response.end("{}");
  });
  await far.connection.direct(page, about);
  await expect(far.connection.direct(page, about)).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
  expect(asked).toBe(2);
  await far.connection.direct(page, about);
  const kept = [...far.sockets].at(-1)!;
  kept.resetAndDestroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await far.connection.direct(page, about);
  expect(asked).toBe(4);
});

test("no more connections than told are opened, and they are kept", async () => {
  await using far = await peer((_, response) => void setTimeout(() => response.end("{}"), 200), { concurrency: 2 });
  await Promise.all(Array.from({ length: 30 }, () => far.connection.direct(page, about)));
  expect(far.sockets.size).toBeLessThanOrEqual(6);
});

test("an endpoint that nobody listens on is told as passing", async () => {
  const far = await peer((_, response) => response.end("{}"));
  await using open = await AwsConnection.open(far.options);
  await far[Symbol.asyncDispose]();
  await expect(open.direct(page, about)).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
});

const refusals: [string, { status: number; type?: string; body: string }, object][] = [
  [
    "a code with an address",
    { status: 400, type: "ThrottlingException:http://a/b", body: "{}" },
    { code: "THROTTLED" },
  ],
  ["a code in the body", { status: 404, body: '{"__type":"a#ResourceNotFoundException"}' }, { code: "NOT_FOUND" }],
  [
    "a reason",
    { status: 400, type: "ValidationException", body: '{"Message":"m","Reason":"INVALID_PAGE_TOKEN"}' },
    { code: "UNAVAILABLE" },
  ],
  ["a page of a proxy", { status: 503, body: "<html>" }, { code: "UNAVAILABLE", retryable: true }],
  ["a redirect", { status: 301, body: "" }, { code: "UNEXPECTED", retryable: false }],
  ["an error without an end", { status: 500, body: "x".repeat(100_000) }, { code: "UNAVAILABLE", retryable: true }],
  ["no JSON where a page belongs", { status: 200, body: '{"Blocks":[' }, { code: "UNEXPECTED", retryable: false }],
];
test.for(refusals)("%s is understood, and asked for once", async ([, { status, type, body }, expected]) => {
  let asked = 0;
  await using far = await peer((_, response) => {
    asked++;
    response.writeHead(status, type === undefined ? {} : { "x-amzn-errortype": type }).end(body);
  });
  await expect(far.connection.direct(page, about)).rejects.toMatchObject(expected);
  expect(asked).toBe(1);
});

test("a refusal that comes before the block was sent is the call's error, and no secret is in it", async () => {
  await using far = await peer((_, response) => {
    const Message = `The request signature we calculated does not match: x-amz-security-token:${keys.sessionToken}`;
    response.writeHead(403, { "x-amzn-errortype": "InvalidSignatureException" }).end(JSON.stringify({ Message }));
  });
  const put = putSnapshotBlock({ snapshotId: "snap-1", index: 0, data: Buffer.alloc(8 * 2 ** 20), checksum: "c" });
  const error: unknown = await far.connection.direct(put, about).catch((each: unknown) => each);
  expect(error).toMatchObject({ code: "AUTH", retryable: false });
  expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/a very secret/);
});

test("without an endpoint in the options blocks go where the SDK would send them", async () => {
  await using far = await peer((request, response) => response.end(JSON.stringify({ NextToken: request.url })));
  vi.stubEnv("AWS_ENDPOINT_URL_EBS", `${far.endpoint}/below`);
  try {
    const { endpoint: _, ...options } = far.options;
    await using connection = await AwsConnection.open(options);
    const { NextToken } = await connection.direct(page, about);
    expect(NextToken).toBe("/below/snapshots/snap-1/blocks?maxResults=100");
  } finally {
    vi.unstubAllEnvs();
  }
});

test("AWS's own endpoints are those of the Region's partition", async () => {
  for (const [region, host] of [
    ["eu-central-1", "ebs.eu-central-1.amazonaws.com"],
    ["cn-north-1", "ebs.cn-north-1.amazonaws.com.cn"],
  ] as const) {
    const options: AwsOptions = { region, credentials: keys };
    const clients = makeClients(options, settingsOf(options), new Credentials(async () => keys));
    expect((await clients.blockEndpoint()).href).toBe(`https://${host}/`);
    clients.destroy();
  }
});

/** A server that speaks for itself: `answer` is called with each connection's bytes as they come. */
async function rawPeer(
  answer: (socket: Socket, bytes: Buffer, connection: number) => void,
  more: Partial<AwsOptions> = {},
) {
  const sockets = new Set<Socket>();
  const server = createTcpServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    const number = sockets.size;
    socket.on("error", () => {});
    socket.on("data", (bytes) => answer(socket, bytes, number));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const connection = await AwsConnection.open({
    region: "us-east-1",
    endpoint: { ebs: endpoint },
    credentials: { ...keys, accountId: "111111111111" },
    ...more,
  });
  return {
    connection,
    sockets,
    [Symbol.asyncDispose]: async () => {
      await connection[Symbol.asyncDispose]();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const emptyPage = '{"BlockSize":524288,"Blocks":[]}';
const pageAnswer = `HTTP/1.1 200 OK\r\nContent-Length: ${emptyPage.length}\r\n\r\n${emptyPage}`;
const passing = { code: "UNAVAILABLE", retryable: true };

const unreadable: [string, string][] = [
  ["what is no HTTP", "SSH-2.0-OpenSSH_9.2p1\r\n\r\n"],
  ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"],
  ["a head without an end", `HTTP/1.1 200 OK\r\nA: ${"b".repeat(100_000)}`],
  ["chunks of nonsense", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n"],
];
test.for(unreadable)("%s is told as passing, and its connection given up", async ([, text]) => {
  await using far = await rawPeer((socket, _, number) => socket.write(number === 1 ? text : pageAnswer));
  await expect(far.connection.direct(page, about)).rejects.toMatchObject(passing);
  expect(entriesOf(await far.connection.direct(page, about))).toEqual([]);
  expect(far.sockets.size).toBe(2);
});

test("an answer that comes byte by byte is waited for no longer than any other", async () => {
  const timers = new Set<NodeJS.Timeout>();
  await using far = await rawPeer(
    (socket) => {
      let at = 0;
      const timer = setInterval(() => socket.write(pageAnswer.charAt(at++ % pageAnswer.length)), 20);
      timers.add(timer);
    },
    { timeouts: { blockMs: 300 } },
  );
  await expect(far.connection.direct(page, about)).rejects.toMatchObject(passing);
  for (const timer of timers) clearInterval(timer);
});

test("more than was asked for never becomes the answer to another request", async () => {
  const other = pageAnswer.replace("524288", "111111");
  await using far = await rawPeer((socket, _, number) => socket.write(number === 1 ? pageAnswer + other : pageAnswer));
  for (let turn = 0; turn < 3; turn++) expect((await far.connection.direct(page, about)).BlockSize).toBe(524_288);
  expect(far.sockets.size).toBe(2);
});

test("what comes unasked on a kept connection ends it", async () => {
  await using far = await rawPeer((socket, _, number) => {
    socket.write(pageAnswer);
    if (number === 1) setTimeout(() => socket.write(pageAnswer.replace("524288", "111111")), 30);
  });
  await far.connection.direct(page, about);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect((await far.connection.direct(page, about)).BlockSize).toBe(524_288);
  expect(far.sockets.size).toBe(2);
});

test("a block put on a connection that the far side has half closed is told as passing, or goes over another", async () => {
  const created = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";
  await using far = await rawPeer((socket, bytes, number) => {
    if (number > 1) return void (bytes.byteLength > 0 && socket.write(created));
    // It answers before it has read all, and says that it is through without saying so in the answer.
    socket.write(created);
    socket.end();
  });
  const data = randomBlock();
  const put = putSnapshotBlock({ snapshotId: "snap-1", index: 0, data, checksum: "c" });
  for (let turn = 0; turn < 4; turn++) {
    const outcome = await far.connection.direct(put, about).catch((error: unknown) => error);
    if (outcome !== undefined) expect(outcome).toMatchObject(passing);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await far.connection.direct(put, about);
});

test("calls that wait for a connection leave when they are given up, and the others are served", async () => {
  const held: (() => void)[] = [];
  await using far = await peer((_, response) => void held.push(() => response.end("{}")), { concurrency: 1 });
  const first = Array.from({ length: 5 }, () => far.connection.direct(page, about));
  const controller = new AbortController();
  const waiting = far.connection.direct(page, { ...about, signal: controller.signal });
  const last = far.connection.direct(page, about);
  await vi.waitFor(() => expect(held.length).toBe(5));
  const reason = new Error("enough");
  controller.abort(reason);
  await expect(waiting).rejects.toBe(reason);
  for (let turn = 0; turn < 6; turn++) {
    await vi.waitFor(() => expect(held.length).toBeGreaterThan(0));
    held.shift()!();
  }
  await Promise.all([...first, last]);
  expect(far.sockets.size).toBe(5);
});

test("a session token that would end its header is refused, and not told", async () => {
  await using far = await peer((_, response) => response.end("{}"), {
    credentials: { ...keys, sessionToken: "secret\r\nx-evil: 1", accountId: "111111111111" },
  });
  const error: unknown = await far.connection.direct(page, about).catch((each: unknown) => each);
  expect(error).toMatchObject({ message: /x-amz-security-token/ });
  expect(inspect(error, { depth: 20, showHidden: true })).not.toContain("x-evil");
});
