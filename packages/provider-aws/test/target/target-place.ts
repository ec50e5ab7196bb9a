import { createHash } from "node:crypto";
import { onTestFinished } from "vitest";
import type { BlockWriter, TargetProvider, Volume, WrittenExtent } from "@diskferry/core/provider";
import { type AwsSimulator, type AwsSimulatorOptions, startAwsSimulator } from "@diskferry/simulators";
import { type AwsOptions, provider } from "../../src/index.ts";

export const block: number = 512 * 1024;
export const region = "us-east-1";

/** A simulator of AWS, and targets in it; all of it ends with the test. */
export interface Place {
  simulator: AwsSimulator;
  options: AwsOptions;
  /** Another connection each time, as after a restart. */
  open(more?: Partial<AwsOptions>): Promise<TargetProvider>;
  notices: string[];
}

/** Options for a simulator's account, with waits as short as its delays. */
export function optionsFor(simulator: AwsSimulator, account = 0): AwsOptions {
  const { accessKeyId, secretAccessKey } = simulator.credentials[account]!;
  return {
    region,
    endpoint: simulator.endpoint,
    credentials: { accessKeyId, secretAccessKey },
    concurrency: 16,
    timeouts: { pollMs: 5, visibleMs: 10_000, powerMs: 30_000, snapshotMs: 30_000 },
    retryBudgetMs: 10_000,
  };
}

export async function startPlace(simulated: AwsSimulatorOptions = {}, more: Partial<AwsOptions> = {}): Promise<Place> {
  const delays = { startVisibleMs: 0, completeMs: 2, listableMs: 0, changeMs: 2, ...simulated.delays };
  const simulator = await startAwsSimulator({ quotaScale: 100, ...simulated, delays });
  onTestFinished(() => simulator.close());
  const options = { ...optionsFor(simulator), ...more };
  const notices: string[] = [];
  return {
    simulator,
    options,
    notices,
    async open(other = {}) {
      const target = await provider.target!({ ...options, ...other }, { notice: (line) => notices.push(line) });
      onTestFinished(() => target[Symbol.asyncDispose]());
      return target;
    },
  };
}

export const sha256 = (bytes: Uint8Array): Uint8Array => createHash("sha256").update(bytes).digest();

/** Writes blocks by index, with their digests, and gives what a commit has to be told of them. */
export async function writeBlocks(
  writer: BlockWriter,
  blocks: ReadonlyMap<number, Uint8Array>,
): Promise<() => AsyncIterable<WrittenExtent>> {
  await Promise.all([...blocks].map(([index, bytes]) => writer.write(index * block, bytes, { digest: sha256(bytes) })));
  return () => writtenOf(blocks);
}

/** The listing of blocks for a commit, in ascending order. */
export async function* writtenOf(blocks: ReadonlyMap<number, Uint8Array>): AsyncGenerator<WrittenExtent> {
  for (const [index, bytes] of [...blocks].sort(([one], [other]) => one - other))
    yield { offset: index * block, length: block, digests: sha256(bytes) };
}

/** One run from beginning to end. */
export async function commitRun(
  target: TargetProvider,
  volume: Volume,
  run: string,
  blocks: ReadonlyMap<number, Uint8Array>,
  base?: Volume,
): Promise<Volume> {
  await using writer = await target.open(volume, { run, base, epoch: 1, job: "job" });
  const written = await writeBlocks(writer, blocks);
  await writer.flush();
  return writer.commit({ written: written() });
}
