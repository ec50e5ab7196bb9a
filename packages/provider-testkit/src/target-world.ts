import { createHash } from "node:crypto";
import type { BlockReader, BlockWriter, TargetProvider, Volume, WrittenExtent } from "@diskferry/core/provider";
import type { TargetHarness } from "./harness.ts";
import { freshKey, type Judge } from "./judge.ts";

/** A writer under test that keeps account of what it wrote, so that its commit can say so. */
export interface Writing {
  writer: BlockWriter;
  /** The length the suite writes in: a multiple of `blockSize`, at least 4096. */
  unit: number;
  /** Writes, with the digests the writer asks for. */
  write(offset: number, data: Uint8Array, options?: { signal?: AbortSignal }): Promise<void>;
  /** Zeroes, where the writer can. */
  zero(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
  /** Flushes and commits all that was written through this and what `also` names. */
  commit(also?: Writing): Promise<Volume>;
  /** What a commit has to be told. */
  written(): AsyncIterable<WrittenExtent>;
}

/** A target under test, and the words in which clauses speak of it. */
export class TargetWorld {
  readonly judge: Judge;
  readonly harness: TargetHarness;
  readonly target: TargetProvider;

  private constructor(judge: Judge, harness: TargetHarness, target: TargetProvider) {
    this.judge = judge;
    this.harness = harness;
    this.target = target;
  }

  static async open(judge: Judge): Promise<TargetWorld> {
    const harness = judge.needs(judge.harness.target, "target");
    const target = await harness.open();
    judge.defer(() => target[Symbol.asyncDispose]());
    return new TargetWorld(judge, harness, target);
  }

  /** Another connection, as after a restart. */
  async restarted(): Promise<TargetProvider> {
    const target = await this.harness.open();
    this.judge.defer(() => target[Symbol.asyncDispose]());
    return target;
  }

  /** Makes a volume and removes it when the clause was judged. */
  async volume(options: { key?: string; job?: string; size?: number } = {}): Promise<Volume> {
    const { key = freshKey("volume"), size = this.harness.size, job } = options;
    const volume = await this.target.create({ key, size, job });
    this.willRemove(volume);
    return volume;
  }

  willRemove(volume: Volume): void {
    this.judge.defer(async () => {
      const target = await this.harness.open();
      try {
        await target.remove(volume);
      } finally {
        await target[Symbol.asyncDispose]();
      }
    });
  }

  /** Opens a run; the suite counts epochs from 1. */
  async open(
    volume: Volume,
    options: { run?: string; epoch?: number; base?: Volume; job?: string; target?: TargetProvider } = {},
  ): Promise<Writing> {
    const { run = freshKey("run"), epoch = 1, base, job, target = this.target } = options;
    const writer = await target.open(volume, { run, epoch, base, job });
    this.judge.defer(() => writer[Symbol.asyncDispose]());
    return this.#account(writer, volume);
  }

  /** Writes pieces, each filled up to whole blocks, in a run of their own and commits them; the writer is closed. */
  async run(
    volume: Volume,
    pieces: readonly [number, Uint8Array][],
    options: Parameters<TargetWorld["open"]>[1] = {},
  ): Promise<Volume> {
    const writing = await this.open(volume, options);
    for (const [offset, data] of pieces) await writing.write(offset, wholeBlocks(data, writing.writer.blockSize));
    const committed = await writing.commit();
    await writing.writer[Symbol.asyncDispose]();
    return committed;
  }

  async reader(volume: Volume, target: TargetProvider = this.target): Promise<BlockReader> {
    if (target.read === undefined) return this.judge.skip("absent: target.read");
    const reader = await target.read(volume);
    this.judge.defer(() => reader[Symbol.asyncDispose]());
    return reader;
  }

  /** Demands that a committed volume holds bytes. */
  async holds(volume: Volume, offset: number, expected: Uint8Array, what: string): Promise<void> {
    this.judge.same(await this.harness.readVolume(volume, offset, expected.byteLength), expected, what);
  }

  /** Whether removing commits makes sense: each is a volume of its own. */
  hasVersions(volume: Volume, committed: Volume): boolean {
    return volume.id !== committed.id;
  }

  #account(writer: BlockWriter, volume: Volume): Writing {
    const unit = Math.max(4096, writer.blockSize);
    const blocks = new Set<number>();
    const { blockSize, digest, size } = writer;
    const digestsOf = (data: Uint8Array): Uint8Array =>
      Buffer.concat(
        Array.from({ length: Math.ceil(data.byteLength / blockSize) }, (_, index) =>
          createHash("sha256")
            .update(data.subarray(index * blockSize, (index + 1) * blockSize))
            .digest(),
        ),
      );
    const digests = new Map<number, Uint8Array>();

    async function* written(): AsyncGenerator<WrittenExtent> {
      for (const offset of [...blocks].sort((one, other) => one - other)) {
        const length = Math.min(blockSize, size - offset);
        const own = digests.get(offset);
        yield digest === undefined || own === undefined ? { offset, length } : { offset, length, digests: own };
      }
    }

    const writing: Writing & { blocks: Set<number>; digests: Map<number, Uint8Array> } = {
      writer,
      unit,
      blocks,
      digests,
      async write(offset, data, options = {}) {
        const own = digest === undefined ? undefined : digestsOf(data);
        await writer.write(offset, data, { ...options, digest: own });
        for (let at = 0; at < data.byteLength; at += blockSize) {
          blocks.add(offset + at);
          if (own !== undefined) digests.set(offset + at, own.slice((at / blockSize) * 32, (at / blockSize + 1) * 32));
        }
      },
      async zero(offset, length) {
        await writer.zero?.(offset, length);
        for (let at = offset; at < offset + length; at += blockSize) {
          blocks.add(at);
          if (digest !== undefined) digests.set(at, digestsOf(new Uint8Array(Math.min(blockSize, size - at))));
        }
      },
      flush: () => writer.flush(),
      written,
      commit: async (also) => {
        if (also !== undefined) {
          const other = also as typeof writing;
          for (const offset of other.blocks) blocks.add(offset);
          for (const [offset, own] of other.digests) if (!digests.has(offset)) digests.set(offset, own);
        }
        await writer.flush();
        const committed = await writer.commit({ written: written() });
        if (committed.id !== volume.id) this.willRemove(committed);
        return committed;
      },
    };
    return writing;
  }
}

/** Data filled up with zeroes to whole blocks, as core fills up what it gives a writer. */
function wholeBlocks(data: Uint8Array, blockSize: number): Uint8Array {
  if (data.byteLength % blockSize === 0) return data;
  const whole = new Uint8Array(Math.ceil(data.byteLength / blockSize) * blockSize);
  whole.set(data);
  return whole;
}
