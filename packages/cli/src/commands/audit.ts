import { audit as auditJob } from "@diskferry/core";
import type { Command } from "../command.ts";
import { DIFFERENT, DONE } from "../exit-codes.ts";
import { openJob } from "../jobs/open-job.ts";
import { selectJobs } from "../jobs/select-jobs.ts";
import { wholeNumber } from "../quantities.ts";
import { jobOptions, runOptions } from "../shared-options.ts";
import { table } from "../table.ts";

const { bandwidth, window, "time-zone": timeZone } = runOptions;

/** Puts change trackers to the test. */
export const audit: Command = {
  name: "audit",
  summary: "read a random sample of what the tracker calls unchanged, and state what that proves",
  usage: ["<source> <target>", "<job>", "--config <file> [job …]"],
  options: {
    ...jobOptions,
    samples: { value: "number", summary: "blocks read of each disk; default 2000" },
    confidence: { value: "share", summary: "how sure the stated bound is to hold, between 0 and 1; default 0.99" },
    bandwidth: bandwidth!,
    window: window!,
    "time-zone": timeZone!,
  },
  async run(context) {
    const { output, interrupts, options } = context;
    const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
    const samples = options.text("samples");
    const confidence = options.read("confidence", shareFrom, "a number between 0 and 1");
    let code = DONE;
    for (const spec of (await selectJobs(context)).jobs) {
      await using opened = await openJob(spec, {
        signal,
        absentState: "miss",
        notice: (message) => output.notice(message, spec.id),
      });
      const report = await auditJob(opened.job, {
        signal,
        confidence,
        samples: samples === undefined ? undefined : wholeNumber("samples", samples, 1),
      });
      const rows = report.disks.map(({ disk, unchanged, sampled, missed, missedAt, bound, confidence: sure }) => [
        disk,
        String(unchanged),
        String(sampled),
        String(missed),
        missedAt.length === 0 ? "-" : String(missedAt[0]!.offset),
        bound === undefined ? "-" : `${(100 * bound).toFixed(3)} % (confidence ${sure})`,
      ]);
      const heading = `job ${spec.id}: ${report.sound ? "the tracker missed nothing that was looked at" : "the tracker MISSED WRITES; run the job with --mode rescan, and do not trust this tracker"}\n`;
      output.result(
        "audit",
        { ...report },
        heading + table(["disk", "unchanged", "sampled", "missed", "first at", "changed at most"], rows),
      );
      if (!report.sound) code = DIFFERENT;
    }
    return code;
  },
};

function shareFrom(text: string): number | undefined {
  const share = Number(text);
  return text.trim() !== "" && share > 0 && share < 1 ? share : undefined;
}
