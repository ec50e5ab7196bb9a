import { isProviderError } from "@diskferry/core/provider";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes } from "../../../../test/seed.ts";
import { startNbdServer, startQemuNbd } from "../../../../test/servers.ts";
import { connectNbd, listNbdExports } from "../../src/client/connect.ts";
import { collect } from "./scripted-server.ts";

const MiB = 1 << 20;
let directory = "";

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "diskferry-"));
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

describeWithPeers(["qemu-nbd", "qemu-img", "qemu-io"], "the client with qemu-nbd", () => {
  it("reads holes and data of an image, byte for byte", async () => {
    const file = join(directory, "sparse.raw");
    run("qemu-img", "create", "-f", "raw", file, "32M");
    run("qemu-io", "-f", "raw", "-c", "write -P 0x11 1M 3M", "-c", "write -P 0x22 20000k 128k", file);
    await using server = await startQemuNbd(["-f", "raw", "-r", file]);
    await using client = await connectNbd(server.uri, { metaContexts: ["base:allocation"] });
    expect(client).toMatchObject({ size: 32 * MiB, readOnly: true, replies: "structured" });
    const expected = new Uint8Array(32 * MiB).fill(0x11, MiB, 4 * MiB).fill(0x22, 20_000 * 1024, 20_128 * 1024);
    for (const dontFragment of [false, true]) {
      const into = new Uint8Array(32 * MiB).fill(0xee);
      await Promise.all(
        Array.from({ length: 8 }, (_, index) => {
          const part = into.subarray(index * 4 * MiB, (index + 1) * 4 * MiB);
          return client.read(index * 4 * MiB, part, { dontFragment });
        }),
      );
      expect(Buffer.compare(into, expected)).toBe(0);
    }
    const extents = await collect(client.blockStatus(0, client.size));
    const zero = extents.filter(({ flags }) => ((flags["base:allocation"] ?? 0) & 2) !== 0);
    for (const { offset, length } of zero) {
      expect(expected.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true);
    }
    expect(zero.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThan(28 * MiB);
  });

  it("tells dirty bitmaps, allocation depth and allocation at once, as nbdinfo sees them", async () => {
    const base = join(directory, "base.qcow2");
    const top = join(directory, "top.qcow2");
    run("qemu-img", "create", "-f", "qcow2", base, "64M");
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 4M 2M", base);
    run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", top);
    run("qemu-img", "bitmap", "--add", "-g", "65536", top, "b0");
    run("qemu-img", "bitmap", "--add", "-g", "65536", top, "b1");
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 5M 2M", "-c", "write -z 30M 1M", top);
    run("qemu-img", "bitmap", "--clear", top, "b1");
    run("qemu-io", "-f", "qcow2", "-c", "write -P 3 40M 64k", top);
    await using server = await startQemuNbd(["-f", "qcow2", "-r", "-B", "b0", "-B", "b1", "-A", "-e", "0", top]);
    const metaContexts = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:*"];
    await using client = await connectNbd(server.uri, { metaContexts });
    expect([...client.metaContexts].sort()).toEqual([
      "base:allocation",
      "qemu:allocation-depth",
      "qemu:dirty-bitmap:b0",
      "qemu:dirty-bitmap:b1",
    ]);
    const together = await collect(client.blockStatus(0, client.size));
    let at = 0;
    for (const { offset, length } of together) {
      expect(offset).toBe(at);
      at += length;
    }
    expect(at).toBe(client.size);
    for (const name of client.metaContexts) {
      const alone = await collect(client.blockStatus(0, client.size, { contexts: [name] }));
      const listed = JSON.parse(run("nbdinfo", "--json", `--map=${name}`, server.uri)) as {
        offset: number;
        length: number;
        type: number;
      }[];
      const merged: { offset: number; length: number; flags: Record<string, number> }[] = [];
      for (const { offset, length, type } of listed) {
        const last = merged.at(-1);
        if (last?.flags[name] === type) last.length += length;
        else merged.push({ offset, length, flags: { [name]: type } });
      }
      expect(alone).toEqual(merged);
      for (const { offset, length, flags } of together) {
        const holder = alone.find((each) => each.offset <= offset && offset < each.offset + each.length);
        expect(holder?.flags[name]).toBe(flags[name]);
        expect(offset + length).toBeLessThanOrEqual((holder?.offset ?? 0) + (holder?.length ?? 0));
      }
    }
    const dirty = (name: string): number[][] =>
      together.filter(({ flags }) => flags[name] === 1).map(({ offset, length }) => [offset / MiB, length / MiB]);
    expect(dirty("qemu:dirty-bitmap:b1")).toEqual([[40, 1 / 16]]);
    expect(dirty("qemu:dirty-bitmap:b0").reduce((sum, [, length]) => sum + (length ?? 0), 0)).toBe(3 + 1 / 16);
    const part = await collect(client.blockStatus(40 * MiB - 65536, 131072, { contexts: ["qemu:dirty-bitmap:b1"] }));
    expect(part.map(({ offset, length, flags }) => [offset, length, flags["qemu:dirty-bitmap:b1"]])).toEqual([
      [40 * MiB - 65536, 65536, 0],
      [40 * MiB, 65536, 1],
    ]);
  });

  it("writes an image that qemu-img finds sound and equal", async () => {
    const image = join(directory, "written.qcow2");
    const raw = join(directory, "written.raw");
    run("qemu-img", "create", "-f", "qcow2", image, "24M");
    const disk = randomBytes(24 * MiB, 12);
    disk.fill(0, 5 * MiB, 9 * MiB);
    await writeFile(raw, disk);
    {
      await using server = await startQemuNbd(["-f", "qcow2", image]);
      await using client = await connectNbd(server.uri);
      const writes = [];
      for (let at = 0; at < disk.byteLength; at += 300 * 1024) {
        writes.push(client.write(at, disk.subarray(at, at + 300 * 1024), { fua: at % (900 * 1024) === 0 }));
      }
      await Promise.all(writes);
      await client.write(5 * MiB, new Uint8Array(MiB).fill(5));
      await client.zero(5 * MiB, 4 * MiB, { noHole: true });
      await client.flush();
    }
    expect(run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, raw)).toContain("identical");
    expect(run("qemu-img", "check", image)).toContain("No errors");
  });

  it("survives being cut with reads in flight, thirty times, and so does the server", async () => {
    const file = join(directory, "cut.raw");
    const disk = randomBytes(16 * MiB, 13);
    await writeFile(file, disk);
    await using server = await startQemuNbd(["-f", "raw", "-r", "-e", "0", file]);
    for (let round = 0; round < 30; round++) {
      const client = await connectNbd(server.uri);
      const abort = new AbortController();
      const blocks = Array.from({ length: 16 }, () => new Uint8Array(MiB));
      const reads = blocks.map((block, index) => client.read(index * MiB, block, { signal: abort.signal }));
      const ends = Promise.allSettled(reads);
      if (round % 2 === 0) abort.abort();
      await Promise.race(reads).catch(() => undefined);
      await client.close();
      for (const [index, end] of (await ends).entries()) {
        const block = blocks[index];
        if (end.status === "fulfilled" && block !== undefined) {
          expect(Buffer.compare(block, disk.subarray(index * MiB, (index + 1) * MiB))).toBe(0);
        } else if (end.status === "rejected") expect(isProviderError(end.reason) || round % 2 === 0).toBe(true);
      }
    }
    await using client = await connectNbd(server.uri);
    const block = new Uint8Array(MiB);
    await client.read(0, block);
    expect(Buffer.compare(block, disk.subarray(0, MiB))).toBe(0);
  });

  it("learns of a killed server at once, in every call", async () => {
    const file = join(directory, "killed.raw");
    await writeFile(file, randomBytes(16 * MiB, 14));
    await using server = await startQemuNbd(["-f", "raw", file], { transport: "tcp" });
    await using client = await connectNbd(server.uri);
    await client.read(0, new Uint8Array(512));
    const reads = Array.from({ length: 40 }, (_, index) => client.read((index % 16) * MiB, new Uint8Array(MiB)));
    server.kill("SIGKILL");
    const ends = await Promise.allSettled([...reads, client.flush()]);
    expect(ends.at(-1)).toMatchObject({ status: "rejected", reason: { code: "UNAVAILABLE", retryable: true } });
    for (const end of ends) {
      if (end.status === "rejected") expect(end.reason).toMatchObject({ code: "UNAVAILABLE", retryable: true });
    }
    await expect(connectNbd(server.uri)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("names an export that is missing", async () => {
    const file = join(directory, "named.raw");
    await writeFile(file, new Uint8Array(MiB));
    await using server = await startQemuNbd(["-f", "raw", "-x", "disk one", "-D", "of the web server", file], {
      exportName: "disk one",
    });
    const [listed] = await listNbdExports(server.uri);
    expect(listed).toMatchObject({ name: "disk one", description: "of the web server" });
    await expect(connectNbd(server.uri, { exportName: "other" })).rejects.toMatchObject({ code: "NOT_FOUND" });
    await using client = await connectNbd(server.uri);
    expect(client.description).toBe("of the web server");
  });
});

describeWithPeers(["nbd-server"], "the client with nbd-server", () => {
  it("reads and writes, on unix and TCP, and lists", async () => {
    for (const transport of ["unix", "tcp"] as const) {
      const file = join(directory, `${transport}.raw`);
      const disk = randomBytes(8 * MiB, 15);
      await writeFile(file, disk);
      const settings = ["flush = true", "fua = true", "trim = true"];
      await using server = await startNbdServer([{ name: "disk", file, settings }], { transport });
      expect(await listNbdExports(server.uri)).toEqual([{ name: "disk" }]);
      await using client = await connectNbd(server.uri);
      expect(client.size).toBe(8 * MiB);
      const into = new Uint8Array(8 * MiB);
      await Promise.all([client.read(0, into.subarray(0, 5 * MiB)), client.read(5 * MiB, into.subarray(5 * MiB))]);
      expect(Buffer.compare(into, disk)).toBe(0);
      const change = randomBytes(MiB, 16);
      await client.write(3 * MiB, change, { fua: true });
      await client.flush();
      await client.read(3 * MiB, into.subarray(0, MiB));
      expect(Buffer.compare(into.subarray(0, MiB), change)).toBe(0);
      await expect(connectNbd(server.uri, { exportName: "other" })).rejects.toMatchObject({ code: "NOT_FOUND" });
    }
  });
});
