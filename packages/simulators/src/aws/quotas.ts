/** Calls per second that AWS grants by default in one Region (Service Quotas, EBS direct APIs). */
const perAccount: Readonly<Record<string, number>> = {
  GetSnapshotBlock: 1000,
  PutSnapshotBlock: 1000,
  ListSnapshotBlocks: 50,
  ListChangedBlocks: 50,
  StartSnapshot: 10,
  CompleteSnapshot: 10,
};
const perSnapshot: Readonly<Record<string, number>> = { GetSnapshotBlock: 1000, PutSnapshotBlock: 1000 };

/** Token buckets that hold one second's worth of calls each, per account and per snapshot. */
export class Quotas {
  readonly #scale: number;
  readonly #accountScale: number;
  readonly #buckets = new Map<string, { left: number; at: number }>();
  readonly #refused = new Map<string, number>();

  /** `scale` multiplies every rate, `accountScale` those per account once more; Infinity lifts them. */
  constructor(scale: number, accountScale: number) {
    this.#scale = scale;
    this.#accountScale = accountScale;
  }

  /** Takes one call and says which quota refuses it, if one does. */
  take(
    operation: string,
    place: string,
    snapshotId: string | undefined,
    now: number,
  ): "account" | "snapshot" | undefined {
    const account = (perAccount[operation] ?? Infinity) * this.#scale * this.#accountScale;
    const snapshot = (perSnapshot[operation] ?? Infinity) * this.#scale;
    const byEither =
      snapshotId !== undefined && !this.#draw(`${operation} ${snapshotId}`, snapshot, now)
        ? "snapshot"
        : this.#draw(`${operation} in ${place}`, account, now)
          ? undefined
          : "account";
    if (byEither !== undefined) this.#refused.set(operation, (this.#refused.get(operation) ?? 0) + 1);
    return byEither;
  }

  /** Calls refused so far, by operation. */
  refused(): Record<string, number> {
    return Object.fromEntries(this.#refused);
  }

  #draw(key: string, rate: number, now: number): boolean {
    if (!Number.isFinite(rate)) return true;
    const capacity = Math.max(1, rate);
    const bucket = this.#buckets.get(key) ?? { left: capacity, at: now };
    bucket.left = Math.min(capacity, bucket.left + (Math.max(0, now - bucket.at) / 1000) * rate);
    bucket.at = now;
    this.#buckets.set(key, bucket);
    if (bucket.left < 1) return false;
    bucket.left--;
    return true;
  }
}
