/** What goes wrong when a rule applies. */
export type FaultAction =
  /** Answers with this error instead of doing the command. `raw`: the text as it is, even where the platform masks it. */
  | {
      readonly kind: "error";
      readonly code: number;
      readonly text: string;
      readonly exception?: number;
      readonly raw?: true;
    }
  /** Answers with this HTTP status and body instead of doing the command: a proxy's 502, a page of HTML. */
  | {
      readonly kind: "status";
      readonly status: number;
      readonly body?: string;
      readonly headers?: Record<string, string>;
    }
  /** Never answers; the command is not done. */
  | { readonly kind: "hang" }
  /** Cuts the connection; the command is not done. */
  | { readonly kind: "drop" }
  /** Does the command and cuts the connection instead of answering. */
  | { readonly kind: "lose-answer" }
  /** Waits before the command. */
  | { readonly kind: "delay"; readonly ms: number }
  /** Lets the test do something before the command is done. */
  | { readonly kind: "run"; readonly run: () => void | Promise<void> }
  /** The command's job fails without doing its work. */
  | { readonly kind: "job-fails"; readonly code?: number; readonly text?: string }
  /** The command's job does its work and then says that it failed. */
  | { readonly kind: "job-fails-late"; readonly code?: number; readonly text?: string }
  /** The command's job stays pending for ever and does nothing. */
  | { readonly kind: "job-hangs" }
  /** The command's job stays pending for so long before it begins. */
  | { readonly kind: "job-delay"; readonly ms: number }
  /** The command's job stays pending until `releaseJobs()`, and is then done whatever the world looks like: a straggler. */
  | { readonly kind: "job-held" };

/** When something goes wrong. */
export interface FaultRule {
  /** A command (`attachVolume`), `upload` or `download` at the storage machine, or `*` for every command. */
  readonly command: string;
  /** Only these calls of it, counted from 1 since the simulator's start. */
  readonly calls?: readonly number[];
  /** From 0 to 1, from the plan's seed. */
  readonly probability?: number;
  /** At most so often. */
  readonly times?: number;
  readonly action: FaultAction;
}

/** Counts calls by command and says what goes wrong with each. */
export class FaultPlan {
  readonly #rules: { rule: FaultRule; left: number }[] = [];
  readonly #calls = new Map<string, number>();
  #random: number;

  constructor(seed: number) {
    this.#random = seed >>> 0;
  }

  /** Calls so far by command, whatever became of them. */
  get calls(): ReadonlyMap<string, number> {
    return this.#calls;
  }

  /** Adds a rule; the function returned takes it away. */
  add(rule: FaultRule): () => void {
    const entry = { rule, left: rule.times ?? Number.POSITIVE_INFINITY };
    this.#rules.push(entry);
    return () => {
      const index = this.#rules.indexOf(entry);
      if (index >= 0) this.#rules.splice(index, 1);
    };
  }

  /** Forgets all rules; the counters go on. */
  clear(): void {
    this.#rules.length = 0;
  }

  /** Counts one call and says what goes wrong with it. */
  take(command: string): FaultAction[] {
    const call = (this.#calls.get(command) ?? 0) + 1;
    this.#calls.set(command, call);
    const actions: FaultAction[] = [];
    for (const entry of this.#rules) {
      const { rule } = entry;
      if (rule.command !== command && rule.command !== "*") continue;
      if (entry.left <= 0 || (rule.calls !== undefined && !rule.calls.includes(call))) continue;
      if (rule.probability !== undefined && this.#draw() >= rule.probability) continue;
      entry.left--;
      actions.push(rule.action);
    }
    return actions;
  }

  #draw(): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    return this.#random / 4294967296;
  }
}
