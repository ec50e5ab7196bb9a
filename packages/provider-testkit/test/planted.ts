import {
  type BlockReader,
  type BlockWriter,
  type ChangeTracker,
  type Preflight,
  ProviderError,
  type Snapshot,
  type SourceConnector,
  type TargetProvider,
  type Tile,
} from "@diskferry/core/provider";
import type { MemoryPlace, MemoryPlaceOptions, TrackingFault } from "@diskferry/core";
import type { ConformanceHarness, SourceHarness, TargetHarness } from "../src/index.ts";
import { saysBefore } from "./memory-harness.ts";

/** A violation of the contract, planted into the memory provider. */
export interface Planted {
  /** What the broken provider does. */
  what: string;
  /** The clause that it breaks, and that has to catch it. */
  clause: string;
  options?: MemoryPlaceOptions;
  plant(harness: ConformanceHarness, place: MemoryPlace): ConformanceHarness;
}

type Changed<Member> = (original: Member, place: MemoryPlace) => Partial<Member>;

function withSource(change: (source: SourceHarness, place: MemoryPlace) => Partial<SourceHarness>): Planted["plant"] {
  return (harness, place) => ({ ...harness, source: { ...harness.source!, ...change(harness.source!, place) } });
}

function withTarget(change: (target: TargetHarness, place: MemoryPlace) => Partial<TargetHarness>): Planted["plant"] {
  return (harness, place) => ({ ...harness, target: { ...harness.target!, ...change(harness.target!, place) } });
}

const source = (change: Changed<SourceConnector>): Planted["plant"] =>
  withSource(({ open }, place) => ({
    open: async () => {
      const original = await open();
      return { ...original, ...change(original, place) };
    },
  }));

const reader = (change: Changed<BlockReader>): Planted["plant"] =>
  source((original, place) => ({
    open: async (disk, wait) => {
      const opened = await original.open(disk, wait);
      return { ...opened, ...change(opened, place) };
    },
  }));

const tracker = (
  change: (original: ChangeTracker, place: MemoryPlace, source: SourceConnector) => Partial<ChangeTracker>,
): Planted["plant"] =>
  source((original, place) => ({ tracker: { ...original.tracker!, ...change(original.tracker!, place, original) } }));

const target = (change: Changed<TargetProvider>): Planted["plant"] =>
  withTarget(({ open }, place) => ({
    open: async () => {
      const original = await open();
      return { ...original, ...change(original, place) };
    },
  }));

const writer = (change: Changed<BlockWriter>): Planted["plant"] =>
  target((original, place) => ({
    open: async (volume, request) => {
      const opened = await original.open(volume, request);
      return { ...opened, ...change(opened, place) };
    },
  }));

/** Rewrites the tiles of incremental listings, or of all. */
const tiles = (rewrite: (tile: Tile, index: number) => Tile[], which: "since" | "all" = "since"): Planted["plant"] =>
  tracker((original) => ({
    async *changes(disk, options) {
      let index = 0;
      for await (const tile of original.changes(disk, options)) {
        if (which === "since" && options?.since === undefined) yield tile;
        else yield* rewrite(tile, index++);
      }
    },
  }));

const spoiledBy =
  (kind: TrackingFault): Planted["plant"] =>
  (harness, place) => {
    place.breakTracking(kind);
    return harness;
  };

const unchanged = (size: number): Tile => ({ offset: 0, length: size, kind: "unchanged" });

/** Answers TRACKING_LOST as if nothing had changed. */
const hidesLoss = tracker((original) => ({
  async *changes(disk, options) {
    try {
      const found: Tile[] = [];
      for await (const tile of original.changes(disk, options)) found.push(tile);
      yield* found;
    } catch {
      yield unchanged(disk.size);
    }
  },
}));

const versioned: MemoryPlaceOptions = { target: { style: "versioned" } };
const elsewhere = () => new Promise((resolve) => setImmediate(resolve));
let counter = 0;

const ofDefinition: Planted[] = [
  {
    what: "accepts bad options",
    clause: "definition.config.rejects",
    plant: (harness) => {
      const { provider } = harness.definition!;
      const config = { "~standard": { ...provider.config["~standard"], validate: () => ({ value: {} }) } };
      return { ...harness, definition: { ...harness.definition!, provider: { ...provider, config } } };
    },
  },
  {
    what: "makes options of a URI that its schema refuses",
    clause: "definition.uri",
    plant: (harness) => ({
      ...harness,
      definition: {
        ...harness.definition!,
        provider: { ...harness.definition!.provider, fromUri: () => ({ place: 4 }) },
      },
    }),
  },
];

const ofSource: Planted[] = [
  { what: "lists no machine", clause: "source.machines.lists", plant: source(() => ({ async *machines() {} })) },
  {
    what: "gives any machine for an unknown id",
    clause: "source.machine.not-found",
    plant: source(({ machine }) => ({ machine: (id, wait) => machine(id === "web" ? id : "web", wait) })),
  },
  {
    what: "rejects with a bare Error",
    clause: "source.machine.not-found",
    plant: source(({ machine }) => ({
      machine: (id, wait) => (id === "web" ? machine(id, wait) : Promise.reject(new Error("no such machine"))),
    })),
  },
  {
    what: "takes another snapshot for the same key",
    clause: "source.snapshot.idempotent",
    plant: source(({ snapshot }) => ({
      snapshot: (machine, request) => snapshot(machine, { ...request, key: `${request.key}-${++counter}` }),
    })),
  },
  {
    what: "gives the last snapshot whatever the key",
    clause: "source.snapshot.distinct",
    plant: source(({ snapshot }) => {
      let last: Promise<Snapshot> | undefined;
      return { snapshot: (machine, request) => (last ??= snapshot(machine, request)) };
    }),
  },
  {
    what: "reads the live disk instead of the snapshot",
    clause: "source.snapshot.fixed",
    plant: reader((_, place) => ({
      read: async (offset, into) => into.set(place.read("web", "boot", offset, into.byteLength)),
    })),
  },
  {
    what: "snapshots every disk though some were chosen",
    clause: "source.snapshot.chosen-disks",
    plant: source(({ snapshot }) => ({
      snapshot: (machine, request) => snapshot(machine, { ...request, disks: undefined }),
    })),
  },
  {
    what: "leaves the second disk out",
    clause: "source.snapshot.chosen-disks",
    plant: source(({ snapshot }) => ({
      snapshot: async (machine, request) => {
        const taken = await snapshot(machine, request);
        return { ...taken, disks: taken.disks.slice(0, 1) };
      },
    })),
  },
  {
    what: "takes the disks one after another and calls it crash-consistent",
    clause: "source.snapshot.one-moment",
    plant: source(({ snapshot }) => ({
      snapshot: async (machine, request) => {
        const first = await snapshot(machine, { ...request, disks: ["boot"], key: `${request.key}-1` });
        await elsewhere();
        await elsewhere();
        const second = await snapshot(machine, { ...request, disks: ["data"], key: `${request.key}-2` });
        return { ...first, disks: [...first.disks, ...second.disks] };
      },
    })),
  },
  {
    what: "reports the consistency that was asked for as no word of the contract",
    clause: "source.snapshot.describes",
    plant: source(({ snapshot }) => ({
      snapshot: async (machine, request) => ({
        ...(await snapshot(machine, request)),
        consistency: "perfect" as "crash",
      }),
    })),
  },
  {
    what: "does not hear the signal of a snapshot",
    clause: "source.snapshot.cancel",
    plant: source(({ snapshot }) => ({ snapshot: (machine, { signal: _, ...request }) => snapshot(machine, request) })),
  },
  {
    what: "puts a class instance into a handle",
    clause: "source.handles.json",
    plant: source(({ snapshot }) => ({
      snapshot: async (machine, request) => ({
        ...(await snapshot(machine, request)),
        takenAt: new Date() as unknown as string,
      }),
    })),
  },
  {
    what: "keeps what a handle stands for in the connection alone",
    clause: "source.handles.json",
    plant: source(({ snapshot, open }) => {
      const known = new Set<string>();
      return {
        snapshot: async (machine, request) => {
          const taken = await snapshot(machine, request);
          for (const { id } of taken.disks) known.add(id);
          return taken;
        },
        open: (disk, wait) =>
          known.has(disk.id) ? open(disk, wait) : Promise.reject(new ProviderError("NOT_FOUND", "unknown here")),
      };
    }),
  },
  {
    what: "puts its password into a handle",
    clause: "source.handles.no-secrets",
    plant: source(({ snapshot }) => ({
      snapshot: async (machine, request) => ({
        ...(await snapshot(machine, request)),
        data: { url: "https://me:hunter2@place" },
      }),
    })),
  },
  {
    what: "opens a snapshot that is gone as an empty disk",
    clause: "source.open.not-found",
    plant: source(({ open, snapshot }) => {
      let any: BlockReader | undefined;
      return {
        snapshot: async (machine, request) => {
          const taken = await snapshot(machine, request);
          any ??= await open(taken.disks[0]!);
          return taken;
        },
        open: (disk, wait) => open(disk, wait).catch(() => any!),
      };
    }),
  },
  {
    what: "rejects the second release",
    clause: "source.release.idempotent",
    plant: source(({ release }) => {
      const released = new Set<string>();
      return {
        release: async (snapshot, wait) => {
          if (released.has(snapshot.id)) throw new ProviderError("NOT_FOUND", "released already");
          released.add(snapshot.id);
          await release(snapshot, wait);
        },
      };
    }),
  },
  {
    what: "releases every snapshot at once",
    clause: "source.release.others",
    plant: source(({ release, snapshots, machine }) => ({
      release: async (_, wait) => {
        for await (const one of snapshots!(await machine("web"))) await release(one, wait);
      },
    })),
  },
  {
    what: "releases what somebody else made",
    clause: "source.release.foreign",
    plant: source(({ release, open }) => {
      const released = new Set<string>();
      return {
        release: async (snapshot, wait) => {
          for (const { id } of snapshot.disks) released.add(id);
          await release(snapshot, wait);
        },
        open: (disk, wait) =>
          released.has(disk.id) ? Promise.reject(new ProviderError("NOT_FOUND", "gone")) : open(disk, wait),
      };
    }),
  },
  {
    what: "lists the snapshots of every job as the job's",
    clause: "source.owned.lists",
    plant: source(({ snapshots, machine }) => ({
      async *owned() {
        for await (const snapshot of snapshots!(await machine("web")))
          yield { kind: "snapshot", id: snapshot.id, description: "one", snapshot };
      },
    })),
  },
  {
    what: "rejects the second dispose",
    clause: "source.dispose.twice",
    plant: source((original) => {
      let closed = false;
      return {
        [Symbol.asyncDispose]: async () => {
          if (closed) throw new TypeError("closed already");
          closed = true;
          await original[Symbol.asyncDispose]();
        },
      };
    }),
  },
  {
    what: "releases its snapshots when it is disposed",
    clause: "source.dispose.releases-nothing",
    plant: source(({ snapshot, release }) => {
      const taken: Snapshot[] = [];
      return {
        snapshot: async (machine, request) => {
          const one = await snapshot(machine, request);
          taken.push(one);
          return one;
        },
        [Symbol.asyncDispose]: async () => {
          for (const one of taken) await release(one);
        },
      };
    }),
  },
  {
    what: "says that a shutdown is done before the machine is off",
    clause: "source.power.cycle",
    plant: source(({ power }) => ({ power: { ...power!, shutdown: async () => {} } })),
  },
  {
    what: "never lets a quiesced machine go on",
    clause: "source.quiesce.readable",
    plant: source(({ quiesce }) => ({
      quiesce: async (machine, wait) => {
        await quiesce!(machine, wait);
        return { async [Symbol.asyncDispose]() {} };
      },
    })),
  },
];

const ofReader: Planted[] = [
  { what: "has blocks of 1000 bytes", clause: "reader.geometry", plant: reader(() => ({ blockSize: 1000 })) },
  {
    what: "reads 512 bytes beside the place",
    clause: "reader.read.bytes",
    plant: reader(({ read, size }) => ({
      read: (offset, into, options) => read(offset + into.byteLength < size ? offset + 512 : offset, into, options),
    })),
  },
  {
    what: "leaves zeroes out and does not fill them in",
    clause: "reader.read.fills",
    plant: reader(({ read }) => ({
      read: async (offset, into, options) => {
        const own = new Uint8Array(into.byteLength);
        await read(offset, own, options);
        for (let at = 0; at < own.byteLength; at++) if (own[at] !== 0) into[at] = own[at]!;
      },
    })),
  },
  {
    what: "resolves before the last 512 bytes came",
    clause: "reader.read.fills",
    plant: reader(({ read }) => ({
      read: (offset, into, options) => read(offset, into.subarray(0, Math.max(512, into.byteLength - 512)), options),
    })),
  },
  {
    what: "writes behind the buffer it was given",
    clause: "reader.read.fills",
    plant: reader(({ read }) => ({
      read: async (offset, into, options) => {
        await read(offset, into, options);
        const end = into.byteOffset + into.byteLength;
        new Uint8Array(into.buffer).fill(0, end, end + 16);
      },
    })),
  },
  {
    what: "fills up with zeroes behind the disk's end",
    clause: "reader.read.beyond-end",
    plant: reader(({ read, size }) => ({
      read: async (offset, into, options) => {
        into.fill(0);
        if (offset < size) await read(offset, into.subarray(0, Math.min(into.byteLength, size - offset)), options);
      },
    })),
  },
  {
    what: "has one buffer for reads at once",
    clause: "reader.read.concurrent",
    plant: reader(({ read, size }) => {
      const shared = new Uint8Array(size);
      return {
        read: async (offset, into, options) => {
          await read(offset, shared.subarray(0, into.byteLength), options);
          await elsewhere();
          into.set(shared.subarray(0, into.byteLength));
        },
      };
    }),
  },
  {
    what: "fills the last buffer again after its read settled",
    clause: "reader.read.buffer-ownership",
    plant: reader(({ read }) => {
      let last: Uint8Array | undefined;
      return {
        read: async (offset, into, options) => {
          await read(offset, into, options);
          last?.fill(0);
          last = into;
        },
      };
    }),
  },
  {
    what: "cannot read the short last block",
    clause: "reader.read.short-final-block",
    options: { source: { blockSize: 4096 } },
    plant: reader(({ read }) => ({
      read: async (offset, into, options) => {
        if (into.byteLength % 4096 !== 0) throw new RangeError("whole blocks alone");
        await read(offset, into, options);
      },
    })),
  },
  {
    what: "hangs when its signal aborts",
    clause: "reader.read.cancel",
    plant: reader(({ read }) => ({
      read: async (offset, into, { signal, ...options } = {}) => {
        await read(offset, into, options);
        if (signal?.aborted === true) await new Promise(() => {});
      },
    })),
  },
  {
    what: "rejects with its own error when its signal aborts",
    clause: "reader.read.cancel",
    plant: reader(({ read }) => ({
      read: (offset, into, options) =>
        read(offset, into, options).catch(() => Promise.reject(new ProviderError("UNAVAILABLE", "cut off"))),
    })),
  },
  {
    what: "gives digests in another order",
    clause: "reader.digests.equal",
    options: { source: { digests: true } },
    plant: reader(({ digests }) => ({
      digests: async (offset, length, options) => {
        const found = (await digests!(offset, length, options)).slice();
        return new Uint8Array([...found.subarray(32, 64), ...found.subarray(0, 32), ...found.subarray(64)]);
      },
    })),
  },
  {
    what: "forgets the digest of the short last leaf",
    clause: "reader.digests.equal",
    options: { source: { digests: true } },
    plant: reader(({ digests }) => ({
      digests: async (offset, length, options) => (await digests!(offset, length, options)).slice(0, -32),
    })),
  },
  {
    what: "closes every reader when one is disposed",
    clause: "reader.dispose.twice",
    plant: source(({ open }) => {
      const opened: BlockReader[] = [];
      return {
        open: async (disk, wait) => {
          const one = await open(disk, wait);
          opened.push(one);
          return {
            ...one,
            [Symbol.asyncDispose]: async () =>
              void (await Promise.all(opened.map((each) => each[Symbol.asyncDispose]()))),
          };
        },
      };
    }),
  },
];

const ofTracker: Planted[] = [
  { what: "leaves a tile out", clause: "tracker.tiles.contiguous", plant: spoiledBy("gap") },
  { what: "lists overlapping tiles", clause: "tracker.tiles.contiguous", plant: spoiledBy("overlap") },
  { what: "lists tiles out of order", clause: "tracker.tiles.contiguous", plant: spoiledBy("disorder") },
  { what: "lists a tile without length", clause: "tracker.tiles.contiguous", plant: spoiledBy("empty") },
  { what: "ends the listing early", clause: "tracker.tiles.contiguous", plant: spoiledBy("truncated") },
  {
    what: "has a kind of its own",
    clause: "tracker.tiles.kinds",
    plant: tiles((tile) => [{ ...tile, kind: "dirty" as "changed" }], "all"),
  },
  {
    what: "lists the whole disk whatever `from` and `to` say",
    clause: "tracker.tiles.range",
    plant: tracker(({ changes }) => ({
      changes: (disk, { from: _, to: __, ...options } = {}) => changes(disk, options),
    })),
  },
  {
    what: "calls what was stored unchanged in a full listing",
    clause: "tracker.full.never-too-few",
    plant: tiles((tile) => [{ ...tile, kind: "unchanged" }], "all"),
  },
  {
    what: "calls data zero",
    clause: "tracker.full.never-too-few",
    plant: tiles((tile) => [tile.kind === "changed" ? { ...tile, kind: "zero" } : tile], "all"),
  },
  {
    what: "forgets the last change",
    clause: "tracker.never-too-few",
    plant: tiles((tile) => [
      tile.kind === "changed" && tile.offset + tile.length > 2 * 1024 * 1024 ? { ...tile, kind: "unchanged" } : tile,
    ]),
  },
  {
    what: "shrinks changed ranges to its grid instead of widening them",
    clause: "tracker.never-too-few",
    plant: tiles((tile) =>
      tile.kind !== "changed" || tile.length < 2048
        ? [tile]
        : [
            { offset: tile.offset, length: 1024, kind: "unchanged" },
            { offset: tile.offset + 1024, length: tile.length - 1024, kind: "changed" },
          ],
    ),
  },
  {
    what: "lists the changes since the last snapshot, whatever the checkpoint",
    clause: "tracker.chain",
    plant: tracker((original) => {
      let last: string | undefined;
      return {
        async *changes(disk, options) {
          yield* original.changes(
            disk,
            options?.since === undefined ? options : { ...options, since: last ?? options.since },
          );
          last = await original.checkpoint(disk);
        },
      };
    }),
  },
  {
    what: "forgets a snapshot's changes when a later one was taken",
    clause: "tracker.overwritten",
    options: { source: { tracker: { keepsBase: true } } },
    plant: tracker((original, place, { machine }) => ({
      async *changes(disk, options) {
        const later: string[] = [];
        for await (const snapshot of place.source.snapshots!(await machine("web"))) later.push(`${snapshot.id}/boot`);
        if (options?.since !== undefined && later.at(-1) !== disk.id) yield unchanged(disk.size);
        else yield* original.changes(disk, options);
      },
    })),
  },
  {
    what: "calls a trimmed range unchanged",
    clause: "tracker.zero.trimmed",
    plant: tiles((tile) => [tile.kind === "zero" ? { ...tile, kind: "unchanged" } : tile]),
  },
  {
    what: "lists the first page and calls the rest unchanged",
    clause: "tracker.paging",
    options: { source: { tracker: { tileLength: 65536 } } },
    plant: tiles((tile, index) => [index < 8 ? tile : { ...tile, kind: "unchanged" }]),
  },
  {
    what: "gives a checkpoint of 5000 characters",
    clause: "tracker.checkpoint.token",
    plant: tracker(({ checkpoint }) => ({
      checkpoint: async (disk, wait) => (await checkpoint(disk, wait))?.padEnd(5000),
    })),
  },
  {
    what: "knows its checkpoints for as long as it is connected",
    clause: "tracker.checkpoint.restart",
    plant: tracker((original) => {
      const known = new Set<string>();
      return {
        checkpoint: async (disk, wait) => {
          const token = await original.checkpoint(disk, wait);
          if (token !== undefined) known.add(token);
          return token;
        },
        async *changes(disk, options) {
          if (options?.since !== undefined && !known.has(options.since))
            throw new ProviderError("TRACKING_LOST", "unknown here");
          yield* original.changes(disk, options);
        },
      };
    }),
  },
  { what: "lists nothing since a checkpoint it does not know", clause: "tracker.checkpoint.unknown", plant: hidesLoss },
  {
    what: "lists nothing since the checkpoint of another disk",
    clause: "tracker.checkpoint.other-disk",
    plant: hidesLoss,
  },
  {
    what: "needs the base it does not say it keeps",
    clause: "tracker.keeps-base",
    options: { source: { tracker: { keepsBase: true } } },
    plant: tracker(() => ({ keepsBase: undefined as unknown as true })),
  },
  {
    what: "compares with a snapshot that core gave up before it took the next",
    clause: "tracker.never-too-few",
    options: { source: { tracker: { keepsBase: true } } },
    plant: tracker(() => ({ keepsBase: undefined as unknown as true })),
  },
  { what: "lists nothing after tracking was lost", clause: "tracker.lost", plant: hidesLoss },
  { what: "lists nothing after a revert", clause: "tracker.revert", plant: hidesLoss },
  { what: "lists nothing after the disk grew", clause: "tracker.growth", plant: hidesLoss },
  {
    what: "keeps its checkpoints over a reset",
    clause: "tracker.reset",
    plant: tracker(() => ({ reset: async () => {} })),
  },
  {
    what: "begins anew with each enable",
    clause: "tracker.enable.idempotent",
    plant: tracker(({ reset }) => ({ enable: reset! })),
  },
  {
    what: "gives each tile the hint of another",
    clause: "tracker.hints",
    options: { source: { tracker: { hints: true } } },
    plant: tiles((tile) => [{ ...tile, hint: JSON.stringify(["snapshot-0/boot", 0, 512]) }], "all"),
  },
  {
    what: "ends an aborted listing as if it were complete",
    clause: "tracker.cancel",
    options: { source: { tracker: { tileLength: 65536 } } },
    plant: tracker((original) => ({
      async *changes(disk, { signal, ...options } = {}) {
        signal?.throwIfAborted();
        for await (const tile of original.changes(disk, options)) {
          if (signal?.aborted === true) return;
          yield tile;
        }
      },
    })),
  },
  { what: "lists a snapshot that is gone as unchanged", clause: "tracker.released", plant: hidesLoss },
];

const ofTarget: Planted[] = [
  {
    what: "makes another volume for the same key",
    clause: "target.create.idempotent",
    plant: target(({ create }) => ({
      create: (request) => create({ ...request, key: `${request.key}-${++counter}` }),
    })),
  },
  {
    what: "has one volume for all keys",
    clause: "target.create.distinct",
    plant: target(({ create }) => ({ create: (request) => create({ ...request, key: "one" }) })),
  },
  {
    what: "makes a volume that is a sector too small",
    clause: "target.create.size",
    plant: target(({ create }) => ({ create: (request) => create({ ...request, size: request.size - 512 }) })),
  },
  {
    what: "does not grow and says nothing",
    clause: "target.create.grows",
    plant: target(({ create }) => {
      const sizes = new Map<string, number>();
      return {
        create: (request) => {
          const size = sizes.get(request.key) ?? request.size;
          sizes.set(request.key, size);
          return create({ ...request, size });
        },
      };
    }),
  },
  {
    what: "clears a volume that is created again",
    clause: "target.create.keeps",
    plant: target((original) => {
      const made = new Set<string>();
      return {
        create: async (request) => {
          const volume = await original.create(request);
          if (made.has(request.key)) {
            await using opened = await original.open(volume, { run: `clear-${++counter}`, epoch: 9 });
            await opened.zero!(0, volume.size);
            await opened.flush();
            await opened.commit({ written: (async function* () {})() });
          }
          made.add(request.key);
          return volume;
        },
      };
    }),
  },
  {
    what: "does not hear the signal of a create",
    clause: "target.create.cancel",
    plant: target(({ create }) => ({ create: ({ signal: _, ...request }) => create(request) })),
  },
  {
    what: "keeps the size in something that JSON loses",
    clause: "target.handles.json",
    plant: target(({ create }) => ({
      create: async (request) => ({ ...(await create(request)), data: new Map() as unknown as {} }),
    })),
  },
  {
    what: "lists nothing that a job made",
    clause: "target.owned.lists",
    plant: target(() => ({ async *owned() {} })),
  },
  { what: "removes nothing", clause: "target.remove.gone", plant: target(() => ({ remove: async () => {} })) },
  {
    what: "rejects the second remove",
    clause: "target.remove.idempotent",
    plant: target(({ remove }) => {
      const removed = new Set<string>();
      return {
        remove: async (volume, wait) => {
          if (removed.has(volume.id)) throw new ProviderError("NOT_FOUND", "removed already");
          removed.add(volume.id);
          await remove(volume, wait);
        },
      };
    }),
  },
  {
    what: "removes a base and breaks what stands on it",
    clause: "target.remove.in-use",
    options: { target: { style: "versioned", removal: "merge" } },
    plant: (harness, place) => {
      let broken = false;
      const breaking = target(({ remove }) => ({
        remove: async (volume, wait) => {
          broken = true;
          await remove(volume, wait);
        },
      }))(harness, place);
      return withTarget(({ readVolume }) => ({
        readVolume: (volume, offset, length) => (broken ? new Uint8Array(length) : readVolume(volume, offset, length)),
      }))(breaking, place);
    },
  },
  {
    what: "refuses to remove a base with no code to tell why",
    clause: "target.remove.in-use",
    options: versioned,
    plant: target(({ remove }) => ({
      remove: (volume, wait) => remove(volume, wait).catch(() => Promise.reject(new Error("no"))),
    })),
  },
  {
    what: "calls an adopted disk blank",
    clause: "target.adopt.keeps",
    plant: writer(() => ({ blank: true })),
  },
  {
    what: "removes an adopted disk",
    clause: "target.adopt.never-removed",
    plant: (harness, place) => {
      let removed = false;
      const removing = target(() => ({ remove: async () => void (removed = true) }))(harness, place);
      return withTarget(({ readVolume }) => ({
        readVolume: (volume, offset, length) => (removed ? new Uint8Array(length) : readVolume(volume, offset, length)),
      }))(removing, place);
    },
  },
  {
    what: "reads a volume 512 bytes beside the place",
    clause: "target.read.bytes",
    plant: target(({ read }) => ({
      read: async (volume, wait) => {
        const opened = await read!(volume, wait);
        return { ...opened, read: (offset, into, options) => opened.read(offset + 512, into, options) };
      },
    })),
  },
  {
    what: "removes what it created when it is disposed",
    clause: "target.dispose.removes-nothing",
    plant: target(({ create, remove }) => {
      const made: Parameters<typeof remove>[0][] = [];
      return {
        create: async (request) => {
          const volume = await create(request);
          made.push(volume);
          return volume;
        },
        [Symbol.asyncDispose]: async () => {
          for (const volume of made) await remove(volume);
        },
      };
    }),
  },
  {
    what: "opens for every epoch",
    clause: "target.fence.open-older",
    plant: target(({ open }) => ({ open: (volume, request) => open(volume, { ...request, epoch: 1 }) })),
  },
  {
    what: "remembers epochs for as long as it is connected",
    clause: "target.fence.open-older",
    plant: target(({ open }) => {
      let newest = 0;
      return {
        open: (volume, request) => {
          if (request.epoch < newest) return Promise.reject(new ProviderError("FENCED", "older"));
          newest = request.epoch;
          return open(volume, { ...request, epoch: 1 });
        },
      };
    }),
  },
  {
    what: "lets an older writer write on",
    clause: "target.fence.cuts-off",
    plant: target(({ open }) => ({ open: (volume, request) => open(volume, { ...request, epoch: 1 }) })),
  },
  {
    what: "lets an older writer flush and commit",
    clause: "target.fence.flush-and-commit",
    plant: target(({ open }) => ({ open: (volume, request) => open(volume, { ...request, epoch: 1 }) })),
  },
];

const ofWriter: Planted[] = [
  {
    what: "tells a size that is not the volume's",
    clause: "writer.geometry",
    plant: writer(({ size }) => ({ size: size - 512 })),
  },
  {
    what: "has another generation with each opening",
    clause: "writer.generation.stable",
    plant: writer(() => ({ generation: `generation-${++counter}` })),
  },
  {
    what: "has one generation for all runs",
    clause: "writer.generation.new-run",
    plant: writer(() => ({ generation: "generation" })),
  },
  { what: "calls a half-written volume blank", clause: "writer.blank.proven", plant: writer(() => ({ blank: true })) },
  {
    what: "calls a volume blank whose unwritten bytes are not zero",
    clause: "writer.blank.zeroes",
    plant: withTarget(({ readVolume }) => ({
      readVolume: async (volume, offset, length) =>
        (await readVolume(volume, offset, length)).map((byte) => (byte === 0 ? 0xcc : byte)),
    })),
  },
  {
    what: "loses the last 512 bytes of a write",
    clause: "writer.write.bytes",
    plant: writer(({ write }) => ({
      write: (offset, data, options) => write(offset, data.subarray(0, data.byteLength - 512), options),
    })),
  },
  {
    what: "keeps the first of two writes to one place",
    clause: "writer.write.idempotent",
    plant: writer(({ write }) => {
      const seen = new Set<number>();
      return {
        write: async (offset, data, options) => {
          if (!seen.has(offset)) await write(offset, data, options);
          seen.add(offset);
        },
      };
    }),
  },
  {
    what: "clears what lies behind a write, up to its grid",
    clause: "writer.write.exact-range",
    plant: writer(({ write, zero }) => ({
      write: async (offset, data, options) => {
        await write(offset, data, options);
        await zero!(offset + data.byteLength, 512);
      },
    })),
  },
  {
    what: "writes at the flush what the buffer holds then",
    clause: "writer.write.keeps-no-reference",
    plant: writer(({ write, flush }) => {
      const later: [number, Uint8Array][] = [];
      return {
        write: async (offset, data) => void later.push([offset, data]),
        flush: async (wait) => {
          for (const [offset, data] of later.splice(0)) await write(offset, data);
          await flush(wait);
        },
      };
    }),
  },
  {
    what: "scrambles the caller's buffer in place",
    clause: "writer.write.leaves-data",
    plant: writer(({ write }) => ({
      write: async (offset, data, options) => {
        await write(offset, data, options);
        data[0] = 0;
      },
    })),
  },
  {
    what: "puts a header before the data without being given headroom",
    clause: "writer.write.leaves-data",
    plant: writer(({ write }) => ({
      write: async (offset, data, options) => {
        new Uint8Array(data.buffer).fill(0, Math.max(0, data.byteOffset - 28), data.byteOffset);
        await write(offset, data, options);
      },
    })),
  },
  {
    what: "has one buffer for writes at once",
    clause: "writer.write.concurrent",
    plant: writer(({ write, size }) => {
      const shared = new Uint8Array(size);
      return {
        write: async (offset, data, options) => {
          shared.set(data);
          await elsewhere();
          await write(offset, shared.subarray(0, data.byteLength), options);
        },
      };
    }),
  },
  {
    what: "drops the short last block",
    clause: "writer.write.short-final-block",
    options: { target: { blockSize: 4096 } },
    plant: writer(({ write }) => ({
      write: async (offset, data, options) => (data.byteLength % 4096 === 0 ? write(offset, data, options) : undefined),
    })),
  },
  {
    what: "cuts a write off at the volume's end and says nothing",
    clause: "writer.write.beyond-end",
    plant: writer(({ write, size }) => ({
      write: async (offset, data, options) =>
        offset < size ? write(offset, data.subarray(0, size - offset), options) : undefined,
    })),
  },
  {
    what: "does not hear the signal of a write",
    clause: "writer.write.cancel",
    plant: writer(({ write }) => ({ write: (offset, data) => write(offset, data) })),
  },
  { what: "zeroes nothing", clause: "writer.zero.zeroes", plant: writer(() => ({ zero: async () => {} })) },
  {
    what: "widens the range it zeroes",
    clause: "writer.zero.zeroes",
    plant: writer(({ zero }) => ({ zero: (offset, length, wait) => zero!(offset, length + 512, wait) })),
  },
  {
    what: "zeroes at the flush, over later writes",
    clause: "writer.zero.order",
    plant: writer(({ zero, flush }) => {
      const later: [number, number][] = [];
      return {
        zero: async (offset, length) => void later.push([offset, length]),
        flush: async (wait) => {
          for (const [offset, length] of later.splice(0)) await zero!(offset, length);
          await flush(wait);
        },
      };
    }),
  },
  {
    what: "leaves zeroes out where the base holds bytes",
    clause: "writer.zero.over-base",
    options: versioned,
    plant: writer(() => ({ zero: async () => {} })),
  },
  {
    what: "reads back what was there before the run",
    clause: "writer.read.back",
    plant: writer(() => ({ read: async (_, into) => void into.fill(0) })),
  },
  {
    what: "calls a flush done that never reached the disk",
    clause: "writer.flush.durable",
    plant: writer(() => ({ flush: async () => {} })),
  },
  {
    what: "vouches for writes of a session that is gone",
    clause: "writer.flush.this-session",
    plant: writer(({ flush }) => ({ flush: (wait) => flush(wait).catch(() => undefined) })),
  },
  {
    what: "calls a session that is gone worth another try",
    clause: "writer.write.lost-session",
    plant: writer(({ write }) => ({
      write: (offset, data, options) =>
        write(offset, data, options).catch(() => Promise.reject(new ProviderError("UNAVAILABLE", "try again"))),
    })),
  },
  {
    what: "discards the run when it is disposed",
    clause: "writer.dispose.keeps",
    options: versioned,
    plant: writer((original) => ({
      [Symbol.asyncDispose]: async () => {
        await original.abandon();
        await original[Symbol.asyncDispose]();
      },
    })),
  },
  {
    what: "makes another volume with each commit",
    clause: "writer.commit.idempotent",
    plant: writer(({ commit }) => ({
      commit: async (request) => {
        const committed = await commit(request);
        return { ...committed, id: `${committed.id}-${++counter}` };
      },
    })),
  },
  {
    what: "tells another size than the volume has",
    clause: "writer.commit.volume",
    plant: writer(({ commit }) => ({ commit: async (request) => ({ ...(await commit(request)), size: 512 }) })),
  },
  {
    what: "starts an increment from nothing",
    clause: "writer.commit.over-base",
    options: versioned,
    plant: target(({ open }) => ({ open: (volume, { base: _, ...request }) => open(volume, request) })),
  },
  {
    what: "overwrites the earlier version",
    clause: "writer.commit.earlier-versions",
    options: versioned,
    plant: (harness, place) => {
      let newest: Parameters<TargetHarness["readVolume"]>[0] | undefined;
      const committing = writer(({ commit }) => ({ commit: async (request) => (newest = await commit(request)) }))(
        harness,
        place,
      );
      return withTarget(({ readVolume }) => ({
        readVolume: (volume, offset, length) => readVolume(newest ?? volume, offset, length),
      }))(committing, place);
    },
  },
  {
    what: "harms the base of an abandoned run",
    clause: "writer.abandon.base",
    options: versioned,
    plant: (harness, place) => {
      let harmed = false;
      const harming = writer(() => ({ abandon: async () => void (harmed = true) }))(harness, place);
      return withTarget(({ readVolume }) => ({
        readVolume: (volume, offset, length) => (harmed ? new Uint8Array(length) : readVolume(volume, offset, length)),
      }))(harming, place);
    },
  },
  {
    what: "keeps the generation of an abandoned run",
    clause: "writer.abandon.generation",
    plant: writer(() => ({ abandon: async () => {} })),
  },
  {
    what: "discards a committed volume with abandon",
    clause: "writer.abandon.keeps-commit",
    options: versioned,
    plant: target((original) => ({
      open: async (volume, request) => {
        const opened = await original.open(volume, request);
        let committed: Parameters<TargetProvider["remove"]>[0] | undefined;
        return {
          ...opened,
          commit: async (wanted) => (committed = await opened.commit(wanted)),
          abandon: async () => (committed === undefined ? undefined : original.remove(committed)),
        };
      },
    })),
  },
  {
    what: "takes any digest",
    clause: "writer.digest.checked",
    options: { target: { digest: "sha256", blockSize: 4096 } },
    plant: writer(({ write }) => ({
      write: (offset, data, { digest: _, ...options } = {}) => write(offset, data, options),
    })),
  },
];

const ofLaunch: Planted[] = [
  {
    what: "launches another machine for the same key",
    clause: "launch.idempotent",
    plant: target(({ launch }) => ({
      launch: (machine, disks, request) => launch!(machine, disks, { ...request, key: `${request.key}-${++counter}` }),
    })),
  },
  {
    what: "tells no purpose",
    clause: "launch.describes",
    plant: target(({ launch }) => ({
      launch: async (machine, disks, request) => ({
        ...(await launch!(machine, disks, request)),
        purpose: undefined as unknown as "test",
      }),
    })),
  },
  {
    what: "boots the replica itself for a test",
    clause: "launch.test.clones",
    plant: target(({ launch }) => ({
      launch: async (machine, disks, request) => ({
        ...(await launch!(machine, disks, { ...request, purpose: "cutover" })),
        purpose: request.purpose,
        consumed: false,
      }),
    })),
  },
  {
    what: "removes a replica that a machine runs on",
    clause: "launch.cutover.consumes",
    plant: target(({ remove }) => ({ remove: (volume, wait) => remove(volume, wait).catch(() => undefined) })),
  },
  {
    what: "takes the replica for a cutover and does not say so",
    clause: "launch.cutover.consumes",
    plant: target(({ launch }) => ({
      launch: async (machine, disks, request) => ({ ...(await launch!(machine, disks, request)), consumed: false }),
    })),
  },
  {
    what: "launches without a volume that is gone",
    clause: "launch.gone",
    plant: target(({ launch }) => ({
      launch: (machine, disks, request) =>
        launch!(
          machine,
          disks.filter(({ volume }) => !volume.id.endsWith("-gone")),
          request,
        ),
    })),
  },
  {
    what: "does not hear the signal of a launch",
    clause: "launch.cancel",
    plant: target(({ launch }) => ({
      launch: (machine, disks, { signal: _, ...request }) => launch!(machine, disks, request),
    })),
  },
  {
    what: "knows what it launched until it is restarted, and launches again then",
    clause: "launch.idempotent",
    plant: target(({ launch }) => {
      const own = ++counter;
      return {
        launch: (machine, disks, request) => launch!(machine, disks, { ...request, key: `${request.key}-${own}` }),
      };
    }),
  },
  {
    what: "launches the same machine for two keys",
    clause: "launch.idempotent",
    plant: target(({ launch }) => ({
      launch: (machine, disks, request) => launch!(machine, disks, { ...request, key: disks[0]!.volume.id }),
    })),
  },
  {
    what: "gives a machine that JSON loses a part of",
    clause: "launch.describes",
    plant: target(({ launch }) => ({
      launch: async (machine, disks, request) => ({
        ...(await launch!(machine, disks, request)),
        data: new Map() as unknown as {},
      }),
    })),
  },
  {
    what: "attaches the disks in their order, not by their names",
    clause: "launch.disks",
    plant: target(({ launch }) => ({
      launch: (machine, disks, request) => {
        const names = disks.map(({ disk }) => disk).sort();
        return launch!(
          machine,
          disks.map((each, index) => ({ ...each, disk: names[index]! })),
          request,
        );
      },
    })),
  },
  {
    what: "boots from the first volume it is given, on every disk",
    clause: "launch.disks",
    plant: target(({ launch }) => ({
      launch: (machine, disks, request) =>
        launch!(
          machine,
          disks.map((each) => ({ ...each, volume: disks[0]!.volume })),
          request,
        ),
    })),
  },
  {
    what: "lists no machine that it launched",
    clause: "launch.owned",
    plant: target(({ owned }) => ({
      async *owned(job, wait) {
        for await (const each of owned(job, wait)) if (each.kind !== "machine") yield each;
      },
    })),
  },
  {
    what: "lists the machines of every job",
    clause: "launch.owned",
    plant: target((_, place) => ({
      async *owned() {
        for (const id of place.launchedIds()) yield { kind: "machine", id, description: "a machine" };
      },
    })),
  },
  {
    what: "says that it terminated a machine, and leaves it running",
    clause: "launch.owned",
    plant: target(() => ({ terminate: async () => {} })),
  },
  {
    what: "leaves the clones of a terminated machine behind",
    clause: "launch.owned",
    plant: target(({ launch, create }) => ({
      launch: async (machine, disks, request) => {
        await create({ key: `clone-${request.key}`, size: disks[0]!.volume.size, job: request.job });
        return launch!(machine, disks, request);
      },
    })),
  },
  {
    what: "makes clones before it hears that the launch is called off",
    clause: "launch.cancel",
    plant: target(({ launch, create }) => ({
      launch: async (machine, disks, request) => {
        await create({ key: `clone-${request.key}`, size: disks[0]!.volume.size, job: request.job });
        return launch!(machine, disks, request);
      },
    })),
  },
  {
    what: "does not hear the signal of terminate",
    clause: "launch.cancel",
    plant: target(({ terminate }) => ({ terminate: (machine) => terminate!(machine) })),
  },
  {
    what: "removes the replica together with the machine",
    clause: "launch.terminate.idempotent",
    options: versioned,
    plant: target(({ launch, terminate, remove }) => {
      const used = new Map<string, Parameters<TargetProvider["remove"]>[0][]>();
      return {
        launch: async (machine, disks, request) => {
          const launched = await launch!(machine, disks, request);
          used.set(
            launched.id,
            disks.map(({ volume }) => volume),
          );
          return launched;
        },
        terminate: async (machine, wait) => {
          await terminate!(machine, wait);
          for (const volume of used.get(machine.id) ?? []) await remove(volume);
        },
      };
    }),
  },
  {
    what: "terminates only what this connection launched",
    clause: "launch.terminate.idempotent",
    plant: target(({ launch, terminate }) => {
      const own = new Set<string>();
      return {
        launch: async (machine, disks, request) => {
          const launched = await launch!(machine, disks, request);
          own.add(launched.id);
          return launched;
        },
        terminate: async (machine, wait) => {
          if (!own.has(machine.id)) throw new ProviderError("NOT_FOUND", `machine ${machine.id} is not mine`);
          await terminate!(machine, wait);
        },
      };
    }),
  },
  {
    what: "rejects the second terminate",
    clause: "launch.terminate.idempotent",
    plant: target(({ terminate }) => {
      const ended = new Set<string>();
      return {
        terminate: async (machine, wait) => {
          if (ended.has(machine.id)) throw new ProviderError("NOT_FOUND", "ended already");
          ended.add(machine.id);
          await terminate!(machine, wait);
        },
      };
    }),
  },
];

/** Says something else before a run, at both ends. */
const says = (change: (said: Preflight) => Partial<Preflight>): Planted["plant"][] => {
  const said = (): Preflight => ({ ...saysBefore(), ...change(saysBefore()) });
  return [source(() => ({ preflight: async () => said() })), target(() => ({ preflight: async () => said() }))];
};

const before: [what: string, change: (said: Preflight) => Partial<Preflight>][] = [
  ["tells minutes that are no number", () => ({ minutes: { value: Number.NaN, kind: "estimate" } })],
  ["tells costs below nothing", ({ costs }) => ({ costs: [{ ...costs![0]!, amount: { value: -1, kind: "exact" } }] })],
  ["tells prices of tomorrow's year", ({ costs }) => ({ costs: [{ ...costs![0]!, pricesOf: "2999-01-01" }] })],
  ["tells half a call", () => ({ calls: [{ operation: "Get", count: { value: 0.5, kind: "exact" } }] })],
  ["misses what it does not need", () => ({ privileges: { needed: ["read"], missing: ["write"] } })],
  [
    "finds something and does not say what",
    () => ({ findings: [{ severity: "blocker", subject: "disk", message: "" }] }),
  ],
  ["tells a secret", () => ({ findings: [{ severity: "info", subject: "login", message: "logged in with hunter2" }] })],
];

const ofPreflight: Planted[] = [
  ...before.flatMap(([what, change]) => {
    const [atSource, atTarget] = says(change);
    return [
      { what: `${what}, before a run`, clause: "source.preflight.sane", plant: atSource! },
      { what: `${what}, before a run`, clause: "target.preflight.sane", plant: atTarget! },
    ];
  }),
  {
    what: "does not hear the signal of preflight",
    clause: "source.preflight.sane",
    plant: source(() => ({ preflight: async () => saysBefore() })),
  },
  {
    what: "takes a snapshot to look at it",
    clause: "source.preflight.changes-nothing",
    plant: source(({ snapshot }) => ({
      preflight: async (machine, { job }) => {
        if (machine !== undefined) await snapshot(machine, { key: `look-${++counter}`, job });
        return saysBefore();
      },
    })),
  },
  {
    what: "turns tracking on because that will be needed",
    clause: "source.preflight.changes-nothing",
    options: { source: { tracker: { enabled: false } } },
    plant: source(({ tracker: tracking }) => ({
      preflight: async (machine) => {
        if (machine !== undefined) await tracking?.enable?.(machine);
        return saysBefore();
      },
    })),
  },
  {
    what: "makes the volume already",
    clause: "target.preflight.changes-nothing",
    plant: target(({ create }) => ({
      preflight: async ({ disks, job }) => {
        for (const { disk, size } of disks) await create({ key: `${disk}-${++counter}`, size, job });
        return saysBefore();
      },
    })),
  },
  {
    what: "makes room by removing the last replica",
    clause: "target.preflight.changes-nothing",
    options: { target: { style: "versioned" } },
    plant: target(({ remove }) => ({
      preflight: async ({ disks }) => {
        for (const { base } of disks) if (base !== undefined) await remove(base);
        return saysBefore();
      },
    })),
  },
];

const ofFences: Planted[] = [
  {
    what: "says that it fences, on a platform of which the harness says that nothing can",
    clause: "target.fence.declared",
    plant: withTarget(() => ({ unfenced: "nothing cuts a writer off here" })),
  },
  {
    what: "says that it fences, and fences nothing",
    clause: "target.fence.declared",
    plant: target(({ open }) => ({ open: (volume, request) => open(volume, { ...request, epoch: 1 }) })),
  },
  {
    what: "lets what was under way land after `open` resolved",
    clause: "target.fence.declared",
    plant: (harness, place) => {
      let newest: BlockWriter | undefined;
      return target(({ open }) => ({
        open: async (volume, request) => {
          const opened = await open(volume, request);
          newest = opened;
          if (request.epoch !== 1) return opened;
          return {
            ...opened,
            write: async (offset, data, options) => {
              if (offset !== 0) return opened.write(offset, data, options);
              const late = data.slice();
              // Past the fence, as a request that waited in a queue of the platform would.
              await new Promise((resolve) => setTimeout(resolve, 20));
              await newest?.write(offset, late, options);
            },
          };
        },
      }))(harness, place);
    },
  },
];

/** Every planted violation. */
export const planted: readonly Planted[] = [
  ...ofDefinition,
  ...ofSource,
  ...ofReader,
  ...ofTracker,
  ...ofPreflight,
  ...ofTarget,
  ...ofFences,
  ...ofWriter,
  ...ofLaunch,
];
