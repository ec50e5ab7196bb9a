import type { Wait } from "@diskferry/core/provider";
import { cloudstackError, failureOf, isLostAnswer } from "../errors.ts";
import { type CloudstackClient, type Parameters, newJobId } from "./cloudstack-client.ts";
import { pause } from "./pause.ts";

/** One change of the platform, told by the state it leads to, so that it can be begun, lost, adopted and repeated. */
export interface Step<State> {
  /** For messages: "volume X on machine Y". */
  object: string;
  /** Reads the platform. */
  look(): Promise<State>;
  /** The job that works on it, where the platform tells of one. */
  jobOf?(state: State): string | undefined;
  done(state: State): boolean;
  /** What to call while it is not done. @throws ProviderError where it cannot be done from this state */
  command(state: State): { command: string; parameters: Parameters };
  /** Parameters that have to be asked for first; added to those of `command`. */
  prepare?(): Promise<Parameters>;
  /** Whether no `customjobid` is sent: commands that create something would leave a row behind when it is refused. */
  creates?: boolean;
}

const ATTEMPTS = 5;

/**
 * Brings something about, once: a job that already works on it is waited for first, whoever began it; an answer that was
 * lost is looked for before anything is sent again; what a failed job did all the same counts as done.
 * @throws ProviderError what the platform refused it with
 */
export async function ensure<State>(client: CloudstackClient, step: Step<State>, wait: Wait = {}): Promise<State> {
  let jobId = newJobId();
  const { object } = step;
  let lost: Error | undefined;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const state = await settled(client, step, wait);
    if (step.done(state)) return state;
    const { command, parameters: given } = step.command(state);
    const parameters = { ...given, ...(await step.prepare?.()) };
    try {
      const sent = step.creates === true ? parameters : { ...parameters, customjobid: jobId };
      await client.run(command, sent, { ...wait, object });
    } catch (error) {
      // The request that was thought lost had arrived: its job has the id, and is waited for.
      if (isTaken(error, jobId)) {
        await finishQuietly(client, jobId, object, wait);
        jobId = newJobId();
        continue;
      }
      if (!isLostAnswer(error)) {
        const after = await settled(client, step, wait);
        if (!step.done(after)) throw error;
        client.notice(`${command} of ${object} was reported as failed and is done all the same.`);
        return after;
      }
      if (error instanceof Error) lost = error;
      client.notice(`The answer of ${command} of ${object} was lost; looking for what it did.`);
      // A request that reached the server has its job under this id and is awaited. Else the id is sent again, so that one
      // that is still on its way cannot be done as well.
      if (await finishQuietly(client, jobId, object, wait)) jobId = newJobId();
      await pause(100 * attempt, wait);
      continue;
    }
    const after = await step.look();
    if (step.done(after)) return after;
  }
  if (lost !== undefined) throw lost;
  throw cloudstackError("UNEXPECTED", `${object}: the platform says it is done, and it is not; see its events.`);
}

/** Whether the server refused an id because a job has it (`checkUuidSimple`). */
function isTaken(error: unknown, jobId: string): boolean {
  const failure = failureOf(error);
  return failure?.code === 431 && failure.message.includes(jobId) && /already exists/i.test(failure.message);
}

/** The state when nothing works on the object any more. */
async function settled<State>(client: CloudstackClient, step: Step<State>, wait: Wait): Promise<State> {
  for (let round = 1; ; round++) {
    const state = await step.look();
    const job = step.jobOf?.(state);
    if (job === undefined || round > ATTEMPTS) return state;
    await finishQuietly(client, job, step.object, wait);
  }
}

/**
 * Waits for a job, whatever becomes of it: what counts is the state after it.
 * @returns whether the server knows the job
 */
export async function finishQuietly(
  client: CloudstackClient,
  jobId: string,
  object: string,
  wait: Wait,
): Promise<boolean> {
  try {
    return (await client.finish(jobId, { ...wait, object })) !== undefined;
  } catch (error) {
    wait.signal?.throwIfAborted();
    const failure = failureOf(error);
    if (failure === undefined || failure.command === "queryAsyncJobResult") throw error;
    return true;
  }
}
