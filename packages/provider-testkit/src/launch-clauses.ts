import type { LaunchedMachine, LaunchRequest, TargetProvider, Volume } from "@diskferry/core/provider";
import type { Clause } from "./judge.ts";
import { freshKey, gather, isPlainJson, pattern, roundTrip } from "./judge.ts";
import type { TargetWorld } from "./target-world.ts";

interface Launching {
  volume: Volume;
  bytes: Uint8Array;
  launch(request?: Partial<LaunchRequest>, target?: TargetProvider): Promise<LaunchedMachine>;
  terminate(machine: LaunchedMachine): Promise<void>;
}

/** A committed volume, and how to launch from it; leaves the clause unjudged where the target launches nothing. */
async function launching(world: TargetWorld): Promise<Launching> {
  const { judge, target } = world;
  if (target.launch === undefined) return judge.skip("absent: target.launch");
  if (target.terminate === undefined) return judge.fail("launch without terminate");
  const { terminate } = target;
  const bytes = pattern(64 * 1024, 1101);
  const volume = await world.run(await world.volume(), [[0, bytes]]);
  return {
    volume,
    bytes,
    launch: async (request = {}, connection = target) => {
      const full: LaunchRequest = { key: freshKey("launch"), purpose: "test", ...request };
      if (connection.launch === undefined) return judge.fail("a second connection without launch");
      const machine = await connection.launch({ name: "conformance" }, [{ disk: "boot", boot: true, volume }], full);
      judge.defer(() => terminate.call(target, machine));
      return machine;
    },
    terminate: (machine) => terminate.call(target, machine),
  };
}

/** What the contract demands of `launch` and `terminate`. */
export const launchClauses: readonly Clause<TargetWorld>[] = [
  {
    id: "launch.idempotent",
    clause: "The same key launches the same machine once, also on another connection.",
    run: async (world) => {
      const { launch } = await launching(world);
      const key = freshKey("launch");
      const first = await launch({ key });
      for (const target of [world.target, await world.restarted()]) {
        const again = await launch({ key }, target);
        world.judge.demand(again.id === first.id, `machine ${again.id} for the key of ${first.id}`);
      }
      const other = await launch();
      world.judge.demand(other.id !== first.id, `machine ${other.id} for two keys`);
    },
  },
  {
    id: "launch.disks",
    clause: "A launched machine finds on each disk what that disk's volume holds, whatever their order.",
    run: async (world) => {
      const { judge, harness, target } = world;
      const { volume, bytes, terminate } = await launching(world);
      if (harness.readLaunched === undefined) return judge.skip("absent: harness.target.readLaunched");
      const second = pattern(64 * 1024, 1104);
      const other = await world.run(await world.volume(), [[0, second]]);
      const machine = await target.launch?.(
        { name: "conformance" },
        [
          { disk: "data", volume: other },
          { disk: "boot", boot: true, volume },
        ],
        { key: freshKey("launch"), purpose: "test" },
      );
      if (machine === undefined) return judge.fail("a launch that resolved with nothing");
      judge.defer(() => terminate(machine));
      judge.same(await harness.readLaunched(machine.id, "boot", 0, bytes.byteLength), bytes, "the disk to boot from");
      judge.same(await harness.readLaunched(machine.id, "data", 0, second.byteLength), second, "the other disk");
    },
  },
  {
    id: "launch.owned",
    clause:
      "`owned` lists a machine that a job launched until it is terminated, and then nothing that its launch made.",
    run: async (world) => {
      const { judge, target } = world;
      const { launch, terminate } = await launching(world);
      const job = freshKey("job");
      const machine = await launch({ job });
      const other = await launch({ job: freshKey("job") });
      const owned = await gather((await world.restarted()).owned(job));
      judge.demand(
        owned.some(({ id }) => id === machine.id),
        `a listing without ${machine.id}, which a kill before its record would lose`,
      );
      judge.demand(!owned.some(({ id }) => id === other.id), `a listing with ${other.id}, of another job`);
      await terminate(roundTrip(machine));
      const left = await gather(target.owned(job));
      judge.demand(left.length === 0, `${left[0]?.kind} ${left[0]?.id} after the machine was terminated`);
    },
  },
  {
    id: "launch.describes",
    clause: "A launched machine is plain JSON and tells its purpose and whether it took the replica itself.",
    run: async (world) => {
      const { launch, terminate } = await launching(world);
      const machine = await launch();
      world.judge.demand(isPlainJson(machine), "a machine that is no plain JSON");
      world.judge.demand(machine.purpose === "test", `purpose ${machine.purpose} for a test`);
      world.judge.demand(typeof machine.consumed === "boolean", `consumed ${String(machine.consumed)}`);
      world.judge.demand(typeof machine.id === "string" && machine.id !== "", "a machine without id");
      await terminate(roundTrip(machine));
    },
  },
  {
    id: "launch.test.clones",
    clause: "A test boots a clone and leaves the replica as it is, whatever the machine writes.",
    run: async (world) => {
      const { launch, terminate, volume, bytes } = await launching(world);
      const machine = await launch();
      world.judge.demand(!machine.consumed, "a test that took the replica itself");
      await world.harness.writeLaunched?.(machine.id, "boot", 0, pattern(4096, 1102));
      await world.holds(volume, 0, bytes, "the replica during the test");
      await terminate(machine);
      await world.holds(volume, 0, bytes, "the replica after the test");
    },
  },
  {
    id: "launch.cutover.consumes",
    clause: "A cutover may take the replica and says so; a replica that a machine runs on is not removed: IN_USE.",
    run: async (world) => {
      const { launch, terminate, volume, bytes } = await launching(world);
      const machine = await launch({ purpose: "cutover" });
      world.judge.demand(machine.purpose === "cutover", `purpose ${machine.purpose} for a cutover`);
      if (machine.consumed)
        await world.judge.rejects(
          "remove of the replica that a machine runs on",
          world.target.remove(volume),
          "IN_USE",
        );
      else await world.harness.writeLaunched?.(machine.id, "boot", 0, pattern(4096, 1103));
      await world.holds(volume, 0, bytes, "the replica after the cutover");
      await terminate(machine);
    },
  },
  {
    id: "launch.gone",
    clause: "`launch` rejects with NOT_FOUND when a volume is gone.",
    run: async (world) => {
      const { launch, volume } = await launching(world);
      const gone = { ...volume, id: `${volume.id}-gone` };
      const launched = world.target.launch?.({}, [{ disk: "boot", volume: gone }], {
        key: freshKey("launch"),
        purpose: "test",
      });
      await world.judge.rejects("launch from a volume that is gone", Promise.resolve(launched), "NOT_FOUND");
      await launch();
    },
  },
  {
    id: "launch.cancel",
    clause:
      "`launch` and `terminate` reject with the reason of their aborted signal; such a launch leaves nothing behind.",
    run: async (world) => {
      const { launch } = await launching(world);
      const job = freshKey("job");
      await world.judge.abortsBefore("launch", (signal) => launch({ job, signal }));
      const left = await gather(world.target.owned(job));
      world.judge.demand(left.length === 0, `${left[0]?.kind} ${left[0]?.id} after an aborted launch`);
      const machine = await launch();
      await world.judge.abortsBefore("terminate", async (signal) => world.target.terminate?.(machine, { signal }));
    },
  },
  {
    id: "launch.terminate.idempotent",
    clause: "`terminate` ends the machine, leaves the volume, and does nothing when that was done.",
    run: async (world) => {
      const { launch, terminate, volume, bytes } = await launching(world);
      const machine = await launch();
      await terminate(machine);
      await terminate(machine);
      await (await world.restarted()).terminate?.(roundTrip(machine));
      await world.holds(volume, 0, bytes, "the replica after terminate");
      const next = await launch();
      await terminate(next);
    },
  },
];
