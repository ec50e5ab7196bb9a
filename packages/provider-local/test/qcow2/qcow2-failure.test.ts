import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { LossyFiles } from "./lossy-files.ts";
import { temporaryFolder } from "./qemu.ts";

async function* none(): AsyncGenerator<never> {}

describe("writing qcow2 when things fail", () => {
  it("says that there is no space, keeps what was flushed, and goes on when there is", async () => {
    const files = new LossyFiles();
    const size = 64 * 65536;
    await createQcow2({ path: "/disk.qcow2", size, files });
    const written = Buffer.from(randomBytes(size, 1));
    const half = size / 2;
    {
      await using writer = await openQcow2Writer("/disk.qcow2", { run: "one", files });
      await writer.write(0, written.subarray(0, half));
      await writer.flush();
      files.space = files.bytes("/disk.qcow2").byteLength + 300_000;
      await expect(writer.write(half, written.subarray(half))).rejects.toMatchObject({
        code: "UNAVAILABLE",
        retryable: false,
      });
    }
    expect(await checkQcow2("/disk.qcow2", { files })).toMatchObject({ corruptions: 0, dirty: true });
    files.space = Infinity;
    await using writer = await openQcow2Writer("/disk.qcow2", { run: "one", files });
    const back = Buffer.alloc(half);
    await writer.read(0, back);
    expect(back.equals(written.subarray(0, half))).toBe(true);
    await writer.write(half, written.subarray(half));
    await writer.commit({ written: none() });
    expect(await checkQcow2("/disk.qcow2", { files })).toMatchObject({ leaks: 0, corruptions: 0, dirty: false });
  });

  it("takes a writer whose flush failed for lost: nothing more is promised by it", async () => {
    const files = new LossyFiles();
    await createQcow2({ path: "/disk.qcow2", size: 64 * 65536, files });
    const writer = await openQcow2Writer("/disk.qcow2", { run: "one", files });
    await writer.write(0, new Uint8Array(65536).fill(1));
    files.failingSyncs = 1;
    await expect(writer.flush()).rejects.toThrow("input/output error");
    await expect(writer.flush()).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: false });
    await expect(writer.commit({ written: none() })).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await writer[Symbol.asyncDispose]();
    await using again = await openQcow2Writer("/disk.qcow2", { run: "one", files });
    await again.commit({ written: none() });
  });

  it("writes refcounts beside the old ones, which count until the header names the new", async () => {
    const files = new LossyFiles();
    await createQcow2({ path: "/disk.qcow2", size: 64 * 65536, files });
    const places: bigint[] = [];
    for (let run = 0; run < 6; run++) {
      places.push(Buffer.from(files.bytes("/disk.qcow2")).readBigUInt64BE(48));
      await using writer = await openQcow2Writer("/disk.qcow2", { run: `run ${run}`, files });
      await writer.write(run * 65536, new Uint8Array(65536).fill(1));
      await writer.commit({ written: none() });
    }
    for (let run = 1; run < places.length; run++) expect(places[run]).not.toBe(places[run - 1]);
    // What one commit leaves behind the next ones use again.
    expect(files.bytes("/disk.qcow2").byteLength).toBeLessThan(16 * 65536);
  });

  it("does not use a freed cluster again before what freed it is durable", async () => {
    const files = new LossyFiles();
    // Clusters of 512 bytes: an L2 table maps 32 KiB, so that a write further on needs a new table.
    await createQcow2({ path: "/start.qcow2", size: 8 * 32768, clusterSize: 512, files });
    {
      await using writer = await openQcow2Writer("/start.qcow2", { run: "one", files });
      await writer.write(0, new Uint8Array(32768).fill(1));
      await writer.commit({ written: none() });
    }
    const start = files.bytes("/start.qcow2");
    for (let changes = 0; changes < 16; changes++) {
      for (let loss = 0; loss < 20; loss++) {
        files.put("/disk.qcow2", start);
        const writer = await openQcow2Writer("/disk.qcow2", { run: "two", files });
        await writer.zero(0, 32768);
        await writer.write(3 * 32768, new Uint8Array(8 * 512).fill(2));
        await writer.write(5 * 32768, new Uint8Array(8 * 512).fill(3));
        files.changesLeft = changes;
        await writer.flush().catch(() => undefined);
        files.changesLeft = Infinity;
        files.lose(randomFrom(changes * 100 + loss));
        await using reader = await openQcow2Reader("/disk.qcow2", { files });
        const sector = new Uint8Array(512);
        for (let offset = 0; offset < 32768; offset += 512) {
          await reader.read(offset, sector);
          const whole = sector.every((byte) => byte === sector[0]) && sector[0]! < 2;
          expect(whole, `death at change ${changes}, loss ${loss}: the cluster at ${offset}`).toBe(true);
        }
      }
    }
  });

  it("settles by itself when many mappings wait", async () => {
    const files = new LossyFiles();
    await createQcow2({ path: "/disk.qcow2", size: 4096 * 512, clusterSize: 512, files });
    await using writer = await openQcow2Writer("/disk.qcow2", { run: "one", files, pendingLimit: 100 });
    await writer.write(0, randomBytes(4000 * 512, 2));
    files.lose(() => 0.999999);
    await using reader = await openQcow2Reader("/disk.qcow2", { files });
    const back = new Uint8Array(2000 * 512);
    await reader.read(0, back);
    expect(Buffer.from(back).equals(Buffer.from(randomBytes(4000 * 512, 2)).subarray(0, back.byteLength))).toBe(true);
  });

  it("stops before it begins when its signal is aborted", async () => {
    const files = new LossyFiles();
    await createQcow2({ path: "/disk.qcow2", size: 65536, files });
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(openQcow2Reader("/disk.qcow2", { files, signal })).rejects.toThrow("enough");
    await using writer = await openQcow2Writer("/disk.qcow2", { run: "one", files });
    await expect(writer.write(0, new Uint8Array(512), { signal })).rejects.toThrow("enough");
    await writer.write(0, new Uint8Array(512).fill(1));
    await writer.commit({ written: none() });
  });

  it("rejects what does not fit the disk", async () => {
    const files = new LossyFiles();
    await createQcow2({ path: "/disk.qcow2", size: 65536, files });
    await using writer = await openQcow2Writer("/disk.qcow2", { run: "one", files });
    await expect(writer.write(65536, new Uint8Array(512))).rejects.toThrow(RangeError);
    await expect(writer.write(100, new Uint8Array(512))).rejects.toThrow(RangeError);
    await expect(createQcow2({ path: "/disk.qcow2", size: 512, files })).rejects.toMatchObject({ code: "EXISTS" });
    await expect(createQcow2({ path: "/other.qcow2", size: 513, files })).rejects.toThrow(RangeError);
    await expect(createQcow2({ path: "/other.qcow2", size: 512, clusterSize: 3000, files })).rejects.toThrow(
      RangeError,
    );
    await expect(createQcow2({ path: "/other.qcow2", size: 2 ** 50, clusterSize: 512, files })).rejects.toMatchObject({
      code: "UNSUPPORTED",
    });
  });

  it("resumes in the same file after SIGKILL, with all that was flushed", async () => {
    using folder = temporaryFolder();
    const image = join(folder.path, "disk.qcow2");
    const size = 512 * 65536;
    const random = randomFrom(seedOf(6));
    await createQcow2({ path: image, size });
    const program = new URL("qcow2-kill-child.ts", import.meta.url);
    let flushed = 0;
    let kills = 0;
    let generation: string | undefined;
    for (let round = 0; round < 8; round++) {
      const child = spawn(process.execPath, [...process.execArgv, program.pathname, image, String(flushed)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let text = "";
      const wanted = flushed + 1 + Math.floor(random() * 40);
      await new Promise<void>((resolve) => {
        child.once("exit", () => resolve());
        child.stdout.on("data", (data: Buffer) => {
          text += data.toString();
          const last = /(\d+)\n$/.exec(text);
          if (last !== null && Number(last[1]) >= wanted && child.exitCode === null) child.kill("SIGKILL");
        });
      });
      kills += child.signalCode === "SIGKILL" ? 1 : 0;
      const lines = text.split("\n").filter((line) => line !== "");
      generation ??= lines[0]!;
      expect(lines[0]).toBe(generation);
      flushed = Number(lines.at(-1)!.replace(/^[0-9a-f]{32}$/, String(flushed)));
      expect(await checkQcow2(image)).toMatchObject({ corruptions: 0 });
      await using reader = await openQcow2Reader(image);
      const cluster = Buffer.alloc(65536);
      for (let index = 0; index < flushed; index++) {
        await reader.read(index * 65536, cluster);
        expect(cluster.equals(Buffer.alloc(65536, (index % 255) + 1)), `cluster ${index} of ${flushed}`).toBe(true);
      }
    }
    expect(kills).toBeGreaterThan(3);
    expect(fs.statSync(image).size).toBeLessThan((flushed + 64) * 65536);
  });
});
