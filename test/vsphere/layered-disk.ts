/** One file of a disk's chain: the blocks written to it, and when each was last written by the tracker's count. */
interface Layer {
  /** By block; -1: not in this file. */
  values: number[];
  /** By block; 0: no mark. */
  marks: number[];
}

interface FrozenLayer {
  id: number;
  /** The file that the snapshot froze, from the base up. */
  at: number;
  /** What a listing since this snapshot is asked with. */
  changeId: number;
}

/** A disk's whole state; plain JSON. */
export interface DiskState {
  layers: Layer[];
  snapshots: FrozenLayer[];
  /** The tracker's count, which every snapshot advances. */
  sequence: number;
  snapshotsMade: number;
}

/** A disk without data, tracked from the start. */
export function emptyDisk(blocks: number): DiskState {
  const base = { values: Array<number>(blocks).fill(0), marks: Array<number>(blocks).fill(0) };
  return { layers: [base], snapshots: [], sequence: 1, snapshotsMade: 0 };
}

/** The guest writes a block. */
export function write(disk: DiskState, block: number, value: number): void {
  const top = disk.layers.at(-1)!;
  top.values[block] = value;
  top.marks[block] = disk.sequence;
}

/** Makes a snapshot: the top file is frozen, a new one takes what is written from now on. */
export function take(disk: DiskState): number {
  const id = ++disk.snapshotsMade;
  disk.sequence++;
  disk.snapshots.push({ id, at: disk.layers.length - 1, changeId: disk.sequence });
  const blocks = disk.layers[0]!.values.length;
  disk.layers.push({ values: Array<number>(blocks).fill(-1), marks: Array<number>(blocks).fill(0) });
  return id;
}

/** Takes a snapshot out of the tree. Its delta stays until {@link merge}. */
export function remove(disk: DiskState, id: number): void {
  disk.snapshots = disk.snapshots.filter((each) => each.id !== id);
}

/** Whether files are left that no snapshot owns. */
export function needsMerge(disk: DiskState): boolean {
  return disk.layers.slice(0, -1).some((_, at) => !disk.snapshots.some((each) => each.at === at));
}

/** Consolidates: what no snapshot owns is merged into what it stands on, blocks and marks. */
export function merge(disk: DiskState): void {
  for (let at = 0; at < disk.layers.length - 1;) {
    if (disk.snapshots.some((each) => each.at === at)) {
      at++;
      continue;
    }
    const [below, above] = [disk.layers[at]!, disk.layers[at + 1]!];
    for (const [block, value] of above.values.entries()) {
      if (value >= 0) below.values[block] = value;
      below.marks[block] = Math.max(below.marks[block]!, above.marks[block]!);
    }
    disk.layers.splice(at + 1, 1);
    for (const each of disk.snapshots) if (each.at > at) each.at--;
  }
}

/** The change id of a snapshot. */
export function changeIdOf(disk: DiskState, id: number): number {
  return frozen(disk, id).changeId;
}

/** What a snapshot holds; what the disk holds now where none is named. */
export function contentOf(disk: DiskState, id?: number): number[] {
  const top = id === undefined ? disk.layers.length - 1 : frozen(disk, id).at;
  const content = [...disk.layers[0]!.values];
  for (const layer of disk.layers.slice(1, top + 1)) {
    for (const [block, value] of layer.values.entries()) if (value >= 0) content[block] = value;
  }
  return content;
}

/**
 * QueryChangedDiskAreas as far as it is documented (KB 344418): complete over a disk whose earlier snapshots are gone and
 * merged. Of writes that lie in a delta still, which belong to another snapshot's file, nothing is promised, and the model
 * leaves them out.
 */
export function changedSince(disk: DiskState, id: number, changeId: number): number[] {
  frozen(disk, id);
  const changed: number[] = [];
  for (const [block, mark] of disk.layers[0]!.marks.entries()) if (mark >= changeId) changed.push(block);
  return changed;
}

function frozen(disk: DiskState, id: number): FrozenLayer {
  const found = disk.snapshots.find((each) => each.id === id);
  if (found === undefined) throw new RangeError(`there is no snapshot ${id}`);
  return found;
}
