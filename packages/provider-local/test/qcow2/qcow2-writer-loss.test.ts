import type { LaneWriter } from "@diskferry/core/provider";
import { describe, expect, it } from "vitest";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import { checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { type Qcow2Writer, openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { open as openLane } from "../../src/qcow2/qcow2-writer-lane.ts";
import { LossyFiles } from "./lossy-files.ts";
import { TaggedDisk, tagged } from "./tagged-disk.ts";

interface Shape {
  clusterSize: number;
  size: number;
  backed: boolean;
  compress: boolean;
  lanes: boolean;
}

const IMAGE = "/disks/top.qcow2";
const BASE = "/disks/base.qcow2";

/** A life of one image: writes, flushes, commits, kills and power losses, each judged against the model. */
class ImageLife {
  readonly files = new LossyFiles();
  readonly #random: () => number;
  readonly #shape: Shape;
  readonly #context: string;
  #disk: TaggedDisk;
  #writer: Qcow2Writer | undefined;
  #lanes: LaneWriter[] = [];
  /** How often the process died in the middle of something. */
  deaths = 0;
  #tag = 1;
  #run = 0;

  constructor(seed: number, shape: Shape) {
    this.#random = randomFrom(seed);
    this.#shape = shape;
    this.#context = `seed ${seed} ${JSON.stringify(shape)}`;
    this.#disk = new TaggedDisk(shape.size);
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  async create(): Promise<void> {
    const { files } = this;
    const { clusterSize, size, backed, compress } = this.#shape;
    const compression = compress ? "zstd" : "zlib";
    if (backed) {
      await createQcow2({ path: BASE, size, clusterSize, files });
      this.#writer = await openQcow2Writer(BASE, { run: "base", files });
      for (let count = 0; count < 12; count++) await this.#write();
      await this.#writer.commit({ written: (async function* () {})() });
      this.#disk.flushed();
      await this.#writer[Symbol.asyncDispose]();
      this.#writer = undefined;
    }
    const backing = backed ? { path: "base.qcow2", format: "qcow2" as const } : undefined;
    await createQcow2({ path: IMAGE, size, clusterSize, compression, backing, files });
  }

  async #opened(): Promise<Qcow2Writer> {
    if (this.#writer !== undefined) return this.#writer;
    const { compress, lanes } = this.#shape;
    const { files } = this;
    // Small: it settles all the time by itself. Large: all is left to the flush.
    const pendingLimit = this.#random() < 0.5 ? 1 + this.#below(40) : 100_000;
    this.#writer = await openQcow2Writer(IMAGE, { run: `run ${this.#run}`, compress, files, pendingLimit });
    const { lane } = this.#writer;
    if (lanes && lane !== undefined) {
      this.#lanes = await Promise.all([openLane(lane.data, { files }), openLane(lane.data, { files })]);
    }
    return this.#writer;
  }

  #range(unit: number): { offset: number; length: number } {
    const units = Math.ceil(this.#shape.size / unit);
    const first = this.#below(units);
    const count = 1 + this.#below(Math.min(units - first, 24));
    const offset = first * unit;
    return { offset, length: Math.min(count * unit, this.#shape.size - offset) };
  }

  async #write(): Promise<void> {
    const tag = this.#tag++;
    if (this.#lanes.length > 0 && this.#random() < 0.7) {
      const { offset, length } = this.#range(this.#shape.clusterSize);
      const lane = this.#lanes[this.#below(this.#lanes.length)]!;
      await this.#gather();
      const zero = this.#random() < 0.2;
      this.#disk.write(offset, length, zero ? 0 : tag);
      if (zero) await lane.zero!(offset, length);
      else await lane.write(offset, tagged(length, tag));
      return;
    }
    const unit = this.#random() < 0.4 ? this.#shape.clusterSize : 512;
    const { offset, length } = this.#range(unit);
    const writer = await this.#opened();
    await this.#gather();
    const zero = this.#random() < 0.25;
    this.#disk.write(offset, length, zero ? 0 : tag);
    if (zero) await writer.zero(offset, length);
    else await writer.write(offset, tagged(length, tag));
  }

  /** Takes what lanes wrote, so that a later write of the same place comes after it. */
  async #gather(): Promise<void> {
    for (const lane of this.#lanes) this.#writer!.lane!.merge!(await lane.settle());
  }

  async #content(): Promise<Uint8Array> {
    await using reader = await openQcow2Reader(IMAGE, { files: this.files });
    const bytes = new Uint8Array(this.#shape.size);
    await reader.read(0, bytes);
    return bytes;
  }

  #forget(): void {
    this.#writer = undefined;
    this.#lanes = [];
  }

  async step(): Promise<void> {
    const draw = this.#random();
    if (draw < 0.72) {
      await this.#opened();
      await this.#write();
    } else if (draw < 0.84) {
      const writer = await this.#opened();
      await this.#gather();
      await writer.flush();
      this.#disk.flushed();
      const bytes = new Uint8Array(this.#shape.size);
      await writer.read(0, bytes);
      this.#disk.expectExactly(bytes, `${this.#context}, after a flush`);
      // Nothing that comes later may be what makes a flush last.
      if (this.#random() < 0.3) await this.lose();
    } else if (draw < 0.88) {
      await this.commit();
    } else if (draw < 0.96) {
      await this.#dieWithin();
    } else if (draw < 0.97) {
      this.files.kill();
      this.#forget();
      this.#disk.expectPossible(await this.#content(), `${this.#context}, after a kill`);
      // Whoever opens the image makes what it finds there durable before it relies on it.
      await this.#opened();
    } else {
      await this.lose();
    }
  }

  /** The process dies in the middle of a write, a flush or a commit, and mostly the power goes with it. */
  async #dieWithin(): Promise<void> {
    const writer = await this.#opened();
    // Something has to be under way: waiting mappings, freed clusters, tables to write over.
    for (let count = this.#below(6); count >= 0; count--) await this.#write();
    await this.#gather();
    this.files.changesLeft = this.#below(this.#random() < 0.5 ? 8 : 24);
    const draw = this.#random();
    try {
      if (draw < 0.2) await this.#write();
      else if (draw < 0.6) await writer.flush();
      else await writer.commit({ written: (async function* () {})() });
    } catch (error) {
      if (!(error instanceof Error) || !error.message.includes("died")) throw error;
      this.deaths++;
    }
    this.files.changesLeft = Infinity;
    if (this.#random() < 0.8) return this.lose();
    this.files.kill();
    this.#forget();
    this.#disk.expectPossible(await this.#content(), `${this.#context}, after a death`);
    await this.#opened();
  }

  async commit(): Promise<void> {
    const writer = await this.#opened();
    await this.#gather();
    await writer.commit({ written: (async function* () {})() });
    this.#disk.flushed();
    if (this.#random() < 0.5) {
      await writer[Symbol.asyncDispose]();
      this.#forget();
      this.#run++;
    }
    const found = await checkQcow2(IMAGE, { files: this.files });
    expect(found, this.#context).toMatchObject({ leaks: 0, corruptions: 0, dirty: false });
    this.#disk.expectExactly(await this.#content(), `${this.#context}, after a commit`);
  }

  async lose(): Promise<void> {
    this.files.lose(this.#random);
    this.#forget();
    const found = await checkQcow2(IMAGE, { files: this.files });
    expect(found.corruptions, `${this.#context}, after a power loss: ${found.messages[0]}`).toBe(0);
    if (!found.dirty) expect(found.leaks, `${this.#context}, after a power loss`).toBe(0);
    this.#disk.expectPossible(await this.#content(), `${this.#context}, after a power loss`);
  }
}

const shapes: Shape[] = [
  { clusterSize: 4096, size: 600 * 4096 + 512, backed: false, compress: false, lanes: false },
  { clusterSize: 4096, size: 600 * 4096 + 1024, backed: false, compress: false, lanes: true },
  { clusterSize: 4096, size: 600 * 4096 + 512, backed: true, compress: false, lanes: true },
  { clusterSize: 4096, size: 600 * 4096, backed: true, compress: true, lanes: true },
  { clusterSize: 512, size: 4000 * 512, backed: true, compress: false, lanes: false },
  { clusterSize: 65536, size: 20 * 65536 + 1536, backed: true, compress: false, lanes: false },
];

describe("a qcow2 image that is being written", () => {
  const first = seedOf(20_000);
  for (const [index, shape] of shapes.entries()) {
    it(`keeps what was flushed through kills and power losses: ${JSON.stringify(shape)}`, async () => {
      let deaths = 0;
      for (let seed = first + index * 100; seed < first + index * 100 + 10; seed++) {
        const life = new ImageLife(seed, shape);
        await life.create();
        for (let step = 0; step < 120; step++) await life.step();
        await life.commit();
        deaths += life.deaths;
      }
      expect(deaths).toBeGreaterThan(10);
    });
  }
});
