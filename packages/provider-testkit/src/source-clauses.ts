import type { Clause } from "./judge.ts";
import { freshKey, gather, isPlainJson, pattern, roundTrip } from "./judge.ts";
import type { SourceWorld } from "./source-world.ts";

const qualities = ["none", "disk", "crash", "filesystem", "application"];

/** What the contract demands of a SourceConnector, its power and its snapshots. */
export const sourceClauses: readonly Clause<SourceWorld>[] = [
  {
    id: "source.machines.lists",
    clause: "`machines` lists every machine once, with disks of distinct keys and sizes that are multiples of 512.",
    run: async ({ judge, source, machine }) => {
      const machines = await gather(source.machines());
      judge.demand(
        machines.some(({ id }) => id === machine.id),
        `a listing without ${machine.id}`,
      );
      judge.demand(new Set(machines.map(({ id }) => id)).size === machines.length, "two machines of one id");
      for (const { id, disks } of machines) {
        judge.demand(new Set(disks.map(({ key }) => key)).size === disks.length, `two disks of one key in ${id}`);
        for (const { key, size } of disks)
          judge.demand(size > 0 && size % 512 === 0, `${size} bytes as the size of ${id}/${key}`);
      }
    },
  },
  {
    id: "source.machines.cancel",
    clause: "`machines` rejects with the reason of its aborted signal.",
    run: ({ judge, source }) => judge.abortsBefore("machines", (signal) => gather(source.machines({ signal }))),
  },
  {
    id: "source.machine.finds",
    clause: "`machine` gives the machine of an id, the same as the listing does.",
    run: async ({ judge, source, machine, harness }) => {
      judge.demand(machine.id === harness.machine, `machine ${machine.id} for the id ${harness.machine}`);
      const listed = (await gather(source.machines())).find(({ id }) => id === machine.id);
      const keys = (disks: readonly { key: string; size: number }[]): string =>
        JSON.stringify(disks.map(({ key, size }) => [key, size]));
      judge.demand(
        listed !== undefined && keys(listed.disks) === keys(machine.disks),
        "other disks than in the listing",
      );
    },
  },
  {
    id: "source.machine.not-found",
    clause: "`machine` rejects with NOT_FOUND for what is not there.",
    run: ({ judge, source }) =>
      judge.rejects("machine of an unknown id", source.machine(freshKey("nobody")), "NOT_FOUND"),
  },
  {
    id: "source.machine.cancel",
    clause: "`machine` rejects with the reason of its aborted signal.",
    run: ({ judge, source, machine }) =>
      judge.abortsBefore("machine", (signal) => source.machine(machine.id, { signal })),
  },
  {
    id: "source.handles.json",
    clause: "Machines and snapshots are plain JSON and work after a round trip through it, on another connection.",
    run: async (world) => {
      const { judge, machine } = world;
      judge.demand(isPlainJson(machine), `a machine that is no plain JSON`);
      const written = await world.scribble(0, 4096, 11);
      const other = await world.restarted();
      const snapshot = await other.snapshot(roundTrip(machine), { key: freshKey("snapshot") });
      judge.defer(() => world.source.release(snapshot));
      judge.demand(isPlainJson(snapshot), "a snapshot that is no plain JSON");
      const third = await world.restarted();
      judge.same(
        await world.read(world.of(roundTrip(snapshot)), 0, 4096, third),
        written,
        "the disk after the round trip",
      );
      await third.release(roundTrip(snapshot));
    },
  },
  {
    id: "source.handles.no-secrets",
    clause: "No machine, snapshot or checkpoint holds a secret.",
    run: async (world) => {
      const { judge, source, machine } = world;
      const secrets = judge.needs(judge.harness.secrets, "harness.secrets");
      const snapshot = await world.snapshot();
      const handles = JSON.stringify([machine, snapshot, await source.tracker?.checkpoint(world.of(snapshot))]);
      for (const secret of secrets)
        judge.demand(!handles.includes(secret), "a handle that holds one of the harness's secrets");
    },
  },
  {
    id: "source.snapshot.fixed",
    clause: "A snapshot is one point in time: what the guest writes later is not in it.",
    excuse: "unfixed",
    run: async (world) => {
      const before = await world.scribble(8192, 4096, 21);
      const disk = await world.point();
      await world.scribble(8192, 4096, 22);
      world.judge.same(await world.read(disk, 8192, 4096), before, "the snapshot after the guest wrote");
    },
  },
  {
    id: "source.snapshot.unfixed",
    clause: "A snapshot that does not keep what the disk held promises nothing: its consistency is `none`.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.unfixed === undefined) return judge.skip("the source's snapshots keep what the disk held");
      const { consistency } = await world.snapshot();
      judge.demand(consistency === "none", `consistency ${consistency}, where the harness says: ${harness.unfixed}`);
    },
  },
  {
    id: "source.snapshot.idempotent",
    clause: "The same key gives the same snapshot with the same bytes again, also on another connection.",
    excuse: "snapshotless",
    run: async (world) => {
      const { judge, machine, source } = world;
      const before = await world.scribble(0, 4096, 31);
      const first = await world.snapshot({ key: freshKey("same") });
      await world.scribble(0, 4096, 32);
      for (const connection of [source, await world.restarted()]) {
        const again = await connection.snapshot(machine, { key: first.key });
        judge.demand(again.id === first.id, `snapshot ${again.id} for the key of ${first.id}`);
        judge.demand(world.of(again).id === world.of(first).id, "another id for the same disk snapshot");
        judge.same(await world.read(world.of(again), 0, 4096), before, "the snapshot asked for again");
      }
    },
  },
  {
    id: "source.snapshot.distinct",
    clause: "Another key gives another snapshot, and another content never has the same disk snapshot id.",
    run: async (world) => {
      const first = await world.snapshot();
      await world.scribble(0, 512, 41);
      const second = await world.snapshot();
      world.judge.demand(first.id !== second.id, `the same snapshot ${first.id} for two keys`);
      world.judge.demand(
        world.of(first).id !== world.of(second).id,
        `the same disk snapshot ${world.of(first).id} for two contents`,
      );
    },
  },
  {
    id: "source.snapshot.describes",
    clause: "A snapshot tells its key, its machine, its time, the consistency achieved and the sizes of its disks.",
    run: async (world) => {
      const { judge, machine } = world;
      const key = freshKey("described");
      const snapshot = await world.snapshot({ key });
      judge.demand(snapshot.key === key, `key ${snapshot.key} for ${key}`);
      judge.demand(snapshot.machine === machine.id, `machine ${snapshot.machine} for ${machine.id}`);
      judge.demand(qualities.includes(snapshot.consistency), `consistency ${String(snapshot.consistency)}`);
      judge.demand(
        /^\d{4}-\d\d-\d\dT/.test(snapshot.takenAt) && !Number.isNaN(Date.parse(snapshot.takenAt)),
        `takenAt ${snapshot.takenAt}`,
      );
      for (const disk of snapshot.disks) {
        const { size } = machine.disks.find(({ key: known }) => known === disk.disk) ?? { size: -1 };
        judge.demand(disk.size === size, `${disk.size} bytes for disk ${disk.disk} of ${size}`);
        judge.demand(disk.machine === machine.id, `disk ${disk.disk} of machine ${disk.machine}`);
      }
    },
  },
  {
    id: "source.snapshot.chosen-disks",
    clause: "A snapshot holds the chosen disks and no other; without a choice, every eligible one.",
    run: async (world) => {
      const { judge, machine, disk } = world;
      const chosen = await world.snapshot({ disks: [disk.key] });
      judge.demand(
        chosen.disks.length === 1 && chosen.disks[0]?.disk === disk.key,
        `disks ${chosen.disks.map((one) => one.disk).join()} for ${disk.key}`,
      );
      const all = await world.snapshot();
      const eligible = machine.disks.filter(({ ineligible }) => ineligible === undefined).map(({ key }) => key);
      judge.demand(
        all.disks
          .map((one) => one.disk)
          .sort()
          .join() === eligible.sort().join(),
        `disks ${all.disks.map((one) => one.disk).join()} for ${eligible.join()}`,
      );
    },
  },
  {
    id: "source.snapshot.one-moment",
    clause: "From `crash` upward all disks are of one moment: a write is there only with every write before it.",
    run: async (world) => {
      const { judge, harness } = world;
      const second = judge.needs(harness.second, "harness.source.second");
      let done = false;
      const guest = (async () => {
        for (let turn = 1; !done; turn++) {
          const bytes = new Uint8Array(512);
          new DataView(bytes.buffer).setUint32(0, turn);
          await harness.writeGuest(0, bytes);
          await second.write(0, bytes);
          await new Promise((resolve) => setImmediate(resolve));
        }
      })();
      // Awaited at the end; until then a guest that cannot write must not count as an unhandled rejection.
      guest.catch(() => undefined);
      try {
        for (let round = 0; round < 4; round++) {
          await new Promise((resolve) => setTimeout(resolve, 2));
          const snapshot = await world.snapshot();
          if (!["crash", "filesystem", "application"].includes(snapshot.consistency))
            return judge.skip(`consistency ${snapshot.consistency} promises nothing among disks`);
          const turnOf = async (key: string): Promise<number> => {
            const bytes = await world.read(world.of(snapshot, key), 0, 512);
            return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
          };
          const [first, later] = [await turnOf(world.disk.key), await turnOf(second.key)];
          // Before the guest's first turn both disks hold whatever an earlier clause left.
          if (round > 0)
            judge.demand(
              first === later || first === later + 1,
              `write ${first} on the one disk with write ${later} on the other`,
            );
        }
      } finally {
        done = true;
        await guest;
      }
    },
  },
  {
    id: "source.snapshot.cancel",
    clause: "`snapshot` rejects with the reason of its aborted signal and leaves nothing behind.",
    run: async ({ judge, source, machine }) => {
      const job = freshKey("job");
      await judge.abortsBefore("snapshot", (signal) =>
        source.snapshot(machine, { key: freshKey("never"), job, signal }),
      );
      judge.demand((await gather(source.owned(job))).length === 0, "a snapshot after an aborted call");
    },
  },
  {
    id: "source.snapshots.lists",
    clause: "`snapshots` lists the points in time that exist, ready to be opened, and no released one.",
    run: async (world) => {
      const { judge, source, machine } = world;
      if (source.snapshots === undefined) return judge.skip("absent: source.snapshots");
      const written = await world.scribble(0, 4096, 51);
      const taken = await world.snapshot();
      const listed = (await gather(source.snapshots(machine))).find(({ id }) => id === taken.id);
      if (listed === undefined) return judge.fail(`a listing without ${taken.id}`);
      judge.same(await world.read(world.of(listed), 0, 4096), written, "the listed snapshot");
      await source.release(taken);
      judge.demand(
        !(await gather(source.snapshots(machine))).some(({ id }) => id === taken.id),
        `a listing with ${taken.id}, which was released`,
      );
    },
  },
  {
    id: "source.open.not-found",
    clause: "`open` rejects with NOT_FOUND when the snapshot is gone.",
    excuse: "snapshotless",
    run: async (world) => {
      const snapshot = await world.snapshot();
      await world.source.release(snapshot);
      await world.judge.rejects("open of a released snapshot", world.source.open(world.of(snapshot)), "NOT_FOUND");
    },
  },
  {
    id: "source.open.cancel",
    clause: "`open` rejects with the reason of its aborted signal.",
    run: async (world) => {
      const disk = await world.point();
      await world.judge.abortsBefore("open", (signal) => world.source.open(disk, { signal }));
    },
  },
  {
    id: "source.release.idempotent",
    clause: "`release` gives a snapshot up, and does nothing when that was done.",
    run: async (world) => {
      const snapshot = await world.snapshot();
      await world.source.release(snapshot);
      await world.source.release(snapshot);
      await (await world.restarted()).release(snapshot);
    },
  },
  {
    id: "source.release.others",
    clause: "`release` gives up that snapshot alone.",
    excuse: "unfixed",
    run: async (world) => {
      const written = await world.scribble(0, 4096, 61);
      const kept = await world.point();
      await world.scribble(0, 4096, 62);
      await world.source.release(await world.snapshot());
      world.judge.same(await world.read(kept, 0, 4096), written, "a snapshot after another was released");
    },
  },
  {
    id: "source.release.foreign",
    clause: "`release` leaves a snapshot alone that `snapshot` did not make.",
    run: async (world) => {
      const { judge, harness, source } = world;
      if (harness.foreignSnapshot === undefined) return judge.skip("absent: harness.source.foreignSnapshot");
      const foreign = await harness.foreignSnapshot();
      await source.release(foreign);
      await world.reader(world.of(foreign));
    },
  },
  {
    id: "source.release.cancel",
    clause: "`release` rejects with the reason of its aborted signal.",
    run: async (world) => {
      const snapshot = await world.snapshot();
      await world.judge.abortsBefore("release", (signal) => world.source.release(snapshot, { signal }));
      await world.reader(world.of(snapshot));
    },
  },
  {
    id: "source.owned.lists",
    clause: "`owned` lists what the job made and has not released, and nothing of another job.",
    excuse: "snapshotless",
    run: async (world) => {
      const { judge, source } = world;
      const [job, other] = [freshKey("job"), freshKey("job")];
      const snapshot = await world.snapshot({ job });
      const foreign = await world.snapshot({ job: other });
      const owned = await gather((await world.restarted()).owned(job));
      const ours = owned.find((resource) => resource.snapshot?.id === snapshot.id);
      if (ours?.snapshot === undefined) return judge.fail(`a listing without ${snapshot.id}`);
      judge.demand(!owned.some((resource) => resource.snapshot?.id === foreign.id), "a snapshot of another job");
      await source.release(ours.snapshot);
      judge.demand((await gather(source.owned(job))).length === 0, "a released snapshot that is still listed");
    },
  },
  {
    id: "source.dispose.twice",
    clause: "Disposing a source twice does nothing the second time.",
    run: async (world) => {
      const other = await world.restarted();
      await other[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
    },
  },
  {
    id: "source.dispose.releases-nothing",
    clause: "Disposing a source releases nothing.",
    run: async (world) => {
      const written = await world.scribble(0, 4096, 71);
      const other = await world.harness.open();
      const snapshot = await other.snapshot(world.machine, { key: freshKey("outlives") });
      world.judge.defer(() => world.source.release(snapshot));
      await other[Symbol.asyncDispose]();
      world.judge.same(
        await world.read(world.of(snapshot), 0, 4096),
        written,
        "the snapshot after the connection was closed",
      );
    },
  },
  {
    id: "source.power.cycle",
    clause: "`power` shuts down, powers on and off, and `state` tells which it is.",
    run: async ({ judge, source, machine, harness }) => {
      const power = judge.needs(source.power, "source.power");
      if (harness.mayPower !== true) return judge.skip("the harness forbids it: harness.source.mayPower");
      judge.defer(() => power.powerOn(machine));
      const stands = async (wanted: string, after: string): Promise<void> => {
        const state = await power.state(machine);
        judge.demand(state === wanted, `state ${state} after ${after}`);
      };
      await power.powerOn(machine);
      await stands("on", "powerOn");
      await power.shutdown(machine);
      await stands("off", "shutdown");
      await power.powerOn(machine);
      await power.powerOff(machine);
      await stands("off", "powerOff");
      await judge.abortsBefore("powerOn", (signal) => power.powerOn(machine, { signal }));
      await stands("off", "an aborted powerOn");
    },
  },
  {
    id: "source.quiesce.readable",
    clause: "A quiesced machine can be snapshotted and read, and goes on when disposed, which may happen twice.",
    run: async (world) => {
      const { judge, source, machine } = world;
      if (source.quiesce === undefined) return judge.skip("absent: source.quiesce");
      const written = await world.scribble(0, 4096, 81);
      const quiet = await source.quiesce(machine);
      try {
        judge.same(await world.read(await world.point(), 0, 4096), written, "the quiesced disk");
      } finally {
        await quiet[Symbol.asyncDispose]();
        await quiet[Symbol.asyncDispose]();
      }
      await world.harness.writeGuest(0, pattern(512, 82));
    },
  },
];
