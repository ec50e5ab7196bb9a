import type { BlockReader, Machine, Snapshot, SourceConnector, Wait } from "@diskferry/core/provider";
import { call } from "./call.ts";
import type { Group, Kind, Platform } from "./platform.ts";

export function openSource(platform: Platform): SourceConnector {
  async function machine(id: string): Promise<Machine> {
    const disks = await platform.disks(id);
    return { id, name: id, disks: disks.map(({ name, size }) => ({ key: name, size })) };
  }
  return {
    machine: (id, wait) => call("find machine", wait, () => machine(id)),
    async *machines(wait) {
      for (const id of await call("list machines", wait, () => platform.machines())) yield machine(id);
    },
    snapshot: ({ id }, { key, disks, job, signal }) =>
      call("snapshot", { signal }, async () => {
        const known = (await platform.snapshots()).find((each) => each.tags["key"] === key && each.machine === id);
        const wanted = disks ?? (await machine(id)).disks.map((disk) => disk.key);
        return snapshotOf(known ?? (await platform.snapshot(id, wanted, { key, job })));
      }),
    open: ({ id }, wait) => openReader(platform, "snapshots", id, wait),
    release: ({ id, disks }, wait) => call("release", wait, () => platform.deleteSnapshot(id, disks)),
    async *owned(job, wait) {
      for (const group of await call("list snapshots", wait, () => platform.snapshots()))
        if (group.tags["job"] === job)
          yield { kind: "snapshot", id: group.id, description: group.takenAt, snapshot: snapshotOf(group) };
    },
    tracker: {
      keepsBase: true, // the platform compares with the snapshot behind the checkpoint
      checkpoint: ({ id }, wait) => call("checkpoint", wait, async () => id),
      async *changes({ id, size }, { since, from = 0, to = size, signal } = {}) {
        for (let at: number | undefined = from; at !== undefined && at < to;) {
          const start: number = at;
          const page = await call("list changes", { signal }, () => platform.changes(id, since, start, to));
          const same = since === undefined ? "zero" : "unchanged";
          for (const { differs, ...range } of page.changes) yield { ...range, kind: differs ? "changed" : same };
          at = page.next;
        }
      },
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** Promise `crash` once the platform fixes all disks at one moment; until then, nothing. */
function snapshotOf({ id, machine, takenAt, tags, images }: Group): Snapshot {
  const disks = images.map((image) => ({ ...image, machine }));
  return { id, key: tags["key"] ?? "", machine, consistency: "none", takenAt, disks };
}

export function openReader(platform: Platform, kind: Kind, id: string, opening?: Wait): Promise<BlockReader> {
  return call("open", opening, async () => {
    const session = await platform.open(kind, id);
    return {
      size: session.size,
      blockSize: 512,
      concurrency: 4,
      read: (offset, into, wait) => call("read", wait, () => session.read(offset, into)),
      [Symbol.asyncDispose]: () => session.close(),
    };
  });
}
