import { cleanup as cleanUp } from "@diskferry/core";
import type { Command } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { openJob } from "../jobs/open-job.ts";
import { selectJobs } from "../jobs/select-jobs.ts";
import { jobOptions } from "../shared-options.ts";
import { table } from "../table.ts";

/** Removes what jobs made and no longer need. */
export const cleanup: Command = {
  name: "cleanup",
  summary: "remove what a job made on both sides and no longer needs; replicas stay unless told otherwise",
  usage: ["<job>", "<source> <target>", "--config <file> [job …]"],
  options: {
    ...jobOptions,
    "dry-run": { summary: "only tell what would be removed" },
    "include-replicas": { summary: "remove replicas too, those of good records among them" },
  },
  async run(context) {
    const { output, interrupts, options } = context;
    const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
    const dryRun = options.flag("dry-run");
    for (const spec of (await selectJobs(context)).jobs) {
      await using opened = await openJob(spec, {
        signal,
        absentState: "miss",
        notice: (message) => output.notice(message, spec.id),
      });
      const report = await cleanUp(opened.job, { signal, dryRun, includeReplicas: options.flag("include-replicas") });
      const rows = [
        ...report.removed.map(({ kind, description }) => [
          dryRun ? "would be removed" : "removed",
          kind,
          description,
          "-",
        ]),
        ...report.kept.map(({ kind, description, reason }) => ["kept", kind, description, reason]),
      ];
      const text =
        rows.length === 0
          ? `job ${spec.id} has nothing to clean up\n`
          : `job ${spec.id}\n${table(["what", "kind", "which", "why"], rows)}`;
      output.result("cleanup", { job: spec.id, dryRun, ...report }, text);
    }
    return DONE;
  },
};
