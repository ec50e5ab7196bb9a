import { randomUUID } from "node:crypto";
import { ApiError, errorCodes } from "./api-error.ts";
import type { Submission } from "./command.ts";
import type { FaultAction } from "./fault-plan.ts";

/** An asynchronous job as `queryAsyncJobResult` tells it. */
export interface Job {
  readonly id: string;
  /** The server's class of the command. */
  readonly cmd: string;
  readonly ownerId: string;
  readonly userId: string;
  readonly instanceType: string | undefined;
  readonly instanceId: string | undefined;
  readonly created: number;
  /** 0 pending, 1 done, 2 failed. */
  status: 0 | 1 | 2;
  /** 0, or the error's code. */
  resultCode: number;
  result: object | undefined;
  completed: number | undefined;
}

/** What a command says about the job that it starts. */
export interface JobRequest {
  readonly cmd: string;
  readonly caller: { readonly ownerId: string; readonly userId: string };
  readonly instanceType?: string | undefined;
  readonly instanceId?: string | undefined;
  /** `customjobid`: the id that the client wants. */
  readonly customId?: string | undefined;
  /** Jobs of one queue are done one after the other: those of a machine. */
  readonly queue?: string | undefined;
}

/** Jobs take time and are done in the background; ended ones stay to be asked for. */
export class JobBoard {
  readonly #jobs = new Map<string, Job>();
  readonly #queues = new Map<string, Promise<unknown>>();
  readonly #running = new Set<Promise<unknown>>();
  readonly #held = new Set<Promise<unknown>>();
  readonly #timers = new Map<NodeJS.Timeout, () => void>();
  readonly #now: () => number;
  readonly #durationMs: (command: string) => number;
  #release: PromiseWithResolvers<void> = Promise.withResolvers();
  #stopped = false;

  constructor(now: () => number, durationMs: (command: string) => number) {
    this.#now = now;
    this.#durationMs = durationMs;
  }

  /** @throws ApiError 431 where the id that the client wants is taken */
  submit(
    command: string,
    request: JobRequest,
    faults: readonly FaultAction[],
    submission: Pick<Submission, "work" | "failed">,
  ): Job {
    const { customId, caller } = request;
    if (customId !== undefined) {
      if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(customId))
        throw new ApiError(errorCodes.parameter, `UUID: ${customId} is not valid`);
      if (this.#jobs.has(customId)) throw new ApiError(errorCodes.parameter, `UUID: ${customId} already exists`);
    }
    const job: Job = {
      id: customId ?? randomUUID(),
      cmd: request.cmd,
      ownerId: caller.ownerId,
      userId: caller.userId,
      instanceType: request.instanceType,
      instanceId: request.instanceId,
      created: this.#now(),
      status: 0,
      resultCode: 0,
      result: undefined,
      completed: undefined,
    };
    this.#jobs.set(job.id, job);
    if (faults.some((each) => each.kind === "job-hangs")) return job;
    const held = faults.some((each) => each.kind === "job-held");
    const before = held || request.queue === undefined ? undefined : this.#queues.get(request.queue);
    // A held job has left its queue: the host ends it long after the server went on.
    const running = this.#run(command, job, faults, before, held ? this.#release.promise : undefined, submission);
    if (held) this.#held.add(running);
    else if (request.queue !== undefined) this.#queues.set(request.queue, running);
    this.#running.add(running);
    void running.finally(() => {
      this.#running.delete(running);
      this.#held.delete(running);
    });
    return job;
  }

  get(id: string): Job | undefined {
    return this.#jobs.get(id);
  }

  all(): Job[] {
    return [...this.#jobs.values()];
  }

  /** The pending job of an object, which its list answers carry. */
  pendingOf(instanceId: string): Job | undefined {
    return this.all().find((job) => job.status === 0 && job.instanceId === instanceId);
  }

  /** Lets every held job do its work and resolves when they have ended. */
  async release(): Promise<void> {
    const held = [...this.#held];
    this.#release.resolve();
    this.#release = Promise.withResolvers();
    await Promise.all(held);
  }

  /** Forgets jobs that ended, as the server does after `job.expire.minutes`. */
  forgetEnded(): void {
    for (const job of this.#jobs.values()) if (job.status !== 0) this.#jobs.delete(job.id);
  }

  /** Ends every wait; what has not begun is not done, what has begun is waited for. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const [timer, wake] of this.#timers) {
      clearTimeout(timer);
      wake();
    }
    this.#release.resolve();
    await Promise.all(this.#running);
  }

  async #run(
    command: string,
    job: Job,
    faults: readonly FaultAction[],
    before: Promise<unknown> | undefined,
    held: Promise<void> | undefined,
    submission: Pick<Submission, "work" | "failed">,
  ): Promise<void> {
    await before;
    await held;
    await this.#wait(faults.reduce((sum, each) => sum + (each.kind === "job-delay" ? each.ms : 0), 0));
    await this.#wait(this.#durationMs(command));
    if (this.#stopped) return;
    try {
      const failure = faults.find((each) => each.kind === "job-fails");
      if (failure !== undefined) {
        submission.failed?.();
        throw faultError(failure);
      }
      job.result = await submission.work();
      const late = faults.find((each) => each.kind === "job-fails-late");
      if (late !== undefined) throw faultError(late);
      job.status = 1;
    } catch (error) {
      // Jobs tell everybody the text of their errors (ApiAsyncJobDispatcher), masked or not.
      const known = error instanceof ApiError ? error : new ApiError(errorCodes.internal, String(error));
      job.status = 2;
      job.resultCode = known.code;
      job.result = { uuidList: [], errorcode: known.code, errortext: known.message };
    }
    job.completed = this.#now();
  }

  #wait(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      resolve();
    }, ms);
    this.#timers.set(timer, resolve);
    return promise;
  }
}

function faultError(fault: { code?: number; text?: string }): ApiError {
  return new ApiError(fault.code ?? errorCodes.internal, fault.text ?? "Failed due to an error on the host");
}
