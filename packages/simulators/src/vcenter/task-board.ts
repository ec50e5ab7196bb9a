import { randomUUID } from "node:crypto";
import type { Properties } from "./inventory.ts";
import { VimFault } from "./vim-fault.ts";
import { Any, data, enumerated, reference, subtype } from "./vim-value.ts";
import type { Data, Reference, VimValue } from "./vim-value.ts";

interface Task {
  readonly id: string;
  readonly name: string;
  readonly descriptionId: string;
  readonly entity: Reference;
  readonly entityName: string;
  readonly userName: string;
  readonly queued: Date;
  state: "queued" | "running" | "success" | "error";
  progress: number | undefined;
  started: Date | undefined;
  completed: Date | undefined;
  result: VimValue | undefined;
  error: VimFault | undefined;
  cancelled: boolean;
}

/** Tasks that take time: queued, running with progress, then success or error. Finished ones stay readable. */
export class TaskBoard {
  readonly #tasks = new Map<string, Task>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #changed: () => void;
  readonly #durationMs: (method: string) => number;
  #counter = 0;

  constructor(durationMs: (method: string) => number, changed: () => void) {
    this.#durationMs = durationMs;
    this.#changed = changed;
  }

  /** Starts a task; its work is done at the end of its time. A `failure` makes it fail then without doing the work. */
  start(
    method: string,
    about: { entity: Reference; entityName: string; userName: string },
    work: () => VimValue | undefined,
    failure?: VimFault,
  ): Reference {
    const name = method.replace(/_Task$/, "");
    const task: Task = {
      id: `task-${++this.#counter}`,
      name,
      descriptionId: `${about.entity.type}.${name.charAt(0).toLowerCase()}${name.slice(1)}`,
      ...about,
      queued: new Date(),
      state: "queued",
      progress: undefined,
      started: undefined,
      completed: undefined,
      result: undefined,
      error: undefined,
      cancelled: false,
    };
    this.#tasks.set(task.id, task);
    const step = Math.max(0, this.#durationMs(method)) / 4;
    const advance = (quarter: number): void => {
      if (task.state === "error") return;
      if (quarter < 4) {
        task.state = "running";
        task.started ??= new Date();
        task.progress = quarter * 25;
        this.#later(step, () => advance(quarter + 1));
      } else {
        this.#finish(task, work, failure);
      }
      this.#changed();
    };
    this.#later(0, () => advance(step === 0 ? 4 : 1));
    return reference("Task", task.id);
  }

  /** Asks a running task to stop; what it would have done is not done. */
  cancel(id: string): void {
    const task = this.#tasks.get(id);
    if (task === undefined || task.state === "success" || task.state === "error") return;
    task.cancelled = true;
    task.state = "error";
    task.error = new VimFault("RequestCanceled", "The task was canceled by a user.");
    task.completed = new Date();
    this.#changed();
  }

  /** A task's properties; undefined where it does not exist. */
  properties(id: string): Properties | undefined {
    const task = this.#tasks.get(id);
    return task === undefined ? undefined : { info: () => infoOf(task) };
  }

  /** How many tasks have not ended. */
  get running(): number {
    let count = 0;
    for (const task of this.#tasks.values()) if (task.state === "queued" || task.state === "running") count++;
    return count;
  }

  /** Forgets every task, as a restarted vCenter does; the work of running ones is still done by the host. */
  forget(): void {
    this.#tasks.clear();
  }

  /** Ends every timer; what was not done is not done. */
  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #finish(task: Task, work: () => VimValue | undefined, failure: VimFault | undefined): void {
    try {
      if (failure !== undefined) throw failure;
      task.result = work();
      task.state = "success";
    } catch (error) {
      task.state = "error";
      task.error = error instanceof VimFault ? error : new VimFault("SystemError", String(error), { reason: "" });
    }
    task.started ??= new Date();
    task.completed = new Date();
    task.progress = undefined;
  }

  #later(delayMs: number, action: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, delayMs);
    this.#timers.add(timer);
  }
}

/** A fault as tasks and leases carry it. */
export function localizedFault(fault: VimFault): Data {
  return data("LocalizedMethodFault", {
    fault: subtype(fault.detail.type, fault.detail.fields),
    localizedMessage: fault.message,
  });
}

function infoOf(task: Task): Data {
  return data("TaskInfo", {
    key: task.id,
    task: reference("Task", task.id),
    name: task.name,
    descriptionId: task.descriptionId,
    entity: task.entity,
    entityName: task.entityName,
    state: enumerated("TaskInfoState", task.state),
    cancelled: task.cancelled,
    cancelable: task.state === "queued" || task.state === "running",
    error: task.error === undefined ? undefined : localizedFault(task.error),
    result: task.result === undefined ? undefined : new Any(task.result),
    progress: task.progress,
    reason: subtype("TaskReasonUser", { userName: task.userName }),
    queueTime: task.queued,
    startTime: task.started,
    completeTime: task.completed,
    eventChainId: 0,
    activationId: randomUUID().slice(0, 8),
  });
}
