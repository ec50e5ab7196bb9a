import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { findChildren, listChain, removeFromChain, repointQcow2 } from "../../src/qcow2/qcow2-chain.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { type ImageFiles, localFiles } from "../../src/qcow2/image-file.ts";
import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { LossyFiles } from "./lossy-files.ts";
import { expectClean, qemuImg, temporaryFolder } from "./qemu.ts";

async function* none(): AsyncGenerator<never> {}

const CLUSTER = 4096;

interface Point {
  path: string;
  content: Buffer;
}

/** A chain of recovery points, the oldest first: each with some changes to the one before. */
async function makeChain(
  files: ImageFiles,
  folder: string,
  seed: number,
  options: { grow?: boolean; big?: boolean } = {},
): Promise<Point[]> {
  const random = randomFrom(seed);
  const points: Point[] = [];
  for (let index = 0; index < 4; index++) {
    const below = points.at(-1);
    const size = (64 + (options.grow === true ? index * 5 : 0)) * CLUSTER + 512;
    const content = Buffer.alloc(size);
    below?.content.copy(content);
    const path = join(folder, `point-${index}.qcow2`);
    const backing = below === undefined ? undefined : { path: `point-${index - 1}.qcow2`, format: "qcow2" as const };
    await createQcow2({ path, size, clusterSize: CLUSTER, backing, files });
    await using writer = await openQcow2Writer(path, { run: path, files });
    // Either the oldest holds most, or the second does: both ways of merging are met.
    const count = index === (options.big === true ? 1 : 0) ? 30 : 6;
    for (let step = 0; step < count; step++) {
      const offset = 512 * Math.floor(random() * (size / 512));
      const length = Math.min(size - offset, 512 * (1 + Math.floor(random() * 40)));
      if (step % 4 === 3) {
        await writer.zero(offset, length);
        content.fill(0, offset, offset + length);
      } else {
        const bytes = Buffer.from(randomBytes(length, seed + step + 100 * index));
        await writer.write(offset, bytes);
        bytes.copy(content, offset);
      }
    }
    await writer.commit({ written: none() });
    points.push({ path, content });
  }
  return points;
}

async function expectReads(files: ImageFiles, points: readonly Point[], context: string): Promise<void> {
  for (const { path, content } of points) {
    await using reader = await openQcow2Reader(path, { files });
    const bytes = Buffer.alloc(reader.size);
    await reader.read(0, bytes);
    expect(bytes.equals(content), `${context}: ${path}`).toBe(true);
  }
}

describe("a chain of qcow2 recovery points", () => {
  const seed = seedOf(3);

  for (const options of [{}, { grow: true }, { big: true }]) {
    it(`reads the same when its points are removed in any order: ${JSON.stringify(options)}`, async () => {
      const seen = new Set<string>();
      for (const order of [
        [0, 1, 2, 3],
        [1, 2, 0],
        [2, 1, 0, 3],
        [3, 2, 1, 0],
      ]) {
        const files = new LossyFiles();
        const points = await makeChain(files, "/points", seed, options);
        const left = new Map(points.entries());
        for (const index of order) {
          const { how } = await removeFromChain(points[index]!.path, { files });
          seen.add(how);
          left.delete(index);
          await expectReads(files, [...left.values()], `after ${index} of ${order.join()}`);
        }
        expect((await files.list("/points")).length).toBe(left.size);
      }
      expect(seen).toContain("removed");
      expect(seen.size).toBeGreaterThan(1);
    });

    it(`survives a power loss at any moment of a removal, which can be done again: ${JSON.stringify(options)}`, async () => {
      let died = 0;
      for (const index of [0, 1, 2]) {
        const whole = new LossyFiles();
        const path = (await makeChain(whole, "/points", seed, options))[index]!.path;
        whole.changesLeft = 1_000_000;
        await removeFromChain(path, { files: whole });
        const total = 1_000_000 - whole.changesLeft;
        // Here and there while data moves; every step, and several losses, where names change hands.
        for (let changes = 0; changes < total; changes += changes < total - 8 ? Math.min(25, total - 8 - changes) : 1) {
          for (let loss = 0; loss < (changes < total - 8 ? 1 : 4); loss++) {
            const context = `seed ${seed}, removal of ${index}, death at change ${changes} of ${total}, loss ${loss}`;
            const files = new LossyFiles();
            const points = await makeChain(files, "/points", seed, options);
            const others = points.filter((_, other) => other !== index);
            files.changesLeft = changes;
            await expect(removeFromChain(path, { files })).rejects.toThrow("died");
            files.changesLeft = Infinity;
            files.lose(randomFrom(seed + changes * 7 + loss));
            // Points below stay as they were; those above read the same whatever happened.
            await expectReads(files, others, context);
            died++;
            if (files.has(path)) await removeFromChain(path, { files });
            await expectReads(files, others, `${context}, done again`);
          }
        }
      }
      expect(died).toBeGreaterThan(30);
    });
  }

  it("does not remove what several images stand on, and names them", async () => {
    const files = new LossyFiles();
    const points = await makeChain(files, "/points", seed);
    const backing = { path: "/points/point-1.qcow2", format: "qcow2" as const };
    await createQcow2({ path: "/elsewhere/other.qcow2", size: 8 * CLUSTER, backing, files });
    expect(await findChildren(points[1]!.path, { files })).toEqual(["/points/point-2.qcow2"]);
    const among = ["/elsewhere/other.qcow2"];
    await expect(removeFromChain(points[1]!.path, { files, among })).rejects.toMatchObject({
      code: "IN_USE",
      message: expect.stringMatching(/other\.qcow2.*point-2\.qcow2/),
    });
    await expectReads(files, points, "refused");
  });

  it("does not remove anything while an image beside it cannot be understood", async () => {
    const files = new LossyFiles();
    const points = await makeChain(files, "/points", seed);
    const broken = files.bytes(points[3]!.path);
    broken[20] = 99;
    files.put("/points/broken.qcow2", broken);
    await expect(removeFromChain(points[1]!.path, { files })).rejects.toMatchObject({ code: "IN_USE" });
    await expectReads(files, points, "refused");
  });

  it("does not take for an image what a stopped creation or merge left behind", async () => {
    const files = new LossyFiles();
    const points = await makeChain(files, "/points", seed);
    for (const name of ["point-9.qcow2.0123456789ab.new", "point-2.qcow2.merging"]) {
      files.put(`/points/${name}`, files.bytes(points[2]!.path));
    }
    expect(await findChildren(points[1]!.path, { files })).toEqual([points[2]!.path]);
    await removeFromChain(points[1]!.path, { files });
    await expectReads(files, [points[0]!, ...points.slice(2)], "removed");
  });

  it("points an image elsewhere in one step, with names of any length", async () => {
    const files = new LossyFiles();
    const points = await makeChain(files, "/points", seed);
    for (const name of ["x", "y".repeat(300), "z".repeat(1000), "w".repeat(500)]) {
      files.put(`/points/${name}`, files.bytes(points[0]!.path));
      await repointQcow2(points[1]!.path, { path: name, format: "qcow2" }, { files });
      await expectReads(files, points, `named ${name.length}`);
      expect((await listChain(points[1]!.path, { files }))[1]!.path).toBe(`/points/${name}`);
    }
  });
});

describeWithPeers(["qemu-img"], "removal from a chain, judged by qemu", () => {
  it("leaves images that qemu finds clean and equal", async () => {
    using folder = temporaryFolder();
    const files = localFiles();
    for (const [name, options] of [
      ["plain", {}],
      ["grown", { grow: true }],
      ["big", { big: true }],
    ] as const) {
      const place = join(folder.path, name);
      fs.mkdirSync(place);
      const points = await makeChain(files, place, seedOf(5), options);
      await removeFromChain(points[1]!.path);
      await removeFromChain(points[0]!.path);
      for (const { path, content } of points.slice(2)) {
        expectClean(path);
        fs.writeFileSync(`${path}.model`, content);
        qemuImg("compare", "-q", "-f", "raw", "-F", "qcow2", `${path}.model`, path);
      }
    }
  });

  it("merges a raw base into the image above it", async () => {
    using folder = temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    const content = Buffer.from(randomBytes(300 * 1024, 9));
    fs.writeFileSync(at("base.raw"), content);
    qemuImg("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", at("top.qcow2"));
    expect(await removeFromChain(at("base.raw"))).toMatchObject({ how: "copied", child: at("top.qcow2") });
    expect(fs.existsSync(at("base.raw"))).toBe(false);
    expectClean(at("top.qcow2"));
    fs.writeFileSync(at("model"), content);
    qemuImg("compare", "-q", "-f", "raw", "-F", "qcow2", at("model"), at("top.qcow2"));
  });
});
