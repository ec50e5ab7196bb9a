import { ProviderError, type BlockReader, type Machine, type Snapshot } from "@diskferry/core/provider";
import type { SourceConnector, Wait } from "@diskferry/core/provider";
import { call } from "./call.ts";
import { type BlockStore, blockSize } from "./store.ts";

/** A disk's layer is called `<machine>/<disk>`. */
export function openSource(store: BlockStore): SourceConnector {
  async function machines(): Promise<Machine[]> {
    const found = new Map<string, Machine>();
    for (const { id, size } of await store.layers("disk")) {
      const [machine = "", key = ""] = id.split("/");
      const known = found.get(machine) ?? { id: machine, name: machine, disks: [] };
      known.disks.push({ key, size });
      found.set(machine, known);
    }
    return [...found.values()];
  }

  async function machine(id: string): Promise<Machine> {
    const all = await machines();
    const found = all.find((each) => each.id === id);
    if (found !== undefined) return found;
    const names = all.map(({ name }) => name).join(", ");
    throw new ProviderError("NOT_FOUND", `there is no machine ${id} here; there are: ${names || "none"}`);
  }

  /** The snapshots of the disks that were taken together. */
  async function taken(): Promise<(Snapshot & { job: string | undefined })[]> {
    const groups = Map.groupBy(await store.layers("snapshot"), ({ tags }) => tags["group"] ?? "");
    groups.delete("");
    return [...groups].map(([id, layers]) => {
      const { key = "", takenAt = "", job, machine: of = "" } = layers[0]!.tags;
      const disks = layers.map((each) => ({
        id: each.id,
        machine: of,
        disk: each.tags["disk"] ?? "",
        size: each.size,
      }));
      // Each disk is frozen at one moment, one after the other.
      return { id, key, machine: of, consistency: "disk", takenAt, disks, job };
    });
  }

  return {
    machine: (id, wait) => call("find machine", wait, () => machine(id)),
    async *machines(wait) {
      yield* await call("list machines", wait, machines);
    },
    snapshot: ({ id }, { key, disks, job, signal }) =>
      call("snapshot", { signal }, async () => {
        const group = JSON.stringify([id, key]);
        const known = (await taken()).find((each) => each.id === group);
        if (known !== undefined) return known;
        const takenAt = new Date().toISOString();
        for (const disk of disks ?? (await machine(id)).disks.map((each) => each.key))
          await store.freeze(`${id}/${disk}`, { group, key, job, takenAt, machine: id, disk });
        return (await taken()).find((each) => each.id === group)!;
      }),
    async *snapshots({ id }, wait) {
      for (const snapshot of await call("list snapshots", wait, taken)) if (snapshot.machine === id) yield snapshot;
    },
    open: ({ id }, wait) => openReader(store, id, wait),
    release: (snapshot, wait) =>
      call("release", wait, async () => {
        const ours = (await taken()).find(({ id }) => id === snapshot.id);
        for (const { id } of ours?.disks ?? []) await store.remove(id);
      }),
    async *owned(job, wait) {
      for (const snapshot of await call("list snapshots", wait, taken))
        if (snapshot.job === job)
          yield { kind: "snapshot", id: snapshot.id, description: `taken ${snapshot.takenAt}`, snapshot };
    },
    tracker: {
      keepsBase: true, // a change list begins at the snapshot behind the checkpoint
      checkpoint: ({ id }, wait) => call("checkpoint", wait, async () => id),
      async *changes({ id, size }, { since, from = 0, to = size, signal } = {}) {
        const changed = await call("list changes", { signal }, () => changesOf(store, id, size, since));
        const same = since === undefined ? "zero" : "unchanged";
        for (let offset = from; offset < to;) {
          signal?.throwIfAborted();
          const block = Math.floor(offset / blockSize);
          const end = Math.min(to, (block + 1) * blockSize);
          yield { offset, length: end - offset, kind: changed.has(block) ? "changed" : same };
          offset = end;
        }
      },
    },
    async [Symbol.asyncDispose]() {},
  };
}

async function changesOf(store: BlockStore, id: string, size: number, since: string | undefined): Promise<Set<number>> {
  await store.layer(id);
  if (since === undefined) return store.held(id);
  const base = await store.layer(since).catch(() => undefined);
  const changed = base?.size === size ? await store.changes(since, id) : undefined;
  if (changed !== undefined) return changed;
  throw new ProviderError("TRACKING_LOST", `no change list leads from ${since} to ${id}`);
}

export function openReader(store: BlockStore, id: string, opening?: Wait): Promise<BlockReader> {
  return call("open", opening, async () => {
    const { size } = await store.layer(id);
    return {
      size,
      blockSize,
      concurrency: 8,
      read: (offset, into, wait) => call("read", wait, () => store.read(id, offset, into)),
      async [Symbol.asyncDispose]() {},
    };
  });
}
