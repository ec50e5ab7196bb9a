import type { Cost, Figure } from "@diskferry/core/provider";

/** The operations of the EBS direct APIs that are paid for by request. */
export type PricedOperation = "ListSnapshotBlocks" | "ListChangedBlocks" | "GetSnapshotBlock" | "PutSnapshotBlock";

/** Prices of one Region in US dollars. */
export interface Prices {
  /** The day they were read, ISO 8601. */
  readOn: string;
  /** Per request. */
  requests: Readonly<Record<PricedOperation, number>>;
  /** Per GiB and month, standard tier. */
  snapshotGibMonth: number;
  /** Per GiB and month, gp3 without additional IOPS and throughput. */
  gp3GibMonth: number;
}

/**
 * What the EBS direct APIs and snapshot storage cost in US East (N. Virginia), in US dollars: data, not code. Other
 * Regions differ by up to half. Source: EC2 user guide, "Pricing for EBS direct APIs", and the EBS price list.
 */
export const prices: Prices = {
  readOn: "2023-05-01",
  requests: {
    ListSnapshotBlocks: 0.0006 / 1000,
    ListChangedBlocks: 0.0006 / 1000,
    GetSnapshotBlock: 0.003 / 1000,
    PutSnapshotBlock: 0.006 / 1000,
  },
  snapshotGibMonth: 0.05,
  gp3GibMonth: 0.08,
};

/** What so many requests cost. */
export function requestCost(operation: PricedOperation, count: Figure): Cost {
  const amount: Figure = { value: cents(count.value * prices.requests[operation]), kind: count.kind };
  return { item: `${operation} requests`, amount, currency: "USD", pricesOf: prices.readOn };
}

/** What so many bytes in snapshots cost for a month. */
export function snapshotStorageCost(bytes: Figure): Cost {
  const amount: Figure = { value: cents((bytes.value / 2 ** 30) * prices.snapshotGibMonth), kind: bytes.kind };
  return { item: "storage of the snapshots for a month", amount, currency: "USD", pricesOf: prices.readOn };
}

/** Rounded up to a hundredth of a cent: a plan does not promise less than is charged. */
function cents(dollars: number): number {
  return Math.ceil(dollars * 10_000 - 1e-6) / 10_000;
}
