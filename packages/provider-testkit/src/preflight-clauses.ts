import type { Disk, Figure, PlannedDisk, Preflight } from "@diskferry/core/provider";
import { type Clause, freshKey, gather, isPlainJson, type Judge, pattern } from "./judge.ts";
import type { SourceWorld } from "./source-world.ts";
import type { TargetWorld } from "./target-world.ts";

const kinds = ["exact", "bound", "estimate"];
const severities = ["info", "warning", "blocker"];

/** A disk as core would plan its first copy. */
function planned({ key, size }: Pick<Disk, "key" | "size">): PlannedDisk {
  const whole: Figure = { value: size, kind: "bound" };
  return { disk: key, size, mode: "full", read: whole, write: whole };
}

/** Demands of what one end said before a run that a plan can be made of it. */
function judgePreflight(judge: Judge, preflight: Preflight, what: string): void {
  const { calls = [], costs = [], minutes, privileges, findings } = preflight;
  const figure = (of: string, { value, kind }: Figure): void => {
    judge.demand(Number.isFinite(value) && value >= 0, `${what}: ${value} as ${of}`);
    judge.demand(kinds.includes(kind), `${what}: a figure that is ${String(kind)}, as ${of}`);
  };
  judge.demand(isPlainJson(preflight), `${what}: no plain JSON`);
  for (const { operation, count } of calls) {
    judge.demand(operation !== "", `${what}: calls of an operation without a name`);
    figure(`the number of calls of ${operation}`, count);
    judge.demand(Number.isInteger(count.value), `${what}: ${count.value} calls of ${operation}`);
  }
  for (const { item, amount, currency, pricesOf } of costs) {
    judge.demand(item !== "", `${what}: a cost that does not say what is paid for`);
    figure(`the cost of ${item}`, amount);
    judge.demand(currency === "USD", `${what}: a cost in ${String(currency)}`);
    const day = Date.parse(pricesOf);
    // A day of grace, for clocks of another time zone.
    const isPast = day <= Date.now() + 86_400_000;
    judge.demand(/^\d{4}-\d\d-\d\d/.test(pricesOf) && isPast, `${what}: prices of ${pricesOf}`);
  }
  if (minutes !== undefined) figure("minutes", minutes);
  judge.demand(
    privileges === undefined || privileges.needed.every((name) => name !== ""),
    `${what}: a privilege without a name`,
  );
  for (const name of privileges?.missing ?? [])
    judge.demand(privileges?.needed.includes(name) === true, `${what}: ${name} is missing and is not needed`);
  judge.demand(Array.isArray(findings), `${what}: no findings, not even none`);
  for (const { severity, subject, message } of findings) {
    judge.demand(severities.includes(severity), `${what}: a finding that is ${String(severity)}`);
    judge.demand(subject !== "" && message !== "", `${what}: a finding without subject or message`);
  }
  const text = JSON.stringify(preflight);
  for (const secret of judge.harness.secrets ?? [])
    judge.demand(!text.includes(secret), `${what}: one of the harness's secrets`);
}

/** What the contract demands of a source's `preflight`. */
export const sourcePreflightClauses: readonly Clause<SourceWorld>[] = [
  {
    id: "source.preflight.sane",
    clause:
      "`preflight` tells figures that can be, findings that say something, and needed privileges, in plain JSON and without secrets.",
    run: async ({ judge, source, machine }) => {
      if (source.preflight === undefined) return judge.skip("absent: source.preflight");
      const job = freshKey("job");
      judgePreflight(judge, await source.preflight(undefined, { disks: [] }), "about the place alone");
      judgePreflight(
        judge,
        await source.preflight(machine, { disks: machine.disks.map(planned), job }),
        "of a machine",
      );
      await judge.abortsBefore("preflight", async (signal) => source.preflight?.(machine, { disks: [], job, signal }));
    },
  },
  {
    id: "source.preflight.changes-nothing",
    clause: "`preflight` changes nothing: the machine, its snapshots and what the job owns are as before.",
    run: async (world) => {
      const { judge, source, machine } = world;
      if (source.preflight === undefined) return judge.skip("absent: source.preflight");
      const job = freshKey("job");
      const look = async (): Promise<string> => {
        const other = await world.restarted();
        const { disks, power } = await other.machine(machine.id);
        const snapshots = other.snapshots === undefined ? [] : await gather(other.snapshots(machine));
        const owned = await gather(other.owned(job));
        const statuses = await Promise.all(
          disks.map(async ({ key, size }) => [key, size, await other.tracker?.status?.(machine, key)]),
        );
        return JSON.stringify({ power, statuses, snapshots: snapshots.map(({ id }) => id).sort(), owned });
      };
      const before = await look();
      await source.preflight(machine, { disks: machine.disks.map(planned), job });
      const after = await look();
      judge.demand(after === before, `${after.slice(0, 400)} after it, and ${before.slice(0, 400)} before`);
    },
  },
];

/** What the contract demands of a target's `preflight`. */
export const targetPreflightClauses: readonly Clause<TargetWorld>[] = [
  {
    id: "target.preflight.sane",
    clause:
      "`preflight` tells figures that can be, findings that say something, and needed privileges, in plain JSON and without secrets.",
    run: async ({ judge, target, harness }) => {
      if (target.preflight === undefined) return judge.skip("absent: target.preflight");
      const job = freshKey("job");
      const disks = [planned({ key: "disk", size: harness.size })];
      judgePreflight(judge, await target.preflight({ disks: [] }), "about the place alone");
      judgePreflight(judge, await target.preflight({ disks, job, machine: { name: "conformance" } }), "of a machine");
      await judge.abortsBefore("preflight", async (signal) => target.preflight?.({ disks, job, signal }));
    },
  },
  {
    id: "target.preflight.changes-nothing",
    clause: "`preflight` changes nothing: the volume it is told of keeps its bytes, and the job owns nothing new.",
    run: async (world) => {
      const { judge, target, harness } = world;
      if (target.preflight === undefined) return judge.skip("absent: target.preflight");
      const job = freshKey("job");
      const bytes = pattern(65536, 597);
      const volume = await world.volume({ job });
      const base = await world.run(volume, [[0, bytes]], { job });
      const owned = async (): Promise<string> =>
        JSON.stringify(
          (await gather((await world.restarted()).owned(job))).map(({ kind, id }) => `${kind} ${id}`).sort(),
        );
      const before = await owned();
      await target.preflight({ disks: [{ ...planned({ key: "disk", size: harness.size }), base }], job });
      const other = freshKey("job");
      await target.preflight({ disks: [planned({ key: "disk", size: harness.size })], job: other });
      const after = await owned();
      judge.demand(after === before, `the job owns ${after} after it, and ${before} before`);
      const strange = await gather(target.owned(other));
      judge.demand(strange.length === 0, `${strange[0]?.kind} ${strange[0]?.id}, made for a job that never ran`);
      await world.holds(base, 0, bytes, "the volume after preflight");
    },
  },
];
