/** What a fault does to the request it meets. */
export type AwsFault =
  | "throttle"
  | "resource-throttle"
  | "dependency-throttle"
  | "quota-exceeded"
  | "internal-error"
  | "unavailable"
  | "no-capacity"
  | "hang"
  | "reset"
  | "truncate"
  | "flip"
  | "empty"
  | "read-failed"
  | "write-timeout"
  | "expired-block-token"
  | "expired-page-token"
  | "expired-credentials"
  | "clock-skew";

/** Which requests meet a fault; every condition given must hold. */
export interface AwsFaultRule {
  fault: AwsFault;
  /** An operation's name (`PutSnapshotBlock`, `CreateVolume`); absent means every operation. */
  operation?: string;
  /** Numbers of the operation's calls, from 1, first and last included. */
  calls?: { first: number; last: number };
  /** From 0 to 1, drawn from the plan's seed; 1 when absent. */
  probability?: number;
  /** How often the rule strikes at most; without it, without end. */
  times?: number;
}

/** Decides by operation, call number and a seeded chance which requests go wrong, and counts calls. */
export class FaultPlan {
  readonly #rules: { rule: AwsFaultRule; left: number }[] = [];
  readonly #calls = new Map<string, number>();
  #random: number;

  constructor(seed: number) {
    this.#random = seed >>> 0;
  }

  /** Adds a rule; earlier rules are asked first. */
  add(rule: AwsFaultRule): void {
    this.#rules.push({ rule, left: rule.times ?? Number.POSITIVE_INFINITY });
  }

  /** Forgets all rules; the counters go on. */
  clear(): void {
    this.#rules.length = 0;
  }

  /** Requests seen so far of each operation, whatever became of them. */
  counters(): Record<string, number> {
    return Object.fromEntries(this.#calls);
  }

  /** Counts one call and says which fault it meets, if any. */
  next(operation: string): AwsFault | undefined {
    const call = (this.#calls.get(operation) ?? 0) + 1;
    this.#calls.set(operation, call);
    for (const entry of this.#rules) {
      const { rule } = entry;
      if (entry.left <= 0 || (rule.operation !== undefined && rule.operation !== operation)) continue;
      if (rule.calls !== undefined && (call < rule.calls.first || call > rule.calls.last)) continue;
      if (rule.probability !== undefined && this.#draw() >= rule.probability) continue;
      entry.left--;
      return rule.fault;
    }
    return undefined;
  }

  #draw(): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    return this.#random / 4294967296;
  }
}
