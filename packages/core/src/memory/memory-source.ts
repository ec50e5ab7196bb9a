import type {
  Consistency,
  DiskSnapshot,
  Machine,
  PowerState,
  Snapshot,
  SnapshotRequest,
  SourceConnector,
} from "../provider/source.ts";
import type { Wait } from "../provider/wait.ts";
import { memoryError, type MemoryGate } from "./memory-gate.ts";
import type { MemoryGuests } from "./memory-guest.ts";
import { type MemoryReaderOptions, openMemoryReader } from "./memory-reader.ts";
import { checkMemoryHint, type MemoryTrackerOptions, openMemoryTracker } from "./memory-tracker.ts";

/** Shapes the source of a memory place; `false` leaves the member off. */
export interface MemorySourceOptions extends MemoryReaderOptions {
  /** The best consistency that can be achieved. Default `application`. */
  consistency?: Consistency | undefined;
  tracker?: MemoryTrackerOptions | false | undefined;
  power?: false | undefined;
  quiesce?: false | undefined;
  snapshots?: false | undefined;
}

interface SourceParts {
  gate: MemoryGate;
  guests: MemoryGuests;
  options: MemorySourceOptions;
}

const byQuality: readonly Consistency[] = ["none", "disk", "crash", "filesystem", "application"];

/** Opens a source over the machines of a memory place. Two openings see the same machines and snapshots. */
export function openMemorySource({ gate, guests, options }: SourceParts): SourceConnector {
  let closed = false;
  const trackerOptions = options.tracker === false ? {} : (options.tracker ?? {});

  const pass = <Result>(method: string, on: string, wait: Wait | undefined, act: () => Result): Promise<Result> =>
    gate.pass({ side: "source", method, on }, wait?.signal, () => {
      if (closed) throw new TypeError("this source was disposed: open the provider again");
      return act();
    });

  const setPower = (method: string, state: PowerState) => (machine: Machine, wait?: Wait) =>
    pass(`power.${method}`, machine.id, wait, () => {
      guests.guest(machine.id, method).machine.power = state;
    });

  async function* listed<Item>(
    method: string,
    on: string,
    wait: Wait | undefined,
    list: () => Item[],
  ): AsyncGenerator<Item> {
    for (const item of await pass(method, on, wait, list)) {
      wait?.signal?.throwIfAborted();
      yield item;
    }
  }

  return {
    machines: (wait?: Wait) => listed("machines", "place", wait, () => guests.machines()),

    machine: (id: string, wait?: Wait) => pass("machine", id, wait, () => guests.machine(id)),

    snapshot: (machine: Machine, request: SnapshotRequest) =>
      pass("snapshot", machine.id, request, () =>
        takeOnce(guests, machine, request, options.consistency ?? "application"),
      ),

    ...(options.snapshots === false
      ? {}
      : {
          snapshots: (machine: Machine, wait?: Wait) =>
            listed("snapshots", machine.id, wait, () =>
              [...guests.taken()]
                .filter(({ snapshot }) => snapshot.machine === machine.id)
                .map(({ snapshot }) => structuredClone(snapshot)),
            ),
        }),

    open: (disk: DiskSnapshot, wait?: Wait) =>
      pass("open", disk.id, wait, () => {
        const { size } = guests.point(disk.id, "open").content;
        return openMemoryReader({
          gate,
          side: "source",
          id: disk.id,
          content: () => guests.point(disk.id, "read").content,
          size,
          checkHint: (offset, length, hint) => checkMemoryHint(trackerOptions, disk.id, offset, length, hint),
          options,
        });
      }),

    release: (snapshot: Snapshot, wait?: Wait) =>
      pass("release", snapshot.id, wait, () => {
        if (guests.takenById(snapshot.id)?.ours === true) guests.forget(snapshot.id);
      }),

    owned: (job: string, wait?: Wait) =>
      listed("owned", job, wait, () =>
        [...guests.taken()]
          .filter((taken) => taken.ours && taken.job === job)
          .map(({ snapshot }) => ({
            kind: "snapshot",
            id: snapshot.id,
            description: `snapshot ${snapshot.id} of machine ${snapshot.machine}, taken ${snapshot.takenAt}`,
            snapshot: structuredClone(snapshot),
          })),
      ),

    ...(options.tracker === false ? {} : { tracker: openMemoryTracker({ gate, guests, options: trackerOptions }) }),

    ...(options.power === false
      ? {}
      : {
          power: {
            state: (machine: Machine, wait?: Wait) =>
              pass("power.state", machine.id, wait, () => guests.guest(machine.id, "state").machine.power),
            shutdown: setPower("shutdown", "off"),
            powerOff: setPower("powerOff", "off"),
            powerOn: setPower("powerOn", "on"),
          },
        }),

    ...(options.quiesce === false
      ? {}
      : {
          quiesce: (machine: Machine, wait?: Wait) =>
            pass("quiesce", machine.id, wait, () => {
              const guest = guests.guest(machine.id, "quiesce");
              guest.quiesced++;
              let held = true;
              return {
                async [Symbol.asyncDispose]() {
                  if (held) guest.quiesced--;
                  held = false;
                },
              };
            }),
        }),

    async [Symbol.asyncDispose]() {
      closed = true;
    },
  };
}

function takeOnce(
  guests: MemoryGuests,
  machine: Machine,
  { key, disks, consistency, job }: SnapshotRequest,
  best: Consistency,
): Snapshot {
  for (const taken of guests.taken()) {
    if (!taken.ours || taken.snapshot.key !== key) continue;
    if (taken.snapshot.machine === machine.id) return structuredClone(taken.snapshot);
    throw memoryError(
      "EXISTS",
      "snapshot",
      `key ${key} is that of a snapshot of machine ${taken.snapshot.machine}, not of ${machine.id}: use another key`,
    );
  }
  const guest = guests.guest(machine.id, "snapshot");
  const chosen =
    disks ?? [...guest.disks.values()].filter(({ disk }) => disk.ineligible === undefined).map(({ disk }) => disk.key);
  for (const disk of chosen) {
    const { ineligible } = guests.disk(machine.id, disk, "snapshot").disk;
    if (ineligible !== undefined) {
      throw memoryError(
        "UNSUPPORTED",
        "snapshot",
        `disk ${disk} of machine ${machine.id} cannot be copied (${ineligible}): leave it out`,
      );
    }
  }
  if (chosen.length === 0)
    throw memoryError("UNSUPPORTED", "snapshot", `machine ${machine.id} has no disk that can be copied`);
  return guests.take(machine.id, key, chosen, achieved(consistency, best), true, job);
}

/** All disks stop at once, so it is `crash` at least unless the place is told to be worse; better only when asked. */
function achieved(wanted: Consistency = "crash", best: Consistency): Consistency {
  const rank = Math.min(byQuality.indexOf(best), Math.max(byQuality.indexOf("crash"), byQuality.indexOf(wanted)));
  return byQuality[rank] ?? "crash";
}
