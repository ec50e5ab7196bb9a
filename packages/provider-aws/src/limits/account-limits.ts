import { type Clock, systemClock } from "./clock.ts";
import { type Permit, RateLimit, type RateReport } from "./rate-limit.ts";

/** Operations of the EBS direct APIs that have quotas. */
export type LimitedOperation =
  | "GetSnapshotBlock"
  | "PutSnapshotBlock"
  | "ListSnapshotBlocks"
  | "ListChangedBlocks"
  | "StartSnapshot"
  | "CompleteSnapshot";

interface Start {
  start: number;
  floor: number;
  saved?: number;
  blocks?: true;
}

/**
 * Where the search for each quota begins, in calls per second; by default AWS grants 1000 for blocks, 50 for lists and 10
 * for snapshots (Service Quotas, EBS direct APIs), and an account may have been granted more or have others at work.
 * A first run of a disk begins and completes two snapshots within a quarter of a second: they need not wait.
 */
const starts: Readonly<Record<LimitedOperation, Start>> = {
  GetSnapshotBlock: { start: 500, floor: 10, blocks: true },
  PutSnapshotBlock: { start: 500, floor: 10, blocks: true },
  ListSnapshotBlocks: { start: 25, floor: 2 },
  ListChangedBlocks: { start: 25, floor: 2 },
  StartSnapshot: { start: 5, floor: 0.5, saved: 2 },
  CompleteSnapshot: { start: 5, floor: 0.5, saved: 2 },
};

/** Snapshots whose own limiters are remembered; the oldest are forgotten first and learn anew. */
const mostSnapshots = 1000;

/** Leave of an account and, for blocks, of a snapshot too. */
export interface AccountPermit {
  answered(): void;
  /** `scope`: whose quota refused, where AWS tells; absent: the account's. */
  refused(scope?: "snapshot"): void;
}

/** The limiters of one account in one Region: one per operation, and for blocks one more per snapshot. */
export class AccountLimits {
  readonly #clock: Clock;
  readonly #ceiling: number | undefined;
  readonly #limits = new Map<string, RateLimit>();

  constructor(options: { blocksPerSecond?: number | undefined; clock?: Clock | undefined } = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#ceiling = options.blocksPerSecond;
  }

  /** Resolves when the call may be made. @throws the signal's reason */
  async take(
    operation: LimitedOperation,
    snapshotId: string | undefined,
    signal?: AbortSignal,
  ): Promise<AccountPermit> {
    const account = this.#limit(operation, operation);
    const snapshot =
      starts[operation].blocks === undefined || snapshotId === undefined
        ? undefined
        : this.#limit(operation, `${operation} ${snapshotId}`);
    // The snapshot's leave first: who waits for it must not hold leave of the account that another snapshot could use.
    const own: Permit | undefined = await snapshot?.take(signal);
    const shared = await account.take(signal);
    return {
      answered() {
        account.answered(shared);
        if (own !== undefined) snapshot?.answered(own);
      },
      refused(scope) {
        if (scope === "snapshot" && own !== undefined) snapshot?.refused(own);
        else account.refused(shared);
      },
    };
  }

  /** What the limiters have seen, by operation, and by operation and snapshot. */
  report(): Record<string, RateReport> {
    return Object.fromEntries([...this.#limits].map(([name, limit]) => [name, limit.report()]));
  }

  #limit(operation: LimitedOperation, key: string): RateLimit {
    const known = this.#limits.get(key);
    if (known !== undefined) return known;
    const { start, floor, saved, blocks } = starts[operation];
    const limit = new RateLimit({
      start,
      saved,
      floor,
      ceiling: blocks === undefined ? undefined : this.#ceiling,
      clock: this.#clock,
    });
    if (this.#limits.size >= mostSnapshots) {
      for (const old of this.#limits.keys()) {
        if (!old.includes(" ")) continue;
        this.#limits.delete(old);
        break;
      }
    }
    this.#limits.set(key, limit);
    return limit;
  }
}

const shared = new Map<string, AccountLimits>();

/**
 * The limiters that everything in this process shares which works for the same account in the same Region. The first
 * who asks sets the ceiling.
 */
export function accountLimits(
  place: { account: string; region: string; endpoint?: string | undefined },
  options: { blocksPerSecond?: number | undefined } = {},
): AccountLimits {
  const key = `${place.endpoint ?? "aws"} ${place.account} ${place.region}`;
  const known = shared.get(key);
  if (known !== undefined) return known;
  const limits = new AccountLimits(options);
  shared.set(key, limits);
  return limits;
}
