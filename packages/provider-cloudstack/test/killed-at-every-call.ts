import type { TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../test/seed.ts";
import { Cloud } from "../src/cloud.ts";
import type { CloudstackOptions } from "../src/index.ts";
import type { TestCloud } from "./cloud.ts";
import { dyingTransport } from "./dying-transport.ts";

const MOST_CALLS = 400;
const patience: CloudstackOptions["timeouts"] = {
  connectMs: 60_000,
  requestMs: 120_000,
  jobMs: 120_000,
  deviceMs: 60_000,
};

/** The same options with patience: nothing here is about time, and a busy machine is no failure. */
export function patient(options: CloudstackOptions): CloudstackOptions {
  return { ...options, timeouts: { ...options.timeouts, ...patience }, retryBudgetMs: 60_000 };
}

/** Writes the beginning of a volume, 64 KiB of a seed, in one run to its commit. */
export async function writeBeginning(
  target: TargetProvider,
  volume: Volume,
  { seed, epoch, run = "run" }: { seed: number; epoch: number; run?: string },
): Promise<Volume> {
  const writer = await target.open(volume, { run, epoch });
  try {
    await writer.write(0, randomBytes(65_536, seed));
    await writer.flush();
    return await writer.commit({ written: (async function* () {})() });
  } finally {
    await writer[Symbol.asyncDispose]();
  }
}

/**
 * Does the work in a process that dies after its first, second, third … call of the API, each time followed by one that
 * lives, until the work takes no more calls: every step, none sampled. The call before the death was done, its answer never
 * read. `judge` looks at what is left each time. Resolves with the number of calls.
 */
export async function killedAtEveryCall<End extends AsyncDisposable>(
  test: TestCloud,
  connect: (cloud: Cloud) => End,
  work: (end: End, round: number, attempt: number) => Promise<void>,
  judge: (round: number) => Promise<void>,
): Promise<number> {
  const options = patient(test.options);
  for (let lives = 1; lives < MOST_CALLS; lives++) {
    const transport = dyingTransport(options.endpoint, lives);
    const first = connect(await Cloud.open(options, undefined, transport));
    const failure = await work(first, lives, 1).then(
      () => undefined,
      (error: unknown) => error,
    );
    await first[Symbol.asyncDispose]();
    if (failure !== undefined && !transport.isDead)
      throw new Error(`call ${lives} was not reached`, { cause: failure });
    const second = connect(await Cloud.open(options));
    try {
      await work(second, lives, 2);
      await judge(lives);
    } catch (error) {
      throw new Error(`killed after call ${lives}, ${transport.calls.at(-1)}: ${String(error)}`, { cause: error });
    } finally {
      await second[Symbol.asyncDispose]();
    }
    // As the server does after a day; the list of jobs would grow without end.
    test.simulator.forgetJobs();
    if (!transport.isDead) return lives - 1;
  }
  throw new Error(`the work takes more than ${MOST_CALLS} calls`);
}
