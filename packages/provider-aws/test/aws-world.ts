import { randomBytes } from "node:crypto";
import { type AwsSimulator, type AwsSimulatorOptions, startAwsSimulator } from "@diskferry/simulators";
import type { AwsOptions } from "../src/index.ts";

/** Bytes of a block of the EBS direct APIs, and of the volumes of the simulator's ready instances. */
export const block: number = 512 * 1024;
export const gibi: number = 2 ** 30;

/** A simulator, and options that lead to it. */
export interface AwsWorld extends AsyncDisposable {
  simulator: AwsSimulator;
  /** Options of a connection; the first account in us-east-1 unless told otherwise. */
  options(more?: Partial<AwsOptions> & { account?: number }): AwsOptions;
}

/** Starts a simulator that is quick, with options for connections that do not wait long. */
export async function awsWorld(options: AwsSimulatorOptions = {}): Promise<AwsWorld> {
  const delays = { startVisibleMs: 5, completeMs: 5, listableMs: 5, changeMs: 5, ...options.delays };
  const simulator = await startAwsSimulator({ quotaScale: Number.POSITIVE_INFINITY, ...options, delays });
  return {
    simulator,
    options({ account = 0, ...more } = {}) {
      const { accessKeyId, secretAccessKey, sessionToken } = simulator.credentials[account]!;
      return {
        region: "us-east-1",
        endpoint: simulator.endpoint,
        credentials: { accessKeyId, secretAccessKey, sessionToken },
        ...more,
        timeouts: { pollMs: 5, blockMs: 20_000, requestMs: 20_000, visibleMs: 30_000, ...more.timeouts },
      };
    },
    [Symbol.asyncDispose]: () => simulator[Symbol.asyncDispose](),
  };
}

/** A block's worth of bytes that nothing compresses or repeats. */
export function randomBlock(length: number = block): Buffer {
  return randomBytes(length);
}

/** Everything that a stream gives. */
export async function gather<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}
