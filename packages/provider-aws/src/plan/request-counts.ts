import type { Figure } from "@diskferry/core/provider";

/** Bytes of a block of the EBS direct APIs, the same for every snapshot (EBS direct APIs, GetSnapshotBlock). */
export const BLOCK_BYTES: number = 512 * 1024;

/** Blocks in one page of a listing at most (EBS direct APIs, ListSnapshotBlocks, MaxResults). */
const PAGE_BLOCKS = 10_000;

/** Calls per second that AWS grants an account in one Region by default (Service Quotas, EBS direct APIs). */
export const DEFAULT_QUOTAS: Readonly<Record<"GetSnapshotBlock" | "PutSnapshotBlock" | "ListSnapshotBlocks", number>> =
  {
    GetSnapshotBlock: 1000,
    PutSnapshotBlock: 1000,
    ListSnapshotBlocks: 50,
  };

/** How many blocks so many bytes take at least: changed ranges widen to whole blocks. */
export function blocksOf(bytes: Figure): Figure {
  return { value: Math.ceil(bytes.value / BLOCK_BYTES), kind: bytes.kind };
}

/** Pages in which so many blocks are listed; one even for none. AWS may send shorter and empty ones: an estimate. */
export function listingPages(blocks: Figure): Figure {
  return { value: Math.max(1, Math.ceil(blocks.value / PAGE_BLOCKS)), kind: "estimate" };
}

/** Minutes that so many calls take at a quota of calls per second, at least. */
export function minutesAtQuota(calls: Figure, perSecond: number): Figure {
  return { value: Math.round((calls.value / perSecond / 60) * 100) / 100, kind: calls.kind };
}

/** The sum of figures: as good as the worst of them. */
export function sumOf(figures: readonly Figure[]): Figure {
  const kinds = figures.map(({ kind }) => kind);
  const kind = kinds.includes("estimate") ? "estimate" : kinds.includes("bound") ? "bound" : "exact";
  return { value: figures.reduce((sum, { value }) => sum + value, 0), kind };
}
