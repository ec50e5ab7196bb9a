import type { BlockReader, TargetProvider, Volume } from "@diskferry/core";
import type { AwsOptions } from "@diskferry/provider-aws";
import { type AwsSimulator, type AwsSimulatorOptions, startAwsSimulator } from "@diskferry/simulators";
import { randomBytes } from "../seed.ts";

export const block: number = 512 * 1024;

/** A simulator that answers quickly, without quotas unless told otherwise. */
export function quickSimulator(options: AwsSimulatorOptions = {}): Promise<AwsSimulator> {
  const delays = { startVisibleMs: 5, completeMs: 5, listableMs: 5, changeMs: 5, ...options.delays };
  return startAwsSimulator({ quotaScale: Number.POSITIVE_INFINITY, ...options, delays });
}

/** Options that lead to a simulator. */
export function optionsTo(
  simulator: AwsSimulator,
  { account = 0, ...more }: AwsOptions & { account?: number } = {},
): AwsOptions {
  const { accessKeyId, secretAccessKey } = simulator.credentials[account]!;
  return {
    region: "us-east-1",
    endpoint: simulator.endpoint,
    credentials: { accessKeyId, secretAccessKey },
    ...more,
    timeouts: { pollMs: 5, blockMs: 20_000, requestMs: 20_000, ...more.timeouts },
  };
}

/** Plays the guest of an instance, and knows what each of its volumes holds. */
export class AwsGuest {
  readonly volumes: string[];
  readonly #simulator: AwsSimulator;
  readonly #blocks = new Map<string, Map<number, Uint8Array>>();
  #seed: number;

  constructor(simulator: AwsSimulator, instance: string, seed: number) {
    this.#simulator = simulator;
    this.#seed = seed;
    this.volumes = simulator.volumesOf(instance);
    for (const volume of this.volumes) this.#blocks.set(volume, new Map());
  }

  /** Writes random bytes into blocks of a volume. */
  async write(volume: string, ...indices: number[]): Promise<void> {
    for (const index of indices) {
      const bytes = randomBytes(block, this.#seed++);
      await this.#simulator.writeVolume(volume, index * block, bytes);
      this.#blocks.get(volume)!.set(index, bytes);
    }
  }

  /** Gives blocks of a volume back. */
  async trim(volume: string, ...indices: number[]): Promise<void> {
    for (const index of indices) {
      await this.#simulator.trimVolume(volume, index * block, block);
      this.#blocks.get(volume)!.set(index, new Uint8Array(block));
    }
  }

  /** What a volume holds now, in the blocks that were ever written; everything else is zero. */
  content(volume: string): ReadonlyMap<number, Uint8Array> {
    return new Map(this.#blocks.get(volume));
  }
}

/** Where a reader differs from what a volume held: blocks by index, neighbours of what was written included. */
export async function differences(reader: BlockReader, content: ReadonlyMap<number, Uint8Array>): Promise<number[]> {
  const last = reader.size / block - 1;
  const around = [...content.keys()].flatMap((index) => [index - 1, index, index + 1]);
  const indices = [...new Set([0, last, ...around])].filter((index) => index >= 0 && index <= last);
  const wrong: number[] = [];
  const into = new Uint8Array(block);
  for (const index of indices) {
    await reader.read(index * block, into.fill(0x5a));
    if (Buffer.compare(into, content.get(index) ?? new Uint8Array(block)) !== 0) wrong.push(index);
  }
  return wrong;
}

/** Where a committed volume differs from what the source's volume held. */
export async function differencesOf(
  target: TargetProvider,
  volume: Volume,
  content: ReadonlyMap<number, Uint8Array>,
): Promise<number[]> {
  await using reader = await target.read!(volume);
  return await differences(reader, content);
}
