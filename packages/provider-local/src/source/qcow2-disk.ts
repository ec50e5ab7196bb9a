import { closeSync, realpathSync } from "node:fs";
import { basename, resolve } from "node:path";
import type {
  BlockReader,
  ChangesOptions,
  Checkpoint,
  Disk,
  DiskSnapshot,
  Json,
  Tile,
  TrackerStatus,
  Wait,
} from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { claimPlace } from "../open-places.ts";
import type { DiskOptions } from "../options.ts";
import { type Qcow2Reader, openQcow2Reader } from "../qcow2/qcow2-reader.ts";
import { openRaw } from "../raw/raw-file.ts";
import type { DiskMoment, DiskSource } from "./disk-source.ts";
import { hashOf, withRelease } from "./raw-disk.ts";
import { watchedReader } from "./watched-reader.ts";

/** One file of a backing chain as it was at a point in time: that very file, and unchanged when both are equal. */
interface LayerMark {
  identity: string;
  stamp: string;
}

/** The token's first member, so that a token of another kind or age is seen for what it is. */
const tokenKind = "qcow2-layer-1";

/**
 * A qcow2 image with its backing chain to copy from. Its tracker is the chain itself: once somebody has put a new
 * overlay on what was copied (`qemu-img create -b`, an external snapshot), all that changed is in the overlays above.
 */
export function qcow2Disk(options: DiskOptions & { path: string }): DiskSource {
  const path = resolve(options.path);

  async function marksOf(reader: Qcow2Reader): Promise<LayerMark[]> {
    return reader.chain.map((layer) => markOf(layer.path));
  }

  async function opened(disk: DiskSnapshot, live: boolean, wait: Wait | undefined): Promise<Qcow2Reader> {
    const then = marksIn(disk);
    const reader = await openQcow2Reader(pathIn(disk), { signal: wait?.signal });
    try {
      const now = await marksOf(reader);
      const same = now.length === then.length && now.every((mark, index) => mark.identity === then[index]?.identity);
      const unchanged = same && now.every((mark, index) => mark.stamp === then[index]?.stamp);
      if (reader.size === disk.size && (unchanged || (same && live && disk.data?.["frozen"] !== true))) return reader;
      throw localError(
        "NOT_FOUND",
        `the point in time ${disk.id} of ${path} is gone: its backing chain was ${same ? "written to" : "changed"} since; ` +
          "start a new run",
        { operation: "opening" },
      );
    } catch (error) {
      await reader[Symbol.asyncDispose]();
      throw error;
    }
  }

  async function withReader<T>(wait: Wait | undefined, use: (reader: Qcow2Reader) => Promise<T> | T): Promise<T> {
    const reader = await openQcow2Reader(path, { signal: wait?.signal });
    try {
      return await use(reader);
    } finally {
      await reader[Symbol.asyncDispose]();
    }
  }

  return {
    place: path,
    async describe(wait?: Wait): Promise<Omit<Disk, "key">> {
      const size = await withReader(wait, (reader) => reader.size);
      return { size, name: options.name ?? basename(path) };
    },
    async moment(_key: string, wait?: Wait): Promise<DiskMoment> {
      return withReader(wait, async (reader) => {
        const marks = await marksOf(reader);
        const id = hashOf([path, String(reader.size), ...marks.flatMap(({ identity, stamp }) => [identity, stamp])]);
        const frozen = options.frozen === true;
        const layers = marks.map(({ identity, stamp }): Json => ({ identity, stamp }));
        // The file itself, not a link that leads to another one once the guest goes on in a new overlay.
        return { id, size: reader.size, frozen, data: { path: realpathSync(path), frozen, layers } };
      });
    },
    async open(disk: DiskSnapshot, live: boolean, wait?: Wait): Promise<BlockReader> {
      const reader = await opened(disk, live, wait);
      try {
        const [top, ...below] = reader.chain.map((layer) => placeOf(layer.path));
        const release = claimPlace({ place: top!, within: below, label: path }, "source");
        if (disk.data?.["frozen"] !== true) return withRelease(reader, release);
        const marks = marksIn(disk);
        const files = reader.chain.map((layer, index) => ({ path: layer.path, stamp: marks[index]!.stamp }));
        return withRelease(watchedReader(reader, path, files), release);
      } catch (error) {
        await reader[Symbol.asyncDispose]();
        throw error;
      }
    },
    checkpoint(disk: DiskSnapshot): Promise<Checkpoint | undefined> {
      const [top] = marksIn(disk);
      return Promise.resolve(JSON.stringify([tokenKind, top!.identity, top!.stamp, disk.size]));
    },
    async *changes(disk: DiskSnapshot, request: ChangesOptions): AsyncGenerator<Tile, void, void> {
      const reader = await opened(disk, true, request);
      try {
        const range = { from: request.from, to: request.to, signal: request.signal };
        if (request.since === undefined) {
          yield* reader.tiles(range);
          return;
        }
        yield* reader.tilesAbove(depthOf(path, reader, request.since, disk.size), range);
      } finally {
        await reader[Symbol.asyncDispose]();
      }
    },
    async status(wait?: Wait): Promise<TrackerStatus> {
      const depth = await withReader(wait, (reader) => reader.chain.length);
      return {
        supported: true,
        enabled: true,
        detail:
          `${path}: a chain of ${depth}; a run is incremental when a new overlay was put on the image that was copied ` +
          "before, and that image is unchanged since",
      };
    },
    close: () => Promise.resolve(),
  };
}

/** How many layers lie above the image that the token names. @throws ProviderError TRACKING_LOST. */
function depthOf(path: string, reader: Qcow2Reader, since: Checkpoint, size: number): number {
  const lost = (why: string): unknown =>
    localError("TRACKING_LOST", `${path}: what changed since the last run is not known: ${why}`, {
      operation: "changes",
    });
  const [kind, identity, stamp, sizeThen] = parseToken(since);
  if (kind !== tokenKind) throw lost("its checkpoint is not one of a qcow2 chain");
  if (sizeThen !== size) throw lost(`the disk had ${String(sizeThen)} bytes and has ${size}`);
  const marks = reader.chain.map((layer) => markOf(layer.path));
  const depth = marks.findIndex((mark) => mark.identity === identity);
  if (depth === -1) throw lost("the image that was copied is no longer in its backing chain");
  if (marks[depth]!.stamp !== stamp) {
    throw lost("the image that was copied has been written to since; put an overlay on it before it is used again");
  }
  return depth;
}

function parseToken(token: Checkpoint): unknown[] {
  try {
    const value: unknown = JSON.parse(token);
    return Array.isArray(value) ? value : [];
  } catch {
    return [];
  }
}

function markOf(path: string): LayerMark {
  const file = openRaw(path, { anySize: true });
  try {
    return { identity: file.identity, stamp: file.stamp };
  } finally {
    closeSync(file.fd);
  }
}

function placeOf(path: string): string {
  const file = openRaw(path, { anySize: true });
  try {
    return file.place;
  } finally {
    closeSync(file.fd);
  }
}

function pathIn(disk: DiskSnapshot): string {
  const path = disk.data?.["path"];
  if (typeof path === "string") return path;
  throw localError(
    "NOT_FOUND",
    `the snapshot ${disk.id} of ${disk.disk} is of a disk of another kind, which is not here; start a new run`,
  );
}

function marksIn(disk: DiskSnapshot): LayerMark[] {
  const layers: unknown = disk.data?.["layers"];
  const marks = Array.isArray(layers) ? layers.filter(isMark) : [];
  if (marks.length > 0) return marks;
  throw localError(
    "NOT_FOUND",
    `the snapshot ${disk.id} of ${disk.disk} is of a disk of another kind, which is not here; start a new run`,
  );
}

function isMark(value: unknown): value is LayerMark {
  if (typeof value !== "object" || value === null) return false;
  const { identity, stamp } = value as Partial<LayerMark>;
  return typeof identity === "string" && typeof stamp === "string";
}
