import { type Figure, type Plan, plan as planOf } from "@diskferry/core";
import type { Command } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { openJob } from "../jobs/open-job.ts";
import { selectJobs } from "../jobs/select-jobs.ts";
import { formatBytes } from "../quantities.ts";
import { jobOptions, runOptions } from "../shared-options.ts";
import { table } from "../table.ts";

/** Tells what a run would do. */
export const plan: Command = {
  name: "plan",
  summary: "tell what a run would do, before anything is touched",
  usage: ["<source> <target>", "<job>", "--config <file> [job …]"],
  options: { ...jobOptions, ...runOptions },
  async run(context) {
    const { output, interrupts } = context;
    const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
    for (const spec of (await selectJobs(context)).jobs) {
      await using opened = await openJob(spec, {
        signal,
        absentState: "empty",
        notice: (message) => output.notice(message, spec.id),
      });
      const planned = await planOf(opened.job, { signal });
      const rows = planned.disks.map(({ disk, size, mode, read, write, reason }) => [
        disk,
        formatBytes(size),
        mode,
        figure(read),
        figure(write),
        reason,
      ]);
      const text = [
        `job ${spec.id}: machine ${planned.machine}${planned.resumes === undefined ? "" : `, goes on with run ${planned.resumes}`}\n`,
        table(["disk", "size", "mode", "read", "sent", "why"], rows),
        ...(planned.calls.length === 0 ? [] : [callsOf(planned)]),
        ...planned.costs.map(({ item, amount, currency, pricesOf }) => {
          const money = `${signs[amount.kind]}${amount.value.toFixed(2)} ${currency}`;
          return `${money} for ${item} (prices of ${pricesOf})\n`;
        }),
        ...(planned.minutes === undefined
          ? []
          : [`${signs[planned.minutes.kind]}${planned.minutes.value} minutes at the limits and quotas\n`]),
        ...privilegesOf(planned),
        ...planned.findings.map(
          ({ severity, subject, message, remedy }) =>
            `- ${severity}: ${subject}: ${message}${remedy === undefined ? "" : ` ${remedy}`}\n`,
        ),
      ];
      output.result("plan", { plan: planned }, text.join(""));
    }
    return DONE;
  },
};

const signs: Record<Figure["kind"], string> = { exact: "", bound: "≤ ", estimate: "≈ " };

function figure({ value, kind }: Figure): string {
  return `${signs[kind]}${formatBytes(value)}`;
}

function callsOf({ calls }: Plan): string {
  const rows = calls.map(({ side, operation, count }) => [side, operation, `${signs[count.kind]}${count.value}`]);
  return table(["at", "call", "times"], rows);
}

/** Only what is missing, where the platform could be asked; else all that is needed. */
function privilegesOf({ privileges }: Plan): string[] {
  return (["source", "target"] as const).flatMap((side) => {
    const found = privileges[side];
    if (found === undefined) return [];
    const { needed, missing } = found;
    if (missing === undefined) return [`privileges needed at the ${side}, not asked for: ${needed.join(", ")}\n`];
    if (missing.length === 0) return [`privileges at the ${side}: all ${needed.length} are there\n`];
    return [`privileges missing at the ${side}: ${missing.join(", ")}\n`];
  });
}
