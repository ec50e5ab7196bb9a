import {
  changedSince,
  changeIdOf,
  contentOf,
  type DiskState,
  emptyDisk,
  merge,
  needsMerge,
  remove,
  take,
  write,
} from "./layered-disk.ts";

/** In which order a tool does things. */
export interface Order {
  /** Whether the snapshot of the last record is removed before the next one is made. */
  removesFirst: boolean;
  /** Whether a removal is over only when its deltas are merged. */
  awaitsMerge: boolean;
  /** When the change id of a run is written down: with the record, or as soon as its snapshot is there. */
  notesChangeId: "with-record" | "with-snapshot";
}

/** What may happen while it is explored. */
export interface Bounds {
  blocks: number;
  runs: number;
  /** Writes of the guest. */
  writes: number;
  /** Times that the tool is killed. */
  kills: number;
}

/** What survives the tool's death: its document. */
interface Durable {
  /** The change id of the last record; -1: there is none. */
  record: number;
  running: boolean;
  /** The run's snapshot; 0: none is written down. */
  snapshot: number;
  toRelease: number[];
}

interface State {
  disk: DiskState;
  durable: Durable;
  /** By run: the snapshot made under its key, which is how it is found again. */
  made: number;
  /** Volatile: blocks that the listing named and that are not copied yet; absent: not listed yet. */
  listed: number[] | undefined;
  /** Volatile: what the listing is asked with, where the document names a later change id already. */
  since: number | undefined;
  replica: number[];
  writesLeft: number;
  killsLeft: number;
  runsLeft: number;
  nextValue: number;
}

/** A way to a record that does not hold what its snapshot held, step by step; undefined: there is none. */
export interface Exploration {
  lost: string[] | undefined;
  states: number;
  records: number;
}

/** Explores every interleaving of the tool's steps with writes of the guest, and with its death before or after each step. */
export function explore(order: Order, bounds: Bounds): Exploration {
  const seen = new Set<string>();
  let records = 0;
  const first: State = {
    disk: emptyDisk(bounds.blocks),
    durable: { record: -1, running: false, snapshot: 0, toRelease: [] },
    made: 0,
    listed: undefined,
    since: undefined,
    replica: Array<number>(bounds.blocks).fill(0),
    writesLeft: bounds.writes,
    killsLeft: bounds.kills,
    runsLeft: bounds.runs,
    nextValue: 1,
  };
  const open: { state: State; path: Path | undefined }[] = [{ state: first, path: undefined }];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    const { state, path } = at;
    const key = JSON.stringify(state);
    if (seen.has(key)) continue;
    seen.add(key);
    const add = (name: string, change: (next: State) => void): void => {
      const next = structuredClone(state);
      change(next);
      open.push({ state: next, path: { name, before: path } });
    };
    if (state.writesLeft > 0) {
      for (let block = 0; block < bounds.blocks; block++) {
        add(`guest writes block ${block}`, (next) => {
          write(next.disk, block, next.nextValue++);
          next.writesLeft--;
        });
      }
    }
    // Without being waited for, deltas are merged at any time.
    if (!order.awaitsMerge && needsMerge(state.disk)) add("deltas merge", (next) => merge(next.disk));
    const step = nextStep(order, state);
    if (step === undefined) continue;
    if (step.name === "record") {
      records++;
      const held = contentOf(state.disk, state.durable.snapshot);
      if (state.replica.some((value, block) => value !== held[block])) {
        return { lost: stepsOf({ name: "record", before: path }), states: seen.size, records };
      }
    }
    add(step.name, step.act);
    if (state.killsLeft > 0) {
      const die = (next: State): void => {
        next.killsLeft--;
        next.listed = undefined;
        next.since = undefined;
      };
      add(`killed before: ${step.name}`, die);
      add(`killed after: ${step.name}`, (next) => {
        step.act(next);
        die(next);
      });
    }
  }
  return { lost: undefined, states: seen.size, records };
}

interface Path {
  name: string;
  before: Path | undefined;
}

function stepsOf(path: Path): string[] {
  const steps: string[] = [];
  for (let at: Path | undefined = path; at !== undefined; at = at.before) steps.unshift(at.name);
  return steps;
}

/** What the tool does next, by its document and what it remembers; undefined: it is done. */
function nextStep(order: Order, state: State): { name: string; act: (next: State) => void } | undefined {
  const { durable, disk, listed } = state;
  const [old] = durable.toRelease;
  const mayRelease = order.removesFirst || !durable.running || listed?.length === 0;
  if (old !== undefined && (order.removesFirst ? !durable.running : mayRelease && listed !== undefined)) {
    if (disk.snapshots.some(({ id }) => id === old)) {
      return { name: `remove snapshot ${old}`, act: (next) => remove(next.disk, old) };
    }
    if (order.awaitsMerge && needsMerge(disk)) return { name: "merge deltas", act: (next) => merge(next.disk) };
    return { name: `note that ${old} is removed`, act: (next) => void next.durable.toRelease.shift() };
  }
  if (!durable.running) {
    if (state.runsLeft === 0) return undefined;
    return {
      name: "begin a run",
      act: (next) => {
        next.runsLeft--;
        next.made = 0;
        next.durable.running = true;
        next.durable.snapshot = 0;
      },
    };
  }
  if (durable.snapshot === 0) {
    // Asked for by the run's key: one that was made already, and not written down, is found again.
    if (state.made === 0) return { name: "make a snapshot", act: (next) => (next.made = take(next.disk)) };
    return {
      name: `note snapshot ${state.made}`,
      act: (next) => {
        next.durable.snapshot = next.made;
        if (order.notesChangeId === "with-record") return;
        next.since = next.durable.record;
        next.durable.record = changeIdOf(next.disk, next.made);
      },
    };
  }
  const { snapshot } = durable;
  const record = state.since ?? durable.record;
  if (listed === undefined) {
    return {
      name: record < 0 ? "list everything" : `list changes of ${snapshot}`,
      act: (next) => {
        const all = next.replica.map((_, block) => block);
        next.listed = record < 0 ? all : changedSince(next.disk, snapshot, record);
      },
    };
  }
  const [block] = listed;
  if (block !== undefined) {
    return {
      name: `copy block ${block}`,
      act: (next) => {
        next.replica[block] = contentOf(next.disk, snapshot)[block]!;
        next.listed!.shift();
      },
    };
  }
  return {
    name: "record",
    act: (next) => {
      next.durable.record = changeIdOf(next.disk, snapshot);
      next.durable.toRelease.push(snapshot);
      next.durable.running = false;
      next.listed = undefined;
      next.since = undefined;
    },
  };
}
