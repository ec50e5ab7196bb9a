import { type Figure, plan as planOf } from "@diskferry/core";
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
      await using opened = await openJob(spec, { signal, notice: (message) => output.notice(message, spec.id) });
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
        ...(planned.minutes === undefined ? [] : [`at most ${planned.minutes.value} minutes at the bandwidth limit\n`]),
        ...planned.findings.map((finding) => `- ${finding}\n`),
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
