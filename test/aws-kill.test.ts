import {
  isProviderError,
  type Job,
  MemoryStateStore,
  replicate,
  type RunReport,
  type SourceConnector,
  type StateStore,
  type TargetProvider,
} from "@diskferry/core";
import { type AwsOptions, provider as aws } from "@diskferry/provider-aws";
import type { AwsSimulator } from "@diskferry/simulators";
import { expect, test } from "vitest";
import { AwsGuest, differencesOf, optionsTo, quickSimulator } from "./aws/aws-guest.ts";
import { dyingProxy } from "./faults/dying-proxy.ts";
import { replaced } from "./replaced.ts";
import { seedOf } from "./seed.ts";

// A whole run, out of AWS and into it, whose process dies after each of its calls in turn: the call was done, its answer never
// read, and nothing was written down afterwards. The next process has to end with equal bytes and to leave nothing over.

const seed = seedOf(9091);
const MOST_CALLS = 150;
const place = { region: "eu-west-1" };

/** Options that need no call to learn the account; a dead process tries nothing again. */
function options(simulator: AwsSimulator, more: AwsOptions = {}): AwsOptions {
  const { accessKeyId, secretAccessKey, accountId } = simulator.credentials[0]!;
  return optionsTo(simulator, { ...more, credentials: { accessKeyId, secretAccessKey, accountId } });
}

/** A store that nothing is written to once its process is dead. */
function mortal(store: StateStore, isDead: () => boolean): StateStore {
  const alive = <Result>(work: () => Promise<Result>): Promise<Result> =>
    isDead() ? Promise.reject(new Error("the process is dead")) : work();
  return replaced<StateStore>(store, {
    set: (key, value, more) => alive(() => store.set(key, value, more)),
    put: (key, bytes, wait) => alive(() => store.put(key, bytes, wait)),
    append: (key, bytes, wait) => alive(() => store.append(key, bytes, wait)),
    delete: (key, wait) => alive(() => store.delete(key, wait)),
  });
}

interface Life {
  simulator: AwsSimulator;
  job: string;
  disks: string[];
  store: StateStore;
}

/** What one process has open: AWS as the source in one Region and as the target in another. */
interface Ends extends AsyncDisposable {
  source: SourceConnector;
  target: TargetProvider;
}

async function openEnds(simulator: AwsSimulator, more: AwsOptions = {}): Promise<Ends> {
  const source = await aws.source!(options(simulator, more));
  const target = await aws.target!(options(simulator, { ...more, ...place }));
  return {
    source,
    target,
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]();
      await target[Symbol.asyncDispose]();
    },
  };
}

/** One attempt of a life's job, until its process dies where it has a `death`. */
async function attempt({ simulator, job: id, disks, store }: Life, ends: Ends, death?: Death): Promise<RunReport> {
  const kept = death === undefined ? store : mortal(store, death.isDead);
  const { source, target } = ends;
  const job: Job = {
    id,
    source,
    machine: simulator.instances.linux,
    disks,
    target,
    store: kept,
    options: { workers: 0 },
  };
  return await replicate(job, death === undefined ? {} : { signal: death.signal });
}

interface Death {
  isDead: () => boolean;
  signal: AbortSignal;
}

/** Kinds of what a job has at both ends. */
async function owned({ source, target }: Ends, job: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { kind, description } of source.owned(job)) found.push(`${kind} ${/held/.exec(description)?.[0]}`);
  for await (const { kind } of target.owned(job)) found.push(kind);
  return found.toSorted();
}

for (const kind of ["full", "incremental"] as const) {
  test(`a run, ${kind}, that is killed after any call of either end goes on: equal bytes, one snapshot held, nothing left over`, async () => {
    const delays = { startVisibleMs: 0, completeMs: 0, listableMs: 0, changeMs: 0 };
    await using simulator = await quickSimulator({ delays });
    const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
    const [root] = guest.volumes as [string];
    // Whoever comes after a death; it keeps nothing in memory of those before.
    await using living = await openEnds(simulator);
    await guest.write(root, 0, 1, 2047);
    let calls = 0;
    let life: Life = { simulator, job: kind, disks: [root], store: new MemoryStateStore() };
    if (kind === "incremental") await attempt(life, living);
    for (let lives = 1; ; lives++) {
      expect(lives).toBeLessThan(MOST_CALLS);
      if (kind === "full") life = { ...life, job: `full ${lives}`, store: new MemoryStateStore() };
      else {
        await guest.write(root, 1, 7, ...(lives % 2 === 0 ? [2047] : []));
        if (lives % 2 === 1) await guest.trim(root, 2047);
      }
      const stop = new AbortController();
      await using proxy = await dyingProxy(simulator.endpoint, lives, () => stop.abort());
      const failure: unknown = await (async () => {
        await using dying = await openEnds(simulator, { endpoint: proxy.endpoint, retryBudgetMs: 0 });
        await attempt(life, dying, { isDead: () => proxy.isDead, signal: stop.signal });
      })().then(
        () => undefined,
        (error: unknown) => error,
      );
      if (failure !== undefined && !proxy.isDead) throw failure as Error;
      const about = `killed after call ${lives}, ${proxy.calls.at(-1)}, seed ${seed}`;
      try {
        const { volume } = (await attempt(life, living)).disks[0]!;
        expect(await differencesOf(living.target, volume!, guest.content(root)), about).toEqual([]);
      } catch (error) {
        throw isProviderError(error) ? new Error(`${about}: ${error.message}`, { cause: error }) : error;
      }
      const found = await owned(living, life.job);
      expect(new Set(found), about).toEqual(new Set(["snapshot held", "commit", "volume"]));
      expect(
        found.filter((each) => each === "snapshot held"),
        about,
      ).toHaveLength(1);
      if (!proxy.isDead) {
        calls = lives - 1;
        break;
      }
    }
    expect(calls).toBeGreaterThan(25);
  }, 1_800_000);
}
