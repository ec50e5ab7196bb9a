import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { type ImageFile, localFiles } from "../../src/qcow2/image-file.ts";
import { Qcow2Image } from "../../src/qcow2/qcow2-image.ts";
import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { COUNT_MASK, ReferenceCounter, WINDOW_CLUSTERS } from "../../src/qcow2/references.ts";
import { freshFolder } from "../folder.ts";

async function* none(): AsyncGenerator<never> {}

const CLUSTER = 512;
/** Bytes of the disk that one L2 table maps. */
const COVERAGE = (CLUSTER / 8) * CLUSTER;
const FAR = WINDOW_CLUSTERS + 10;

/** An image with data in four L2 tables, of which the third names one cluster beyond the first window. */
async function largeImage(): Promise<string> {
  const path = join(freshFolder(), "disk.qcow2");
  await createQcow2({ path, size: 4 * COVERAGE, clusterSize: CLUSTER });
  {
    await using writer = await openQcow2Writer(path, { run: "one" });
    for (let table = 0; table < 4; table++)
      await writer.write(table * COVERAGE, new Uint8Array(2 * CLUSTER).fill(table + 1));
    await writer.commit({ written: none() });
  }
  const bytes = readFileSync(path);
  const image = await Qcow2Image.load(await localFiles().open(path, "read"));
  bytes.writeBigUInt64BE((1n << 63n) | BigInt(FAR * CLUSTER), image.tableOffset(2));
  await image.file.close();
  writeFileSync(path, bytes);
  truncateSync(path, (FAR + 1) * CLUSTER);
  return path;
}

test("a pass over a later window reads the tables alone that name something in it", async () => {
  const file = await localFiles().open(await largeImage(), "read");
  let reads: number[] = [];
  const watched: ImageFile = {
    ...file,
    path: file.path,
    size: () => file.size(),
    read(into, position) {
      reads.push(position);
      return file.read(into, position);
    },
  };
  const image = await Qcow2Image.load(watched);
  const tables = [0, 1, 2, 3].map((index) => image.tableOffset(index));
  const counter = new ReferenceCounter(image, {
    refcounts: false,
    problem(message) {
      throw new Error(message);
    },
  });
  const pass = async (first: number): Promise<{ read: number[]; used: number[]; found: unknown }> => {
    reads = [];
    const counts = new Uint16Array(WINDOW_CLUSTERS);
    const found = { ...(await counter.count({ first, counts })) };
    const used = [...counts.keys()].filter((index) => (counts[index]! & COUNT_MASK) !== 0);
    return { read: reads, used, found };
  };
  const first = await pass(0);
  expect(first.read).toEqual(tables);
  expect(first.found).toEqual({ highest: FAR, allocated: 8 });
  const second = await pass(WINDOW_CLUSTERS);
  expect(second).toEqual({ read: [tables[2]], used: [FAR - WINDOW_CLUSTERS], found: first.found });
  await file.close();
});

test("an image of more than one window is written on and checks clean, with what lies far back", async () => {
  const path = await largeImage();
  {
    await using writer = await openQcow2Writer(path, { run: "two" });
    await writer.write(COVERAGE + 8 * CLUSTER, new Uint8Array(4 * CLUSTER).fill(9));
    await writer.commit({ written: none() });
  }
  expect(await checkQcow2(path)).toMatchObject({ corruptions: 0, leaks: 0 });
  const image = await Qcow2Image.load(await localFiles().open(path, "read"));
  expect(await image.run(2 * COVERAGE, CLUSTER)).toMatchObject({ kind: "data", host: FAR * CLUSTER });
  await image.file.close();
});
