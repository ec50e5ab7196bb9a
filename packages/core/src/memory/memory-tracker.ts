import type { Tile, TileKind } from "../provider/extents.ts";
import type { DiskSnapshot, Machine } from "../provider/source.ts";
import type { ChangesOptions, ChangeTracker, Checkpoint } from "../provider/tracker.ts";
import type { Wait } from "../provider/wait.ts";
import { ExtentSet } from "./extent-set.ts";
import { memoryError, type MemoryGate } from "./memory-gate.ts";
import type { DiskPoint, MemoryGuests, Tracking } from "./memory-guest.ts";

/** Shapes the tracker of a memory place. */
export interface MemoryTrackerOptions {
  /** The unit it reports in, in bytes; a larger one reports more than what changed. Default 64 KiB. */
  granularity?: number | undefined;
  /** The longest tile, in bytes: a small one makes long listings. Default: no bound. */
  tileLength?: number | undefined;
  /** Tiles carry a hint; `required`: reads of changed tiles without it are rejected. Default false. */
  hints?: boolean | "required" | undefined;
  /** The snapshot behind a checkpoint must outlive it. Default false. */
  keepsBase?: boolean | undefined;
  /** Whether tracking is on before `enable` was called. Default true. */
  enabled?: boolean | undefined;
}

interface TrackerParts {
  gate: MemoryGate;
  guests: MemoryGuests;
  options: MemoryTrackerOptions;
}

/** Opens the tracker: it knows for each disk what changed in which generation, and forgets nothing. */
export function openMemoryTracker({ gate, guests, options }: TrackerParts): ChangeTracker {
  const granularity = options.granularity ?? 64 * 1024;

  const all = (
    machine: Machine,
    method: string,
    signal: AbortSignal | undefined,
    renew: (enabled: boolean) => boolean,
  ) =>
    gate.pass({ side: "source", method, on: machine.id }, signal, () => {
      for (const guest of guests.guest(machine.id, method).disks.values()) {
        if (renew(guest.tracking.enabled)) guests.resetTracking(guest, true);
      }
    });

  return {
    ...(options.keepsBase === true ? { keepsBase: true as const } : {}),

    enable: (machine: Machine, wait: Wait = {}) => all(machine, "tracker.enable", wait.signal, (enabled) => !enabled),

    reset: (machine: Machine, wait: Wait = {}) => all(machine, "tracker.reset", wait.signal, () => true),

    status: (machine: Machine, disk: string, wait: Wait = {}) =>
      gate.pass({ side: "source", method: "tracker.status", on: machine.id }, wait.signal, () => {
        const { enabled } = guests.disk(machine.id, disk, "status").tracking;
        return { supported: true, enabled, ...(enabled ? {} : { detail: "tracking is off: enable turns it on" }) };
      }),

    checkpoint: (disk: DiskSnapshot, wait: Wait = {}) =>
      gate.pass({ side: "source", method: "tracker.checkpoint", on: disk.id }, wait.signal, () => {
        const point = guests.point(disk.id, "checkpoint");
        const { fault } = guests.disk(point.machine, point.disk, "checkpoint").tracking;
        if (!point.enabled || fault?.kind === "no-checkpoint") return undefined;
        return JSON.stringify([disk.id, point.identity, point.generation, point.content.size]);
      }),

    async *changes(disk: DiskSnapshot, { since, from = 0, to, signal }: ChangesOptions = {}) {
      const point = guests.point(disk.id, "changes");
      const { size } = point.content;
      const end = to ?? size;
      if (from < 0 || from > end || end > size)
        throw new RangeError(`changes of ${disk.id}: [${from}, ${end}) is not inside its ${size} bytes`);
      const { tracking } = guests.disk(point.machine, point.disk, "changes");
      const listed = (): Iterable<Tile> => {
        const changed = since === undefined ? undefined : changedSince(guests, disk, point, tracking, since, options);
        return spoiled(tilesOf(point, changed, granularity, from, end, options.tileLength), tracking.fault, disk.id);
      };
      // A listing of nothing is a call too: the faults and the cancellation of tests reach it.
      let tiles: Iterator<Tile> | undefined;
      for (let offset = from; ;) {
        const { done, value } = await gate.pass(
          { side: "source", method: "tracker.changes", on: disk.id, offset },
          signal,
          () => {
            guests.point(disk.id, "changes");
            tiles ??= listed()[Symbol.iterator]();
            return tiles.next();
          },
        );
        if (done === true) return;
        offset = value.offset + value.length;
        yield options.hints !== undefined && options.hints !== false
          ? { ...value, hint: hintOf(disk.id, value) }
          : value;
      }
    },
  };
}

/** Judges the hint of a read, when there is one to be judged. */
export function checkMemoryHint(
  options: MemoryTrackerOptions,
  snapshot: string,
  offset: number,
  length: number,
  hint: unknown,
): void {
  if (hint === undefined) {
    if (options.hints !== "required") return;
    throw memoryError(
      "UNEXPECTED",
      "read",
      `${snapshot} at ${offset}+${length}: this place reads by the hint of a tile alone`,
    );
  }
  const [of, start, bytes] = typeof hint === "string" ? (JSON.parse(hint) as [string, number, number]) : ["", 0, 0];
  if (of !== snapshot || offset < start || offset + length > start + bytes) {
    throw memoryError(
      "CORRUPT",
      "read",
      `${snapshot} at ${offset}+${length}: the hint is that of ${of} at ${start}+${bytes}`,
    );
  }
}

function hintOf(snapshot: string, tile: Tile): string {
  return JSON.stringify([snapshot, tile.offset, tile.length]);
}

function changedSince(
  guests: MemoryGuests,
  disk: DiskSnapshot,
  point: DiskPoint,
  tracking: Tracking,
  since: Checkpoint,
  options: MemoryTrackerOptions,
): ExtentSet {
  const lost = (why: string) => memoryError("TRACKING_LOST", "changes", `changes of ${disk.id} are not known: ${why}`);
  const [base, identity, generation, size] = parseCheckpoint(since) ?? [];
  if (base === undefined || identity === undefined || generation === undefined)
    throw lost("the checkpoint is not one of this place");
  if (identity !== point.identity || identity !== tracking.identity)
    throw lost("tracking began anew since the checkpoint, or it is another disk's");
  if (size !== point.content.size)
    throw lost(`the disk had ${size} bytes at the checkpoint and has ${point.content.size} now`);
  if (generation > point.generation) throw lost("the checkpoint is younger than the snapshot");
  if (options.keepsBase === true) {
    const [snapshot = ""] = base.split("/");
    if (guests.takenById(snapshot) === undefined)
      throw lost(`${snapshot}, on which the checkpoint stands, was released`);
  }
  const changed = new ExtentSet();
  for (const past of tracking.history) {
    if (past.generation > generation && past.generation <= point.generation) changed.addAll(past.changed);
  }
  return changed;
}

function parseCheckpoint(text: string): [string, number, number, number] | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return Array.isArray(parsed) && parsed.length === 4 && typeof parsed[0] === "string"
      ? (parsed as [string, number, number, number])
      : undefined;
  } catch {
    return undefined;
  }
}

/** Tiles [from, to): what is stored is read, what is not is zero; without `changed` everything counts as changed. */
function* tilesOf(
  point: DiskPoint,
  changed: ExtentSet | undefined,
  granularity: number,
  from: number,
  to: number,
  tileLength = Number.MAX_SAFE_INTEGER,
): Generator<Tile> {
  const { size } = point.content;
  const stored = point.content.allocated().widened(granularity, size);
  const touched = changed?.widened(granularity, size) ?? new ExtentSet();
  if (changed === undefined) touched.add(0, size);
  let at = from;
  function* upTo(end: number, kind: TileKind): Generator<Tile> {
    while (at < end) {
      const length = Math.min(tileLength, end - at);
      yield { offset: at, length, kind };
      at += length;
    }
  }
  for (const range of touched.within(from, to)) {
    yield* upTo(range.offset, "unchanged");
    for (const data of stored.within(range.offset, range.offset + range.length)) {
      yield* upTo(data.offset, "zero");
      yield* upTo(data.offset + data.length, "changed");
    }
    yield* upTo(range.offset + range.length, "zero");
  }
  yield* upTo(to, "unchanged");
}

/** The listing as a broken platform would give it. */
function* spoiled(tiles: Iterable<Tile>, fault: Tracking["fault"], disk: string): Generator<Tile> {
  let index = 0;
  let held: Tile | undefined;
  for (const tile of tiles) {
    const here = index++ === (fault?.tiles ?? -1);
    const beyond = fault !== undefined && index > fault.tiles;
    if (here && fault?.kind === "lost-midway") {
      throw memoryError("TRACKING_LOST", "changes", `changes of ${disk} are not known from ${tile.offset} on`);
    }
    if (beyond && fault.kind === "truncated") return;
    if (here && fault?.kind === "gap") continue;
    if (here && fault?.kind === "disorder") {
      held = tile;
      continue;
    }
    if (here && fault?.kind === "empty") yield { ...tile, length: 0 };
    if (here && fault?.kind === "overlap") yield { ...tile, length: tile.length + 512 };
    else if (beyond && fault.kind === "lie" && tile.kind !== "unchanged") yield { ...tile, kind: "unchanged" };
    else yield tile;
    if (held !== undefined) {
      yield held;
      held = undefined;
    }
  }
  if (held !== undefined) yield held;
}
