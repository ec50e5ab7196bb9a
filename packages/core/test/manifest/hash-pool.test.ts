import { spawnSync } from "node:child_process";
import { once } from "node:events";
import type { Worker } from "node:worker_threads";
import { describe, expect, it, onTestFinished } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { digester } from "../../src/manifest/digest.ts";
import { hashPool } from "../../src/manifest/hash-pool.ts";
import { leafDigests } from "../../src/manifest/leaf-digests.ts";

describe.each(["blake3", "sha256"] as const)("a pool of hashing threads for %s", (algorithm) => {
  it("gives the digests of every leaf of blocks of any memory, length and leaf, however many wait", async () => {
    const seed = seedOf(5);
    const random = randomFrom(seed);
    await using pool = hashPool(algorithm, { threads: 2 });
    const digest = digester(algorithm);
    await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const length = Math.floor(random() * 20_000);
        const memory = index % 3 === 0 ? new SharedArrayBuffer(30_000) : new ArrayBuffer(30_000);
        const block = new Uint8Array(memory, 100, length);
        block.set(randomBytes(length, seed + index));
        const leaf = [100, 512, 4096, 65_536][index % 4]!;
        const expected = leafDigests(digest, block, leaf);
        expect(Buffer.compare(await pool.hash(block, leaf), expected), `block ${index}`).toBe(0);
        // The caller's block is neither moved away nor changed.
        expect(block.byteLength).toBe(length);
      }),
    );
  });
});

describe("a pool of hashing threads", () => {
  it("rejects what was aborted and goes on with the rest", async () => {
    await using pool = hashPool("sha256", { threads: 1 });
    const stop = new AbortController();
    const block = new Uint8Array(new SharedArrayBuffer(4 * 1024 * 1024));
    const calls = Array.from({ length: 60 }, (_, index) =>
      pool.hash(block, block.length, index % 2 === 0 ? { signal: stop.signal } : {}),
    );
    stop.abort(new Error("enough"));
    for (const [index, result] of (await Promise.allSettled(calls)).entries()) {
      expect(result.status, String(index)).toBe(index % 2 === 0 ? "rejected" : "fulfilled");
    }
    await expect(pool.hash(block, 512, { signal: stop.signal })).rejects.toThrow("enough");
  });

  it("rejects what is under way when it is closed, and what comes later", async () => {
    const pool = hashPool("sha256", { threads: 2 });
    const block = new Uint8Array(new SharedArrayBuffer(4 * 1024 * 1024));
    const calls = Array.from({ length: 50 }, () => pool.hash(block, block.length));
    const settled = Promise.allSettled(calls);
    await pool[Symbol.asyncDispose]();
    expect((await settled).filter(({ status }) => status === "rejected").length).toBeGreaterThan(0);
    await expect(pool.hash(block, 512)).rejects.toThrow("closed");
  });

  it("hashes on the calling thread until a thread of its own runs, and then leaves that to it", async () => {
    const block = new Uint8Array(new SharedArrayBuffer(1 << 20));
    const running: Promise<unknown>[] = [];
    let up = 0;
    let answers = 0;
    const seen = (worker: Worker): void => {
      running.push(once(worker, "online").then(() => up++));
      worker.on("message", () => answers++);
    };
    process.on("worker", seen);
    onTestFinished(() => void process.off("worker", seen));
    await using pool = hashPool("sha256", { threads: 2 });
    const expected = leafDigests(digester("sha256"), block, 1 << 16);
    expect(Buffer.compare(await pool.hash(block, 1 << 16), expected)).toBe(0);
    expect({ threads: running.length, up, answers }).toEqual({ threads: 1, up: 0, answers: 0 });
    await Promise.all(running);
    expect(Buffer.compare(await pool.hash(block, 1 << 16), expected)).toBe(0);
    expect({ threads: running.length, up, answers }).toEqual({ threads: 1, up: 1, answers: 1 });
  });

  it("says once where a thread ended before it ran, and tries again", async () => {
    const ended: Promise<unknown>[] = [];
    const end = (worker: Worker): void => void ended.push(once(worker, "exit"), worker.terminate());
    process.on("worker", end);
    onTestFinished(() => void process.off("worker", end));
    await using pool = hashPool("sha256", { threads: 1 });
    await pool.hash(new Uint8Array(1), 1);
    await Promise.all(ended);
    process.off("worker", end);
    await expect(pool.hash(new Uint8Array(1), 1)).rejects.toMatchObject({ code: "UNEXPECTED" });
    expect(await pool.hash(new Uint8Array(1), 1)).toHaveLength(32);
  });

  it("lets an idle process end, and keeps a busy one until the answer", () => {
    const module = new URL("../../src/manifest/hash-pool.ts", import.meta.url).href;
    const script = `
      import { hashPool } from ${JSON.stringify(module)};
      const pool = hashPool("sha256");
      pool.hash(new Uint8Array(new SharedArrayBuffer(8 << 20)), 1 << 20).then((digests) => console.log(digests.length));
    `;
    const argv = ["--conditions=diskferry-source", "--input-type=module", "--eval", script];
    const { stdout, status } = spawnSync(process.execPath, argv, { encoding: "utf8", timeout: 30_000 });
    expect({ stdout, status }).toEqual({ stdout: "256\n", status: 0 });
  });

  it("refuses a leaf and a number of threads that are none", async () => {
    expect(() => hashPool("sha256", { threads: 0 })).toThrow(RangeError);
    await using pool = hashPool("sha256");
    await expect(pool.hash(new Uint8Array(1), 0)).rejects.toThrow(RangeError);
  });
});
