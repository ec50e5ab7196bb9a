import type { AwsOptions, StaticKeys } from "../src/index.ts";
import type { AwsWorld } from "./aws-world.ts";
import { dyingProxy } from "../../../test/faults/dying-proxy.ts";

const MOST_CALLS = 200;

type More = Parameters<AwsWorld["options"]>[0];

/** Options as the world gives them; with the account told, so that nobody asks STS for it. */
function optionsOf(world: AwsWorld, more: More): AwsOptions {
  const options = world.options(more);
  const { accountId } = world.simulator.credentials[more?.account ?? 0]!;
  return { ...options, credentials: { ...(options.credentials as StaticKeys), accountId } };
}

/**
 * Does the work in a process that dies after its first, second, third … call of AWS, each time followed by one that lives,
 * until the work takes no more calls: every step, none sampled. The call before the death was done, its answer never read.
 * `options` lead to AWS for as long as the process lives. `judge` looks at what is left each time. Resolves with the
 * number of calls.
 */
export async function killedAtEveryCall(
  world: AwsWorld,
  work: (options: (more?: More) => AwsOptions, round: number, attempt: number) => Promise<void>,
  judge: (round: number) => Promise<void>,
): Promise<number> {
  for (let lives = 1; lives < MOST_CALLS; lives++) {
    await using proxy = await dyingProxy(world.simulator.endpoint, lives);
    // A dead process tries nothing again.
    const dying = (more: More = {}): AwsOptions =>
      optionsOf(world, { ...more, endpoint: proxy.endpoint, retryBudgetMs: 0 });
    const failure: unknown = await work(dying, lives, 1).then(
      () => undefined,
      (error: unknown) => error,
    );
    if (failure !== undefined && !proxy.isDead) throw new Error(`call ${lives} was not reached`, { cause: failure });
    try {
      await work((more) => optionsOf(world, more), lives, 2);
      await judge(lives);
    } catch (error) {
      throw new Error(`killed after call ${lives}, ${proxy.calls.at(-1)}: ${String(error)}`, { cause: error });
    }
    if (!proxy.isDead) return lives - 1;
  }
  throw new Error(`the work takes more than ${MOST_CALLS} calls`);
}
