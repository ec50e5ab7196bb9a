import * as fs from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { type BlockWriter, isProviderError } from "@diskferry/core/provider";
import { expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { type Qcow2Writer, openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { expectClean, qemuImg, qemuIo, qemuMap, temporaryFolder } from "./qemu.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

async function* none(): AsyncGenerator<never> {}

/** Random writes and zeroes, each into `model` too. */
async function scribble(writer: Qcow2Writer, model: Buffer, seed: number, count: number): Promise<void> {
  const random = randomFrom(seed);
  for (let step = 0; step < count; step++) {
    const offset = 512 * Math.floor(random() * (model.byteLength / 512));
    const length = Math.min(model.byteLength - offset, 512 * (1 + Math.floor(random() * 500)));
    if (step % 3 === 0) {
      await writer.zero(offset, length);
      model.fill(0, offset, offset + length);
    } else {
      const bytes = step % 2 === 0 ? Buffer.alloc(length, step) : Buffer.from(randomBytes(length, seed + step));
      await writer.write(offset, bytes);
      bytes.copy(model, offset);
    }
    if (step % 11 === 0) await writer.flush();
  }
}

async function expectHolds(image: string, model: Buffer): Promise<void> {
  expectClean(image);
  expect(await checkQcow2(image)).toMatchObject({ leaks: 0, corruptions: 0, dirty: false });
  fs.writeFileSync(`${image}.model`, model);
  qemuImg("compare", "-q", "-f", "raw", "-F", "qcow2", `${image}.model`, image);
}

describeWithPeers(["qemu-img", "qemu-io"], "the qcow2 writer, judged by qemu", () => {
  const seed = seedOf(11);

  for (const clusterSize of [512, 4 * KIB, 64 * KIB, 2 * MIB]) {
    for (const compression of [undefined, "zlib", "zstd"] as const) {
      it(`makes a new image with clusters of ${clusterSize} bytes, ${compression ?? "not"} compressed`, async () => {
        using folder = temporaryFolder();
        const image = join(folder.path, "disk.qcow2");
        const model = Buffer.alloc(5 * MIB + 512);
        await createQcow2({ path: image, size: model.byteLength, clusterSize, compression });
        expectClean(image);
        await using writer = await openQcow2Writer(image, { run: "one", compress: compression !== undefined });
        expect(writer.blank).toBe(true);
        await scribble(writer, model, seed, 40);
        const back = Buffer.alloc(model.byteLength);
        await writer.read(0, back);
        expect(back.equals(model)).toBe(true);
        await writer.commit({ written: none() });
        await expectHolds(image, model);
      });
    }
  }

  for (const format of ["raw", "qcow2"] as const) {
    for (const compress of [false, true]) {
      it(`makes an overlay over ${format}${compress ? ", compressed" : ""}, and another over that`, async () => {
        using folder = temporaryFolder();
        const at = (name: string): string => join(folder.path, name);
        const model = Buffer.alloc(5 * MIB + 1024);
        // The base is smaller than what stands on it.
        const base = Buffer.from(randomBytes(3 * MIB + 512, seed));
        base.copy(model);
        fs.writeFileSync(at("base.raw"), base);
        if (format === "qcow2") qemuImg("convert", "-f", "raw", "-O", "qcow2", at("base.raw"), at("base.qcow2"));
        let backing: { path: string; format: "raw" | "qcow2" } = { path: `base.${format}`, format };
        for (const name of ["one.qcow2", "two.qcow2"]) {
          await createQcow2({ path: at(name), size: model.byteLength, backing });
          await using writer = await openQcow2Writer(at(name), { run: name, compress });
          expect(writer.blank).toBeUndefined();
          await scribble(writer, model, seed + name.length, 30);
          await writer.commit({ written: none() });
          await expectHolds(at(name), model);
          expect(qemuImg("info", at(name))).toContain(`backing file: ${backing.path}`);
          backing = { path: name, format: "qcow2" };
        }
      });
    }
  }

  it("marks zeroes over a backing file and leaves blank ones unallocated", async () => {
    using folder = temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    fs.writeFileSync(at("base.raw"), Buffer.alloc(4 * MIB, 1));
    await createQcow2({ path: at("over.qcow2"), size: 4 * MIB, backing: { path: "base.raw", format: "raw" } });
    await createQcow2({ path: at("new.qcow2"), size: 4 * MIB });
    for (const name of ["over.qcow2", "new.qcow2"]) {
      await using writer = await openQcow2Writer(at(name), { run: "one" });
      await writer.zero(MIB, 2 * MIB);
      await writer.commit({ written: none() });
      expectClean(at(name));
    }
    expect(qemuMap(at("over.qcow2")).find(({ start }) => start === MIB)).toMatchObject({
      length: 2 * MIB,
      depth: 0,
      zero: true,
    });
    expect(await checkQcow2(at("new.qcow2"))).toMatchObject({ allocated: 0 });
    expect(fs.statSync(at("over.qcow2")).blocks * 512).toBeLessThan(MIB);
  });

  const inPlace: [name: string, options: string, flags?: string[]][] = [
    ["plain", "compat=1.1"],
    ["small clusters", "cluster_size=1k"],
    ["zlib", "compression_type=zlib", ["-c"]],
    ["zstd", "compression_type=zstd", ["-c"]],
    ["subclusters", "extended_l2=on"],
    ["lazy refcounts", "lazy_refcounts=on"],
    ["1-bit refcounts", "refcount_bits=1"],
    ["64-bit refcounts", "refcount_bits=64"],
    ["preallocated metadata", "preallocation=metadata"],
  ];
  for (const [name, options, flags = []] of inPlace) {
    it(`writes in place into an image by qemu: ${name}`, async () => {
      using folder = temporaryFolder();
      const at = (file: string): string => join(folder.path, file);
      const model = Buffer.alloc(6 * MIB);
      Buffer.from(randomBytes(MIB, seed)).copy(model, MIB);
      model.fill(5, 3 * MIB, 4 * MIB);
      fs.writeFileSync(at("first.raw"), model);
      qemuImg("convert", "-f", "raw", "-O", "qcow2", ...flags, "-o", options, at("first.raw"), at("disk.qcow2"));
      qemuIo(at("disk.qcow2"), "qcow2", "write -P 8 4M 300k", "write -z 1100k 10k", "write -P 1 5M 1k");
      model
        .fill(8, 4 * MIB, 4 * MIB + 300 * KIB)
        .fill(0, 1100 * KIB, 1110 * KIB)
        .fill(1, 5 * MIB, 5 * MIB + KIB);
      // Several runs: what one frees the next uses again.
      let size = 0;
      for (let run = 0; run < 4; run++) {
        await using writer = await openQcow2Writer(at("disk.qcow2"), { run: `run ${run}` });
        expect(writer.blank).toBeUndefined();
        await scribble(writer, model, seed + run, 30);
        await writer.commit({ written: none() });
        await expectHolds(at("disk.qcow2"), model);
        if (run === 1) size = fs.statSync(at("disk.qcow2")).size;
      }
      expect(fs.statSync(at("disk.qcow2")).size).toBeLessThan(size * 1.5);
      qemuIo(at("disk.qcow2"), "qcow2", "write -P 9 0 6M");
      expectClean(at("disk.qcow2"));
    });
  }

  it("refuses to write in place what it would damage", async () => {
    using folder = temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    const refusal = async (name: string): Promise<string> => {
      try {
        await using writer = await openQcow2Writer(at(name), { run: "one" });
        return `opened ${writer.generation}`;
      } catch (error) {
        if (!isProviderError(error)) throw error;
        return `${error.code} ${error.message}`;
      }
    };
    qemuImg("create", "-q", "-f", "qcow2", "-o", "compat=0.10", at("two.qcow2"), "1M");
    expect(await refusal("two.qcow2")).toMatch(/^UNSUPPORTED .*version 2.*amend/);
    qemuImg("create", "-q", "-f", "qcow2", at("snapshots.qcow2"), "1M");
    qemuImg("snapshot", "-c", "one", at("snapshots.qcow2"));
    expect(await refusal("snapshots.qcow2")).toMatch(/^UNSUPPORTED .*internal snapshots/);
    qemuImg("create", "-q", "-f", "qcow2", at("bitmaps.qcow2"), "1M");
    qemuImg("bitmap", "--add", at("bitmaps.qcow2"), "changes");
    expect(await refusal("bitmaps.qcow2")).toMatch(/^UNSUPPORTED .*bitmap --remove/);
    // Two entries of one L2 table that name the same cluster.
    qemuImg("create", "-q", "-f", "qcow2", at("overlap.qcow2"), "1M");
    qemuIo(at("overlap.qcow2"), "qcow2", "write -P 1 0 128k");
    const bytes = fs.readFileSync(at("overlap.qcow2"));
    const table = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0x00fffffffffffe00n);
    bytes.copy(bytes, table + 8, table, table + 8);
    fs.writeFileSync(at("overlap.qcow2"), bytes);
    expect(await refusal("overlap.qcow2")).toMatch(/^CORRUPT .*something else names too/);
  });

  it("finds the same run again, and a new one in another generation", async () => {
    using folder = temporaryFolder();
    const image = join(folder.path, "disk.qcow2");
    await createQcow2({ path: image, size: 4 * MIB });
    const open = async (run: string): Promise<{ generation: string; blank: boolean | undefined }> => {
      await using writer = await openQcow2Writer(image, { run });
      await writer.write(0, Buffer.alloc(64 * KIB, 1));
      await writer.flush();
      return { generation: writer.generation, blank: writer.blank };
    };
    const first = await open("one");
    expect(first.blank).toBe(true);
    expect(await open("one")).toEqual(first);
    const second = await open("two");
    expect(second.generation).not.toBe(first.generation);
    expect(second.blank).toBeUndefined();
    await using writer = await openQcow2Writer(image, { run: "two" });
    expect(writer.generation).toBe(second.generation);
    await writer.commit({ written: none() });
    await writer.commit({ written: none() });
    expectClean(image);
    await using again = await openQcow2Writer(image, { run: "two" });
    await again.commit({ written: none() });
    expectClean(image);
  });

  it("leaves an image that qemu repairs and reads when it is stopped between flush and commit", async () => {
    using folder = temporaryFolder();
    const image = join(folder.path, "disk.qcow2");
    const model = Buffer.alloc(4 * MIB);
    await createQcow2({ path: image, size: model.byteLength });
    {
      await using writer = await openQcow2Writer(image, { run: "one" });
      await scribble(writer, model, seed, 20);
      await writer.flush();
    }
    fs.writeFileSync(join(folder.path, "model"), model);
    qemuImg("compare", "-q", "-f", "raw", "-F", "qcow2", join(folder.path, "model"), image);
    qemuImg("check", "-q", "-r", "all", image);
    await expectHolds(image, model);
  });

  it("is told when another program has the image locked", async () => {
    using folder = temporaryFolder();
    const image = join(folder.path, "disk.qcow2");
    await createQcow2({ path: image, size: MIB });
    const { spawn } = await import("node:child_process");
    const child = spawn("qemu-io", ["-f", "qcow2", image], { stdio: ["pipe", "pipe", "ignore"] });
    try {
      await new Promise((resolve) => child.stdout.once("data", resolve));
      if (
        !fs.existsSync("/proc/locks") ||
        !fs.readFileSync("/proc/locks", "utf8").includes(`:${fs.statSync(image).ino} `)
      )
        return;
      await expect(openQcow2Writer(image, { run: "one" })).rejects.toMatchObject({ code: "IN_USE" });
    } finally {
      child.kill("SIGKILL");
    }
  });

  for (const compress of [false, true]) {
    it(`takes what several threads write${compress ? ", compressed" : ""}`, async () => {
      using folder = temporaryFolder();
      const at = (name: string): string => join(folder.path, name);
      const size = 24 * MIB + 512;
      const model = Buffer.from(randomBytes(size, seed));
      for (let at = 0; at < size; at += MIB) model.fill(at / MIB, at, Math.min(size, at + MIB / 2));
      model.fill(0, 3 * MIB, 5 * MIB);
      fs.writeFileSync(at("model"), model);
      await createQcow2({ path: at("disk.qcow2"), size, compression: "zstd" });
      await using writer = await openQcow2Writer(at("disk.qcow2"), { run: "one", compress });
      for (let round = 0; round < 2; round++) {
        await writeByThreads(writer, at("model"), size, 3);
        await writer.flush();
      }
      await writer.commit({ written: none() });
      await expectHolds(at("disk.qcow2"), model);
      await using reader = await openQcow2Reader(at("disk.qcow2"));
      const lane = (await import(reader.lane!.module)) as typeof import("../../src/qcow2/qcow2-reader-lane.ts");
      await using other = await lane.open(structuredClone(reader.lane!.data));
      const back = Buffer.alloc(size);
      await other.read(0, back);
      expect(back.equals(model)).toBe(true);
    });
  }

  it("compresses as small as qemu-img does, to within 3 percent", async () => {
    using folder = temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    const size = 48 * MIB;
    const model = Buffer.alloc(size);
    for (let block = 0; block < size; block += 8 * KIB)
      Buffer.from(randomBytes(4 * KIB, seed + block)).copy(model, block);
    fs.writeFileSync(at("model"), model);
    qemuImg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", at("model"), at("qemu.qcow2"));
    await createQcow2({ path: at("ours.qcow2"), size, compression: "zstd" });
    await using writer = await openQcow2Writer(at("ours.qcow2"), { run: "one", compress: true });
    for (let offset = 0; offset < size; offset += MIB) await writer.write(offset, model.subarray(offset, offset + MIB));
    await writer.commit({ written: none() });
    await expectHolds(at("ours.qcow2"), model);
    expect(fs.statSync(at("ours.qcow2")).size).toBeLessThan(fs.statSync(at("qemu.qcow2")).size * 1.03);
  });
});

const laneProgram = `
import { parentPort, workerData } from "node:worker_threads";
import { openSync, readSync } from "node:fs";
const { lane, source, size, next } = workerData;
const { open } = await import(lane.module);
const writer = await open(lane.data);
const descriptor = openSync(source, "r");
const index = new Int32Array(next);
const unit = 1048576;
for (;;) {
  const offset = Atomics.add(index, 0, 1) * unit;
  if (offset >= size) break;
  const data = Buffer.alloc(Math.min(unit, size - offset));
  readSync(descriptor, data, 0, data.byteLength, offset);
  if (data.every((byte) => byte === 0)) await writer.zero(offset, data.byteLength);
  else await writer.write(offset, data);
}
parentPort.postMessage(await writer.settle());
await writer[Symbol.asyncDispose]();
`;

async function writeByThreads(writer: BlockWriter, source: string, size: number, count: number): Promise<void> {
  const next = new SharedArrayBuffer(4);
  const { module, data } = writer.lane!;
  const url = new URL(`data:text/javascript,${encodeURIComponent(laneProgram)}`);
  const threads = Array.from({ length: count }, async () => {
    const worker = new Worker(url, { workerData: { lane: { module, data }, source, size, next } });
    const note = await new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    writer.lane!.merge!(note);
    await worker.terminate();
  });
  await Promise.all(threads);
}
