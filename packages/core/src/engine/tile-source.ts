import { isProviderError } from "../provider/error.ts";
import type { Tile } from "../provider/extents.ts";
import type { DiskSnapshot } from "../provider/source.ts";
import type { ChangeTracker, Checkpoint } from "../provider/tracker.ts";
import type { Wait } from "../provider/wait.ts";
import { sleep } from "../layers/clock.ts";
import type { AttemptPolicy } from "./attempts.ts";
import type { Fallback, RunMode, TrackingLostPolicy } from "./job.ts";
import { provenTiles } from "./tiles.ts";

export interface TileRequest extends Wait {
  tracker: ChangeTracker | undefined;
  snapshot: DiskSnapshot;
  mode: RunMode;
  since: Checkpoint | undefined;
  from: number;
  to: number;
  onTrackingLost: TrackingLostPolicy;
  attempts: AttemptPolicy;
  /** Told of each tile that is passed on. */
  onTile?(tile: Tile): void;
  /** Told when the tracker gave up, and from where on the policy applies. */
  onFallback(fallback: Fallback, from: number): void;
}

/**
 * The tiles a run works through: what the tracker lists, listed again from where it broke off for a passing reason,
 * and from where it lost track on the policy's answer. Without a tracker, or in a rescan: everything may have changed.
 */
export async function* tilesOf(request: TileRequest): AsyncGenerator<Tile, void> {
  for await (const tile of provenTiles(listed(request), request.from, request.to, request.snapshot.disk)) {
    request.onTile?.(tile);
    yield tile;
  }
}

/** The same items, of which the first is asked for at once. Whoever does not go through them returns them. */
export function begun<Item>(items: AsyncGenerator<Item, void>): Required<AsyncIterableIterator<Item, void>> {
  let first: Promise<IteratorResult<Item, void>> | undefined = items.next();
  first.catch(() => {});
  return {
    next() {
      const next = first ?? items.next();
      first = undefined;
      return next;
    },
    return: () => items.return(),
    throw: (error: unknown) => items.throw(error),
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

async function* listed(request: TileRequest): AsyncGenerator<Tile, void> {
  const { tracker, snapshot, mode, to, attempts, signal } = request;
  if (tracker === undefined) {
    yield* between(request.from, to);
    return;
  }
  const since = mode === "incremental" ? request.since : undefined;
  let position = request.from;
  let failures = 0;
  while (position < to) {
    try {
      for await (const tile of tracker.changes(snapshot, { since, from: position, to, signal })) {
        // Without a checkpoint nothing is known to be unchanged: whoever says so is not believed.
        yield since === undefined && tile.kind === "unchanged" ? { ...tile, kind: "changed" } : tile;
        position = tile.offset + tile.length;
        failures = 0;
      }
      return;
    } catch (error) {
      if (!isProviderError(error)) throw error;
      if (error.code === "TRACKING_LOST") {
        // A listing of what is allocated is only a way to read less: without it all is read, and nothing is lost.
        if (since !== undefined && request.onTrackingLost === "fail") throw error;
        const to = since === undefined || request.onTrackingLost === "fail" ? mode : request.onTrackingLost;
        const from = since === undefined ? "allocation" : "incremental";
        request.onFallback({ disk: snapshot.disk, from, to, reason: error.message }, position);
        yield* between(position, request.to);
        return;
      }
      if (!error.retryable || ++failures >= attempts.attempts) throw error;
      await sleep(error.retryAfterMs ?? Math.min(attempts.maxMs, attempts.baseMs * 2 ** (failures - 1)), { signal });
    }
  }
}

async function* between(from: number, to: number): AsyncGenerator<Tile, void> {
  if (to > from) yield { offset: from, length: to - from, kind: "changed" };
}
