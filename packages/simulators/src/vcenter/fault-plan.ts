import type { Fields } from "./vim-value.ts";

/** What goes wrong when a rule applies. */
export type FaultAction =
  /** Answers with this vim25 fault instead of doing the call. */
  | { readonly kind: "fault"; readonly type: string; readonly message?: string; readonly fields?: Fields }
  /** Lets the task that the call starts fail with this fault. */
  | { readonly kind: "task-fault"; readonly type: string; readonly message?: string; readonly fields?: Fields }
  /** Never answers. */
  | { readonly kind: "hang" }
  /** Cuts the connection instead of doing the call. */
  | { readonly kind: "drop" }
  /** Does the call and cuts the connection instead of answering. */
  | { readonly kind: "drop-after" }
  /** Waits before the call. */
  | { readonly kind: "delay"; readonly ms: number }
  /** Answers with this HTTP status instead of doing the call: 503 with `retry-after`, a proxy's page … */
  | {
      readonly kind: "status";
      readonly status: number;
      readonly headers?: Record<string, string>;
      readonly body?: string;
    }
  /** Ends an answer that streams after so many bytes; `clean` as if it were whole. */
  | { readonly kind: "truncate"; readonly bytes: number; readonly clean: boolean }
  /** Ends every session before the call. */
  | { readonly kind: "expire-sessions" }
  /** Lets the test do something at this moment, before the call is done. */
  | { readonly kind: "run"; readonly run: () => void | Promise<void> };

/** When something goes wrong. */
export interface FaultRule {
  /** A method's name (`QueryChangedDiskAreas`), a path with its verb (`GET /folder`, `GET /nfc`), or `*` for any. */
  readonly method: string;
  /** Only these calls of the method, counted from 1 since the simulator's start. */
  readonly calls?: readonly number[];
  /** Only with this probability, from the plan's seed. */
  readonly probability?: number;
  /** At most so often. */
  readonly times?: number;
  readonly action: FaultAction;
}

/** Counts calls by method and says what goes wrong with each. */
export class FaultPlan {
  readonly #rules: { rule: FaultRule; left: number }[] = [];
  readonly #calls = new Map<string, number>();
  #state: number;

  constructor(seed: number, rules: readonly FaultRule[]) {
    this.#state = seed >>> 0;
    for (const rule of rules) this.add(rule);
  }

  /** Calls so far by method. */
  get calls(): ReadonlyMap<string, number> {
    return this.#calls;
  }

  /** Adds a rule; the function returned takes it away. */
  add(rule: FaultRule): () => void {
    if (rule.probability !== undefined && !(rule.probability >= 0 && rule.probability <= 1)) {
      throw new RangeError(`the probability of a fault is ${rule.probability}; it is between 0 and 1`);
    }
    const entry = { rule, left: rule.times ?? Infinity };
    this.#rules.push(entry);
    return () => {
      const index = this.#rules.indexOf(entry);
      if (index >= 0) this.#rules.splice(index, 1);
    };
  }

  /** Counts one call and returns what goes wrong with it. */
  take(method: string): FaultAction[] {
    const call = (this.#calls.get(method) ?? 0) + 1;
    this.#calls.set(method, call);
    const actions: FaultAction[] = [];
    for (const entry of this.#rules) {
      const { rule } = entry;
      if (rule.method !== "*" && rule.method !== method) continue;
      if (entry.left <= 0 || (rule.calls !== undefined && !rule.calls.includes(call))) continue;
      if (rule.probability !== undefined && this.#random() >= rule.probability) continue;
      entry.left--;
      actions.push(rule.action);
    }
    return actions;
  }

  #random(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }
}
