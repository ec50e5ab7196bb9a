import { expect, test } from "vitest";
import { ProviderError } from "@diskferry/core/provider";
import { command, errorNumber, option, optionReply } from "../../src/protocol.ts";
import type { NbdBackend } from "../../src/server/backend.ts";
import { memoryBackend } from "../../src/server/memory-backend.ts";
import { serveNbd } from "../../src/server/serve-nbd.ts";
import { closeAfterEach, folder, gate, serve, until } from "./fixture.ts";
import { errorOf, infoRequest, RawClient } from "./raw-client.ts";

closeAfterEach();

/** A disk whose writes wait until they are told to go on. */
function slowDisk(): { backend: NbdBackend; writes: string[]; go: () => void; signals: AbortSignal[] } {
  const writes: string[] = [];
  const waiting: (() => void)[] = [];
  const signals: AbortSignal[] = [];
  const backend: NbdBackend = {
    ...memoryBackend(65_536),
    async write(offset, _data, { signal }) {
      writes.push(`begin ${offset}`);
      signals.push(signal);
      await new Promise<void>((resolve, reject) => {
        waiting.push(resolve);
        signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      });
      writes.push(`end ${offset}`);
    },
  };
  return { backend, writes, signals, go: () => waiting.shift()?.() };
}

test("a newer epoch closes older connections after what is in flight has ended, and lets no later write through", async () => {
  const { backend, writes, go } = slowDisk();
  const server = await serve({ exports: { disk: { backend }, other: { backend } }, epochs: true });
  const old = await RawClient.transmitting(server.address, { name: "disk@6" });
  const unstated = await RawClient.transmitting(server.address, { name: "disk" });
  const other = await RawClient.transmitting(server.address, { name: "other@6" });
  expect(server.connections().map(({ exportName, epoch }) => [exportName, epoch])).toEqual([
    ["disk", 6],
    ["disk", undefined],
    ["other", 6],
  ]);
  old.request(command.write, { offset: 512, payload: Buffer.alloc(512) });
  await until("the write to begin", () => writes.length === 1);
  let fenced = false;
  const fence = server.fence("disk", 7).then(() => {
    fenced = true;
    writes.push("fenced");
  });
  old.request(command.write, { offset: 1024, payload: Buffer.alloc(512) });
  await unstated.closed();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(fenced).toBe(false);
  go();
  await fence;
  // What was in flight is answered before the connection goes.
  expect(errorOf(await old.reply())).toBe(0);
  await old.closed();
  expect(writes).toEqual(["begin 512", "end 512", "fenced"]);

  const refused = await RawClient.greeted(server.address);
  for (const name of ["disk@6", "disk"]) {
    const answer = (await refused.askAll(option.go, infoRequest(name, [3]))).at(-1);
    expect(answer?.type).toBe(optionReply.policy);
    expect(answer?.data.toString()).toContain("fenced at epoch 7");
  }
  const current = await RawClient.transmitting(server.address, { name: "disk@7" });
  await server.fence("disk", 7);
  current.request(command.read, { length: 512 });
  expect(errorOf(await current.reply(512))).toBe(0);
  expect(other.ended).toBe(false);
  await expect(server.fence("disk", 6)).rejects.toMatchObject({ code: "FENCED" });
  for (const client of [refused, current, other]) client.destroy();
});

test("a fence that comes while a client shakes hands keeps that client out", async () => {
  const { backend, writes } = slowDisk();
  const entered = gate();
  const goOn = gate();
  const server = await serve({
    exports: async () => {
      entered.open();
      await goOn.opened;
      return { backend };
    },
    epochs: true,
  });
  const client = await RawClient.greeted(server.address);
  client.sendOption(option.go, infoRequest("disk@1", [3]));
  await entered.opened;
  await server.fence("disk", 2);
  goOn.open();
  expect((await client.answer()).type).toBe(optionReply.policy);
  client.request(command.write, { payload: Buffer.alloc(512) });
  await client.closed();
  expect(writes).toEqual([]);
});

test("epochs that were over before a restart stay over", async () => {
  const backend = memoryBackend(512);
  const server = await serve({ exports: { disk: { backend } }, epochs: { oldest: new Map([["disk", 5]]) } });
  const client = await RawClient.greeted(server.address);
  expect((await client.ask(option.go, infoRequest("disk@4", [3]))).type).toBe(optionReply.policy);
  expect((await client.askAll(option.go, infoRequest("disk@5", [3]))).at(-1)?.type).toBe(optionReply.acknowledge);
  client.destroy();
});

test("without epochs a name is taken as it is, and fencing is the caller's mistake", async () => {
  const server = await serve({ exports: { "disk@1": { backend: memoryBackend(512) } } });
  const client = await RawClient.transmitting(server.address, { name: "disk@1" });
  await expect(server.fence("disk", 1)).rejects.toThrow(TypeError);
  client.destroy();
});

test("authorize decides who opens and sees what; only a ProviderError's words reach the client", async () => {
  const server = await serve({
    exports: { mine: { backend: memoryBackend(512) }, yours: { backend: memoryBackend(512) } },
    epochs: true,
    authorize: async ({ exportName, epoch }) => {
      await Promise.resolve();
      if (exportName === "yours") throw new ProviderError("DENIED", "ask the owner");
      if (epoch === 3) throw new Error("secret reason");
    },
  });
  const client = await RawClient.greeted(server.address);
  const list = await client.askAll(option.list);
  expect(list.slice(0, -1).map(({ data }) => data.toString("utf8", 4, 8))).toEqual(["mine"]);
  const refused = await client.ask(option.go, infoRequest("yours"));
  expect([refused.type, refused.data.toString()]).toEqual([optionReply.policy, "ask the owner"]);
  const third = await client.ask(option.info, infoRequest("mine@3"));
  expect(third.type).toBe(optionReply.policy);
  expect(third.data.toString()).not.toContain("secret");
  expect((await client.askAll(option.go, infoRequest("mine@4"))).at(-1)?.type).toBe(optionReply.acknowledge);
  client.destroy();
});

test("close lets what is under way end, refuses newcomers and frees the socket's name", async () => {
  const { backend, writes, go } = slowDisk();
  const path = `${await folder()}/socket`;
  const server = await serveNbd({ listen: { path }, exports: { "": { backend } } });
  const client = await RawClient.transmitting(server.address);
  const shaking = await RawClient.greeted(server.address);
  client.request(command.write, { payload: Buffer.alloc(512) });
  await until("the write to begin", () => writes.length === 1);
  const closing = server.close();
  await shaking.closed();
  await expect(RawClient.connect(server.address)).rejects.toThrow(Error);
  go();
  expect(errorOf(await client.reply())).toBe(0);
  await closing;
  await client.closed();
  expect(server.connections()).toEqual([]);
  const again = await serveNbd({ listen: { path }, exports: {} });
  await again.close();
});

test("close ends by force after its deadline or when its signal is aborted, and the backend is told", async () => {
  for (const how of ["deadline", "signal"]) {
    const { backend, writes, signals } = slowDisk();
    const path = `${await folder()}/socket`;
    const server = await serveNbd({ listen: { path }, exports: { "": { backend } } });
    const client = await RawClient.transmitting(server.address);
    client.request(command.write, { payload: Buffer.alloc(512) });
    await until("the write to begin", () => writes.length === 1);
    const abort = new AbortController();
    const closing = server.close(how === "deadline" ? { deadlineMs: 20 } : { signal: abort.signal });
    abort.abort();
    await closing;
    await client.closed();
    expect(signals[0]?.aborted).toBe(true);
  }
});

test("a client's loss aborts its reads but never a write that was begun", async () => {
  const reads: AbortSignal[] = [];
  const { backend, writes, signals, go } = slowDisk();
  const server = await serve({
    exports: {
      "": {
        backend: {
          ...backend,
          read: (_offset, _into, { signal }) => {
            reads.push(signal);
            return new Promise((_resolve, reject) => {
              signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
            });
          },
        },
      },
    },
  });
  const client = await RawClient.transmitting(server.address);
  client.request(command.read, { length: 512 });
  client.request(command.write, { payload: Buffer.alloc(512) });
  await until("both to begin", () => writes.length === 1 && reads.length === 1);
  client.destroy();
  await until("the read to be aborted", () => reads[0]?.aborted === true);
  expect(signals[0]?.aborted).toBe(false);
  go();
  await until("the write to end", () => writes.includes("end 0"));
  await until("the connection to be forgotten", () => server.connections().length === 0);
});

test("mistakes in the options are named before anything listens", async () => {
  const listen = { port: 0 };
  const backend = memoryBackend(1024);
  await expect(serveNbd({ listen, exports: { a: { backend: { ...backend, blockSize: 3 } } } })).rejects.toThrow(
    /"a".*blockSize/,
  );
  await expect(serveNbd({ listen, exports: { a: { backend: { ...backend, size: -1 } } } })).rejects.toThrow(RangeError);
  await expect(serveNbd({ listen, exports: {}, limits: { connections: 0 } })).rejects.toThrow(RangeError);
  await expect(serveNbd({ listen, exports: {}, limits: { payload: 1 } })).rejects.toThrow(RangeError);
  await expect(serveNbd({ listen: { activation: true }, exports: {} })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
  });
  const server = await serve({ exports: {} });
  if (!("path" in server.address)) throw new Error("no path");
  await expect(serveNbd({ listen: server.address, exports: {} })).rejects.toMatchObject({ code: "IN_USE" });
});

test("a client that closes only its sending side still gets its answers", async () => {
  const { backend, go } = slowDisk();
  const server = await serve({ exports: { "": { backend } } });
  if (!("path" in server.address)) throw new Error("no path");
  const client = await RawClient.transmitting(server.address);
  client.request(command.write, { payload: Buffer.alloc(512) });
  client.request(command.write, { offset: 65_536, payload: Buffer.alloc(512) });
  client.socket.end();
  expect(errorOf(await client.reply())).toBe(errorNumber.ENOSPC);
  go();
  expect(errorOf(await client.reply())).toBe(0);
});
