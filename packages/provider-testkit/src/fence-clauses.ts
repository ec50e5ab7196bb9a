import { isProviderError } from "@diskferry/core/provider";
import type { Clause } from "./judge.ts";
import { describeError, pattern } from "./judge.ts";
import type { TargetWorld } from "./target-world.ts";

/** What the contract demands of a target that cuts off the writers of older epochs. */
export const fenceClauses: readonly Clause<TargetWorld>[] = [
  {
    id: "target.fence.declared",
    clause:
      "A target that says `fences` has cut off every writer of an older epoch before `open` resolves, whatever that one had under way.",
    run: async (world) => {
      const { judge, target, harness } = world;
      if (target.fences === undefined) return judge.skip("absent: target.fences");
      judge.demand(harness.unfenced === undefined, `the target says fences, and the harness: ${harness.unfenced}`);
      const volume = await world.volume();
      const old = await world.open(volume, { run: "shared", epoch: 1, target: await world.restarted() });
      const { unit } = old;
      await old.write(8 * unit, pattern(unit, 621));
      const count = Math.min(old.writer.concurrency ?? 1, 8);
      // Under way while the newer epoch opens: each of these is in the volume before that resolves, or never.
      const underWay = Array.from({ length: count }, (_, index) =>
        old.write(index * unit, pattern(unit, 622 + index)).then(
          () => undefined,
          (error: unknown) => error,
        ),
      );
      const young = await world.open(volume, { run: "shared", epoch: 2, target: await world.restarted() });
      const bytes = pattern(count * unit, 640);
      for (let index = 0; index < count; index++)
        await young.write(index * unit, bytes.subarray(index * unit, (index + 1) * unit));
      for (const error of await Promise.all(underWay)) {
        const isCutOff = error === undefined || (isProviderError(error) && error.code === "FENCED");
        judge.demand(isCutOff, `a write under way that rejected with ${describeError(error)}`);
      }
      await judge.rejects("a later write by the older epoch", old.write(0, pattern(unit, 641)), "FENCED");
      await young.write(8 * unit, pattern(unit, 642));
      const committed = await young.commit();
      await world.holds(committed, 0, bytes, "what the newer epoch wrote over writes that were under way");
      await world.holds(committed, 8 * unit, pattern(unit, 642), "what the newer epoch wrote");
    },
  },
  {
    id: "target.fence.open-older",
    clause: "`open` with an epoch older than one that was seen rejects with FENCED, on another connection too.",
    run: async (world) => {
      const { judge, target } = world;
      if (world.harness.unfenced !== undefined) return judge.skip(world.harness.unfenced);
      const volume = await world.volume();
      await world.open(volume, { run: "shared", epoch: 7 });
      for (const connection of [target, await world.restarted()]) {
        await judge.rejects("open by an older epoch", connection.open(volume, { run: "shared", epoch: 6 }), "FENCED");
        await judge.rejects(
          "open of another run by an older epoch",
          connection.open(volume, { run: "other", epoch: 1 }),
          "FENCED",
        );
      }
      await world.open(volume, { run: "shared", epoch: 7, target: await world.restarted() });
    },
  },
  {
    id: "target.fence.cuts-off",
    clause: "Once a newer epoch has opened, the older writer's writes are rejected with FENCED and change nothing.",
    run: async (world) => {
      const { judge } = world;
      if (world.harness.unfenced !== undefined) return judge.skip(world.harness.unfenced);
      const volume = await world.volume();
      const old = await world.open(volume, { run: "shared", epoch: 1 });
      await old.write(0, pattern(old.unit, 601));
      const young = await world.open(volume, { run: "shared", epoch: 2, target: await world.restarted() });
      const bytes = pattern(young.unit, 602);
      await young.write(0, bytes);
      await judge.rejects("a write by the older epoch", old.write(0, pattern(old.unit, 603)), "FENCED");
      if (old.writer.zero !== undefined)
        await judge.rejects("a zero by the older epoch", old.writer.zero(0, old.unit), "FENCED");
      await world.holds(await young.commit(), 0, bytes, "the volume after a write by the older epoch");
    },
  },
  {
    id: "target.fence.flush-and-commit",
    clause: "Once a newer epoch has opened, the older writer can neither flush nor commit.",
    run: async (world) => {
      const { judge } = world;
      if (world.harness.unfenced !== undefined) return judge.skip(world.harness.unfenced);
      const volume = await world.volume();
      const old = await world.open(volume, { run: "shared", epoch: 1 });
      await old.write(0, pattern(old.unit, 611));
      await old.flush();
      await world.open(volume, { run: "shared", epoch: 2 });
      await judge.rejects("a flush by the older epoch", old.flush(), "FENCED");
      await judge.rejects("a commit by the older epoch", old.writer.commit({ written: old.written() }), "FENCED");
    },
  },
];
