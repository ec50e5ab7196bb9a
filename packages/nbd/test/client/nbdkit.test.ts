import { isProviderError } from "@diskferry/core/provider";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { expect, it } from "vitest";
import { oldBytesPerCall } from "../../../../test/old-space.ts";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { startNbdkit } from "../../../../test/servers.ts";
import type { NbdClient } from "../../src/client/client.ts";
import { connectNbd, listNbdExports } from "../../src/client/connect.ts";
import { collect } from "./scripted-server.ts";

const MiB = 1 << 20;

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

/** nbdkit's pattern plugin: every eight bytes hold their own offset, big-endian. */
function isPattern(offset: number, bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 8 <= bytes.byteLength; at += 8) {
    const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
    if (value !== offset + at) return false;
  }
  return true;
}

async function readAll(client: NbdClient): Promise<Uint8Array> {
  const all = new Uint8Array(client.size);
  const reads = [];
  for (let at = 0; at < client.size; at += MiB)
    reads.push(client.read(at, all.subarray(at, Math.min(at + MiB, client.size))));
  await Promise.all(reads);
  return all;
}

describeWithPeers(["nbdkit"], "the client with nbdkit", () => {
  it("leaves nothing of a read or write in old memory", async () => {
    await using server = await startNbdkit(["memory", "1M"]);
    await using client = await connectNbd(server.uri);
    const bytes = new Uint8Array(512);
    const { signal } = new AbortController();
    expect(await oldBytesPerCall(() => client.read(0, new Uint8Array(512), { signal }))).toBeLessThan(200);
    expect(await oldBytesPerCall(() => client.write(0, bytes, { signal }))).toBeLessThan(200);
  });

  for (const transport of ["unix", "tcp"] as const) {
    for (const [replies, args] of [
      ["structured", []],
      ["simple", ["--no-sr"]],
    ] as const) {
      it(`reads a pattern byte for byte over ${transport} with ${replies} replies`, async () => {
        await using server = await startNbdkit([...args, "pattern", "size=70M"], { transport });
        await using client = await connectNbd(server.uri);
        expect(client).toMatchObject({ size: 70 * MiB, replies, readOnly: true, tls: false });
        const next = randomFrom(seedOf(5));
        const reads = Array.from({ length: 60 }, async () => {
          const offset = 8 * Math.floor((next() * 30 * MiB) / 8);
          const into = new Uint8Array(8 * Math.ceil((next() * 3 * MiB) / 8));
          await client.read(offset, into);
          expect(isPattern(offset, into)).toBe(true);
        });
        await Promise.all(reads);
        // Longer than any one request may be.
        const long = new Uint8Array(client.size);
        await client.read(0, long);
        expect(isPattern(0, long)).toBe(true);
      });
    }
  }

  it("reads pattern beyond 4 GiB", async () => {
    await using server = await startNbdkit(["pattern", "size=7E"]);
    const failure = await errorOf(connectNbd(server.uri));
    expect(isProviderError(failure) && failure.message).toMatch(/8 PiB/);
    await using large = await startNbdkit(["pattern", "size=8000T"]);
    await using client = await connectNbd(large.uri);
    for (const offset of [2 ** 32 - 4096, 2 ** 45 + 8, client.size - 8192]) {
      const into = new Uint8Array(8192);
      await client.read(offset, into);
      expect(isPattern(offset, into)).toBe(true);
    }
  });

  it("writes, zeroes, trims and flushes, and reads back what it wrote", async () => {
    await using server = await startNbdkit(["memory", "16M"]);
    await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation"] });
    const disk = randomBytes(16 * MiB, 6);
    const buffer = new Uint8Array(16 * MiB + 32);
    buffer.set(disk, 32);
    await client.write(0, buffer.subarray(32), { headroom: true });
    await client.zero(2 * MiB, MiB);
    await client.trim(4 * MiB, MiB, { fua: true });
    await client.write(8 * MiB, disk.subarray(0, 512), { fua: true });
    await client.flush();
    disk.fill(0, 2 * MiB, 3 * MiB).fill(0, 4 * MiB, 5 * MiB);
    disk.copyWithin(8 * MiB, 0, 512);
    expect(Buffer.compare(await readAll(client), disk)).toBe(0);
    const extents = await collect(client.blockStatus(0, client.size));
    expect(
      extents.filter(({ flags }) => flags["base:allocation"] === 3).map(({ offset, length }) => [offset, length]),
    ).toEqual([
      [2 * MiB, MiB],
      [4 * MiB, MiB],
    ]);
    expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(client.size);
  });

  it("writes to a file, sparsely, and what is flushed is in the file", async () => {
    const directory = await mkdtemp(join(tmpdir(), "diskferry-"));
    const file = join(directory, "disk");
    await writeFile(file, randomBytes(4 * MiB, 7));
    {
      await using server = await startNbdkit(["file", file]);
      await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation"] });
      expect(client.flags).toMatchObject({
        canFlush: true,
        canFua: true,
        canZero: true,
        canTrim: true,
        canMultiConn: true,
      });
      await client.zero(0, 3 * MiB);
      await client.flush();
      const [first] = await collect(client.blockStatus(0, client.size));
      expect(first).toEqual({ offset: 0, length: 3 * MiB, flags: { "base:allocation": 3 } });
    }
    expect((await stat(file)).blocks * 512).toBeLessThanOrEqual(1.1 * MiB);
    await rm(directory, { recursive: true });
  });

  it("has a range cached in requests that the server takes, and says where it cannot be", async () => {
    const directory = await mkdtemp(join(tmpdir(), "diskferry-"));
    const log = join(directory, "log");
    {
      // The log is of what the filter above it reads in order to cache it.
      const filters = ["--filter=nocache", "--filter=log"];
      await using server = await startNbdkit([...filters, "pattern", "100M", "cachemode=emulate", `logfile=${log}`]);
      await using client = await connectNbd(server.uri);
      expect(client.flags.canCache).toBe(true);
      await client.cache(4096, 65 * MiB);
    }
    const reads = (await readFile(log, "utf8")).matchAll(/ Read id=\d+ offset=(\w+) count=(\w+)/g);
    expect([...reads].map(([, offset, count]) => [Number(offset), Number(count)])).toEqual([
      [4096, 32 * MiB],
      [4096 + 32 * MiB, 32 * MiB],
      [4096 + 64 * MiB, MiB],
    ]);
    await rm(directory, { recursive: true });
    await using without = await startNbdkit(["--filter=nocache", "pattern", "1M", "cachemode=none"]);
    await using client = await connectNbd(without.uri);
    expect(client.flags.canCache).toBe(false);
    expect(await errorOf(client.cache(0, 512))).toMatchObject({ code: "UNSUPPORTED" });
  });

  it("lists exports, and names the one that is missing", async () => {
    const script = [
      "eval",
      'list_exports=echo INTERLEAVED; printf "a\\nfirst\\nb b\\nsecond\\n"',
      'open=if [ "$3" = "nope" ]; then echo "EPERM no such disk" >&2; exit 1; fi',
      "get_size=echo 4096",
      "pread=dd if=/dev/zero count=$3 bs=1 2>/dev/null",
    ];
    await using server = await startNbdkit(script);
    expect(await listNbdExports(server.uri)).toEqual([
      { name: "a", description: "first" },
      { name: "b b", description: "second" },
    ]);
    await using client = await connectNbd(server.uri, { exportName: "b b" });
    expect(client.uri).toContain("/b%20b?");
    await client.read(0, new Uint8Array(512));
    const failure = await errorOf(connectNbd(server.uri, { exportName: "nope" }));
    expect(isProviderError(failure) && failure.code).toBe("NOT_FOUND");
  });

  it("meets the EIO of one request without losing the others or the session", async () => {
    await using server = await startNbdkit([
      "--filter=error",
      "pattern",
      "size=64M",
      "error-pread=EIO",
      "error-pread-rate=30%",
    ]);
    await using client = await connectNbd(server.uri);
    let failed = 0;
    const reads = Array.from({ length: 200 }, async (_, index) => {
      const into = new Uint8Array(65536);
      const failure = await errorOf(client.read(index * 65536, into));
      if (failure === undefined) expect(isPattern(index * 65536, into)).toBe(true);
      else {
        failed++;
        expect(failure).toMatchObject({ code: "UNEXPECTED", retryable: true, cause: { code: "EIO" } });
      }
    });
    await Promise.all(reads);
    expect(failed).toBeGreaterThan(20);
    expect(failed).toBeLessThan(120);
  });

  it("tells ENOSPC by name", async () => {
    await using server = await startNbdkit([
      "--filter=error",
      "memory",
      "1M",
      "error-pwrite=ENOSPC",
      "error-pwrite-rate=100%",
    ]);
    await using client = await connectNbd(server.uri);
    const failure = await errorOf(client.write(0, new Uint8Array(512)));
    expect(failure).toMatchObject({ code: "UNEXPECTED", retryable: false, cause: { code: "ENOSPC" } });
    await client.flush();
  });

  it("keeps to the block sizes that the server demands", async () => {
    const policy = [
      "blocksize-minimum=4096",
      "blocksize-preferred=65536",
      "blocksize-maximum=131072",
      "blocksize-error-policy=error",
    ];
    await using server = await startNbdkit(["--filter=blocksize-policy", "memory", "4M", ...policy]);
    await using client = await connectNbd(server.uri);
    expect(client).toMatchObject({ minimumBlock: 4096, preferredBlock: 65536, maximumPayload: 131072 });
    const disk = randomBytes(4 * MiB, 8);
    await client.write(0, disk);
    const into = new Uint8Array(4 * MiB);
    await client.read(0, into);
    expect(Buffer.compare(into, disk)).toBe(0);
    expect(await errorOf(client.read(512, new Uint8Array(4096)))).toBeInstanceOf(RangeError);
  });

  it("spreads over connections only where the server says that it is safe", async () => {
    await using safe = await startNbdkit(["--filter=multi-conn", "memory", "8M", "multi-conn-mode=plugin"]);
    await using unsafe = await startNbdkit(["--filter=multi-conn", "memory", "8M", "multi-conn-mode=disable"]);
    await using readOnly = await startNbdkit(["-r", "--filter=multi-conn", "pattern", "8M", "multi-conn-mode=disable"]);
    const options = { connections: 4 };
    await using spread = await connectNbd(safe.uri, options);
    await using single = await connectNbd(unsafe.uri, { ...options, forceConnections: true });
    await using careful = await connectNbd(readOnly.uri, options);
    await using forced = await connectNbd(readOnly.uri, { ...options, forceConnections: true });
    expect([spread, single, careful, forced].map(({ connections }) => connections)).toEqual([4, 1, 1, 4]);
    const disk = randomBytes(8 * MiB, 9);
    const writes = [];
    for (let at = 0; at < disk.byteLength; at += 65536) writes.push(spread.write(at, disk.subarray(at, at + 65536)));
    await Promise.all(writes);
    await spread.flush();
    expect(Buffer.compare(await readAll(spread), disk)).toBe(0);
    expect(isPattern(0, await readAll(forced))).toBe(true);
  });

  it("knows what a server without zeroes and extents cannot do", async () => {
    await using server = await startNbdkit(["--filter=nozero", "--filter=noextents", "memory", "1M"]);
    await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation"] });
    expect(client.flags.canZero).toBe(false);
    expect(await errorOf(client.zero(0, 512))).toMatchObject({ code: "UNSUPPORTED" });
    if (client.metaContexts.length > 0) {
      expect(await collect(client.blockStatus(0, MiB))).toEqual([
        { offset: 0, length: MiB, flags: { "base:allocation": 0 } },
      ]);
    }
  });

  it("waits out a slow server, and gives up on one slower than the deadline", async () => {
    await using server = await startNbdkit(["--filter=delay", "memory", "1M", "rdelay=200ms"]);
    await using patient = await connectNbd(server.uri);
    await Promise.all(Array.from({ length: 16 }, (_, index) => patient.read(index * 4096, new Uint8Array(4096))));
    await using hasty = await connectNbd(server.uri, { requestTimeoutMs: 40 });
    expect(await errorOf(hasty.read(0, new Uint8Array(4096)))).toMatchObject({ code: "UNAVAILABLE", retryable: true });
    await patient.read(0, new Uint8Array(512));
  });

  it("finds a server gone when it exits, and says so to every call", async () => {
    await using server = await startNbdkit(["--filter=delay", "memory", "1M", "wdelay=10"]);
    await using client = await connectNbd(server.uri);
    const write = errorOf(client.write(0, new Uint8Array(512)));
    await client.read(0, new Uint8Array(512));
    server.kill("SIGKILL");
    expect(await write).toMatchObject({ code: "UNAVAILABLE", retryable: true });
    expect(await errorOf(client.flush())).toMatchObject({ code: "UNAVAILABLE" });
    await using again = await startNbdkit([
      "--filter=exitwhen",
      "memory",
      "1M",
      `exit-when-file-created=${server.directory}-x`,
    ]);
    await using other = await connectNbd(again.uri);
    await other.write(0, new Uint8Array(512));
  });

  it("goes the EXPORT_NAME way with a server that is newstyle but not fixed", async () => {
    await using server = await startNbdkit(["--mask-handshake=0", "pattern", "1M"]);
    await using client = await connectNbd(server.uri);
    expect(client).toMatchObject({ size: MiB, replies: "simple" });
    const into = new Uint8Array(MiB);
    await client.read(0, into);
    expect(isPattern(0, into)).toBe(true);
    expect(await errorOf(listNbdExports(server.uri))).toMatchObject({ code: "UNSUPPORTED" });
    expect(await errorOf(connectNbd(server.uri, { tls: {} }))).toMatchObject({ code: "UNSUPPORTED" });
  });

  it("refuses an oldstyle server by name", async () => {
    await using server = await startNbdkit(["--oldstyle", "pattern", "1M"]);
    const failure = await errorOf(connectNbd(server.uri));
    expect(failure).toMatchObject({ code: "UNSUPPORTED" });
    expect(String(failure)).toContain("oldstyle");
  });

  it("works inside a worker thread, into memory that is shared with it", async () => {
    await using server = await startNbdkit(["pattern", "4M"]);
    const shared = new SharedArrayBuffer(4 * MiB);
    const module = new URL("../../src/client/connect.ts", import.meta.url).href;
    const body = `
      import { workerData, parentPort } from "node:worker_threads";
      const { connectNbd } = await import(workerData.module);
      const client = await connectNbd(workerData.uri);
      const into = new Uint8Array(workerData.shared);
      for (let at = 0; at < into.byteLength; at += 65536) await client.read(at, into.subarray(at, at + 65536));
      await client.close();
      parentPort.postMessage("done");`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(body)}`), {
      workerData: { module, uri: server.uri, shared },
      execArgv: ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning"],
    });
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    await worker.terminate();
    expect(isPattern(0, new Uint8Array(shared))).toBe(true);
  });
});
