import type {
  BlockReader,
  BlockWriter,
  Extent,
  Job,
  Lane,
  SourceConnector,
  StateStore,
  TargetProvider,
  Tile,
} from "@diskferry/core";
import { ProviderError } from "@diskferry/core/provider";
import { type DoomedLaneData, doomedReader, doomedWrites } from "./doomed-lane.ts";
import type { Executioner } from "./kill-point.ts";
import { replaced } from "../replaced.ts";

/** What a disk that nobody tracks changed from each of its contents to the present one, as an exact tracker knows it. */
export interface KnownChanges {
  /** Names the present content. */
  version: string;
  since: Record<string, Extent[]>;
}

/** A job whose process dies at its executioner's word, wherever a run may be cut. */
export function doomedJob(job: Job, executioner: Executioner, changes: KnownChanges | undefined): Job {
  return {
    ...job,
    source: doomedSource(changes === undefined ? job.source : tracked(job.source, changes), executioner),
    target: doomedTarget(job.target, executioner),
    store: doomedStore(job.store, executioner),
  };
}

function tracked(source: SourceConnector, { version, since: known }: KnownChanges): SourceConnector {
  const plain = source.tracker!;
  return replaced<SourceConnector>(source, {
    tracker: {
      checkpoint: () => Promise.resolve(version),
      async *changes(disk, options = {}) {
        const { since, from = 0, to = disk.size } = options;
        if (since === undefined) {
          yield* plain.changes(disk, options);
          return;
        }
        const changed = since === version ? [] : known[since];
        if (changed === undefined) throw new ProviderError("TRACKING_LOST", `nothing is known since ${since}`);
        yield* tilesOf(changed, from, to);
      },
    },
  });
}

function* tilesOf(changed: readonly Extent[], from: number, to: number): Generator<Tile> {
  let position = from;
  for (const extent of changed) {
    const start = Math.max(extent.offset, position);
    const end = Math.min(extent.offset + extent.length, to);
    if (end <= start) continue;
    if (start > position) yield { offset: position, length: start - position, kind: "unchanged" };
    yield { offset: start, length: end - start, kind: "changed" };
    position = end;
  }
  if (position < to) yield { offset: position, length: to - position, kind: "unchanged" };
}

function doomedSource(source: SourceConnector, executioner: Executioner): SourceConnector {
  const { tracker } = source;
  return replaced<SourceConnector>(source, {
    snapshot: (machine, request) => executioner.at("snapshot", () => source.snapshot(machine, request)),
    release: (snapshot, wait) => executioner.at("release", () => source.release(snapshot, wait)),
    async open(disk, wait): Promise<BlockReader> {
      const reader = await source.open(disk, wait);
      const lane = doomedLane("source", reader.lane, executioner);
      return replaced(doomedReader(reader, executioner), lane === undefined ? {} : { lane });
    },
    ...(tracker === undefined
      ? {}
      : {
          tracker: replaced(tracker, {
            async *changes(disk, options) {
              executioner.pass("tiles", "before");
              for await (const tile of tracker.changes(disk, options)) {
                yield tile;
                executioner.pass("tiles", "after");
              }
            },
          }),
        }),
  });
}

function doomedTarget(target: TargetProvider, executioner: Executioner): TargetProvider {
  return replaced<TargetProvider>(target, {
    async open(volume, request): Promise<BlockWriter> {
      const writer = await target.open(volume, request);
      const { read } = writer;
      const lane = doomedLane("target", writer.lane, executioner);
      return replaced<BlockWriter>(doomedWrites(writer, executioner), {
        flush: (wait) => executioner.at("flush", () => writer.flush(wait)),
        commit: (wait) => executioner.at("commit", () => writer.commit(wait)),
        ...(read === undefined
          ? {}
          : {
              read(offset, into, wait) {
                executioner.pass("verify", "before");
                return read.call(writer, offset, into, wait);
              },
            }),
        ...(lane === undefined ? {} : { lane }),
      });
    },
  });
}

function doomedLane<Some extends Lane>(
  side: DoomedLaneData["side"],
  lane: Some | undefined,
  executioner: Executioner,
): Some | undefined {
  if (lane === undefined) return undefined;
  const data: DoomedLaneData = { side, module: lane.module, data: lane.data, doom: executioner.doom };
  return { ...lane, module: new URL("./doomed-lane.ts", import.meta.url).href, data };
}

/** A journal's frame has a header of this many bytes, and then the kind of its line. */
const frameHeader = 16;
const journalSteps: Record<number, "intent" | "journal"> = { 2: "intent", 3: "journal" };

interface Document {
  record?: { run: string };
  run?: { phase: string; disks: Record<string, { verified?: boolean }> };
}

function doomedStore(store: StateStore, executioner: Executioner): StateStore {
  let recorded: string | undefined;
  return replaced<StateStore>(store, {
    async get(key, wait) {
      const found = await store.get(key, wait);
      if (key.endsWith("/state")) recorded = (found?.value as Document | undefined)?.record?.run;
      return found;
    },
    append(key, bytes, wait) {
      const step = key.includes("/journals/") ? journalSteps[bytes[frameHeader]!] : undefined;
      const append = (): Promise<void> => store.append(key, bytes, wait);
      return step === undefined ? append() : executioner.at(step, append);
    },
    set(key, value, options) {
      const set = (): Promise<string> => store.set(key, value, options);
      if (!key.endsWith("/state")) return set();
      const { record, run } = value as Document;
      if (record !== undefined && record.run !== recorded) {
        recorded = record.run;
        return executioner.at("record", set);
      }
      if (run?.phase === "committing" && !Object.values(run.disks).some((disk) => "committed" in disk)) {
        return executioner.at("committing", set);
      }
      if (Object.values(run?.disks ?? {}).some((disk) => disk.verified === true)) {
        return set().then((revision) => {
          executioner.pass("verify", "after");
          return revision;
        });
      }
      return set();
    },
  });
}
