import { allocationFlag } from "../protocol.ts";
import type { AllocationExtent, BackendWait, NbdExport } from "./backend.ts";
import { type ChangeTracking, changesPrefix } from "./change-tracking.ts";

/** Descriptors in one reply at most; a client asks again from where they end. */
const mostDescriptors = 16_384;

/** The bit of a `diskferry:changes:` extent that was written, zeroed or trimmed since the last reset. */
export const changedFlag = 1;

/**
 * The bit of a `diskferry:changes:<name>:<identity>:<epoch>` extent whose epoch is over, reset after the client chose it:
 * what changed is not known. `changedFlag` is set beside it, for whoever looks at that alone.
 */
export const changesLostFlag = 2;

/** One kind of block status that a client chose. */
export interface MetaContext {
  readonly name: string;
  /**
   * Length and flags in turn, from `offset` on: contiguous, at least one pair, ending at `offset + length` or before.
   * `one`: exactly one pair.
   */
  describe(offset: number, length: number, one: boolean, wait: BackendWait): Promise<number[]>;
}

/** Every context of an export. */
export function contextsOf(entry: NbdExport): MetaContext[] {
  return [allocationContext(entry), ...(entry.tracking ?? []).flatMap(changesContexts)];
}

/** Whether a listing's query asks for this context: its name, or the beginning of it up to a colon. */
export function matchesQuery(name: string, query: string): boolean {
  return name === query || (query.endsWith(":") && name.startsWith(query));
}

function allocationContext({ backend }: NbdExport): MetaContext {
  return {
    name: "base:allocation",
    async describe(offset, length, one, wait) {
      const run = new DescriptorRun(offset, offset + length, one ? 1 : mostDescriptors);
      if (backend.extents !== undefined) {
        for await (const extent of backend.extents(offset, length, wait)) {
          if (!addAllocation(run, extent, backend.blockSize ?? 1, backend.size)) break;
        }
      }
      return run.finish();
    },
  };
}

/** Adds the aligned inside of an extent; what alignment cuts off counts as data. False: no more is wanted. */
function addAllocation(run: DescriptorRun, extent: AllocationExtent, blockSize: number, size: number): boolean {
  const flags = (extent.hole ? allocationFlag.hole : 0) | (extent.zero ? allocationFlag.zero : 0);
  const extentEnd = extent.offset + extent.length;
  const start = Math.ceil(extent.offset / blockSize) * blockSize;
  const end = extentEnd >= size ? size : Math.floor(extentEnd / blockSize) * blockSize;
  return flags === 0 || end <= start ? !run.isFull : run.add(start, end, flags);
}

/** The tracking under its name alone, and as the one it is in the epoch in which the client asks. */
function changesContexts(tracking: ChangeTracking): MetaContext[] {
  const { metaContext } = tracking;
  return [
    changesContext(changesPrefix + tracking.name, tracking, () => false),
    changesContext(metaContext, tracking, () => tracking.metaContext !== metaContext),
  ];
}

function changesContext(name: string, tracking: ChangeTracking, isOver: () => boolean): MetaContext {
  return {
    name,
    async describe(offset, length, one) {
      const end = offset + length;
      const run = new DescriptorRun(offset, end, one ? 1 : mostDescriptors);
      // Nothing is awaited from here on, so that no reset comes between this and the map.
      if (isOver()) run.add(offset, end, changedFlag | changesLostFlag);
      for (let at = offset; at < end && !run.isFull;) {
        const next = tracking.runAt(at, end);
        if (next.changed) run.add(at, at + next.length, changedFlag);
        else run.add(at, at + next.length, 0);
        at += next.length;
      }
      return run.finish();
    },
  };
}

/** Collects descriptors: merges equal neighbours, fills gaps with flags 0, keeps within bounds and count. */
class DescriptorRun {
  readonly #end: number;
  readonly #most: number;
  readonly #descriptors: number[] = [];
  #at: number;

  constructor(offset: number, end: number, most: number) {
    this.#at = offset;
    this.#end = end;
    this.#most = most;
  }

  /** Whether another descriptor would be one too many, or the range is covered. */
  get isFull(): boolean {
    return this.#descriptors.length / 2 > this.#most || this.#at >= this.#end;
  }

  add(from: number, to: number, flags: number): boolean {
    const start = Math.max(from, this.#at);
    const end = Math.min(to, this.#end);
    if (end <= start) return !this.isFull;
    if (start > this.#at) this.#push(start - this.#at, 0);
    this.#push(end - start, flags);
    return !this.isFull;
  }

  finish(): number[] {
    if (this.#at < this.#end) this.#push(this.#end - this.#at, 0);
    return this.#descriptors.slice(0, this.#most * 2);
  }

  #push(length: number, flags: number): void {
    this.#at += length;
    const last = this.#descriptors.length - 1;
    if (last > 0 && this.#descriptors[last] === flags) {
      this.#descriptors[last - 1] = (this.#descriptors[last - 1] ?? 0) + length;
    } else {
      this.#descriptors.push(length, flags);
    }
  }
}
