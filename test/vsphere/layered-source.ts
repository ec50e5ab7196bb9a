import {
  type BlockReader,
  type DiskSnapshot,
  type Machine,
  ProviderError,
  type Snapshot,
  type SourceConnector,
  type Tile,
} from "@diskferry/core";
import { changedSince, changeIdOf, contentOf, type DiskState, merge, remove, take } from "./layered-disk.ts";

/** Bytes of a block, which is a leaf of the replica too. */
export const blockBytes = 65_536;

/** Called around each step that takes effect: it may throw, and the step is then lost, or its answer is. */
export type Around = (step: string, act: () => void) => void;

/** A machine of one disk over the model, as the engine sees a vSphere source. Snapshots are found again by their key. */
export function layeredSource(disk: DiskState, keys: Map<string, number>, around: Around): SourceConnector {
  const blocks = disk.layers[0]!.values.length;
  const size = blocks * blockBytes;
  const machine: Machine = { id: "vm", name: "vm", disks: [{ key: "2000", size }] };
  const known = (snapshot: DiskSnapshot): number => {
    const id = Number(snapshot.id);
    if (disk.snapshots.some((each) => each.id === id)) return id;
    throw new ProviderError("NOT_FOUND", `the snapshot ${id} is gone`);
  };
  return {
    async *machines(): AsyncGenerator<Machine> {
      yield Promise.resolve(machine);
    },
    machine: () => Promise.resolve(machine),
    snapshot(_, { key }): Promise<Snapshot> {
      return settled(() => {
        if (!keys.has(key)) around("make a snapshot", () => void keys.set(key, take(disk)));
        const id = keys.get(key)!;
        const disks: DiskSnapshot[] = [{ id: String(id), machine: "vm", disk: "2000", size }];
        return { id: String(id), key, machine: "vm", consistency: "crash", takenAt: new Date(0).toISOString(), disks };
      });
    },
    open: (snapshot) => settled((): BlockReader => readerOf(disk, known(snapshot), size, around)),
    release: ({ id }) =>
      settled(() => {
        around("remove a snapshot", () => remove(disk, Number(id)));
        around("merge", () => merge(disk));
      }),
    async *owned() {},
    tracker: {
      checkpoint: (snapshot) => settled(() => String(changeIdOf(disk, known(snapshot)))),
      async *changes(snapshot, { since, from = 0, to = size } = {}): AsyncGenerator<Tile> {
        let changed: number[] = [];
        around("list", () => {
          changed = since === undefined ? [] : changedSince(disk, known(snapshot), Number(since));
        });
        await Promise.resolve();
        for (let offset = from; offset < to; offset += blockBytes) {
          const isChanged = since === undefined || changed.includes(offset / blockBytes);
          yield { offset, length: Math.min(blockBytes, to - offset), kind: isChanged ? "changed" : "unchanged" };
        }
      },
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function readerOf(disk: DiskState, id: number, size: number, around: Around): BlockReader {
  return {
    size,
    blockSize: blockBytes,
    read: (offset, into) =>
      settled(() =>
        around("read", () => {
          const content = contentOf(disk, id);
          for (let at = 0; at < into.byteLength; at += blockBytes) {
            into.subarray(at, at + blockBytes).fill(content[(offset + at) / blockBytes]!);
          }
        }),
      ),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** What a function returns, or throws, as a promise. */
function settled<Result>(act: () => Result): Promise<Result> {
  return new Promise((resolve) => resolve(act()));
}
