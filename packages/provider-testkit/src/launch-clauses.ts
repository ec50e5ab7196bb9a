import type { LaunchedMachine, LaunchRequest, TargetProvider, Volume } from "@diskferry/core/provider";
import type { Clause } from "./judge.ts";
import { freshKey, isPlainJson, pattern, roundTrip } from "./judge.ts";
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
    clause: "`launch` and `terminate` reject with the reason of their aborted signal.",
    run: async (world) => {
      const { launch } = await launching(world);
      await world.judge.abortsBefore("launch", (signal) => launch({ signal }));
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
      await (await world.restarted()).terminate?.(machine);
      await world.holds(volume, 0, bytes, "the replica after terminate");
      const next = await launch();
      await terminate(next);
    },
  },
];
