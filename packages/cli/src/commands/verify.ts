import { verify as verifyJob } from "@diskferry/core";
import type { Command } from "../command.ts";
import { DIFFERENT, DONE } from "../exit-codes.ts";
import { openJob } from "../jobs/open-job.ts";
import { selectJobs } from "../jobs/select-jobs.ts";
import { formatBytes } from "../quantities.ts";
import { jobOptions, runOptions } from "../shared-options.ts";
import { table } from "../table.ts";

const { bandwidth, window, "time-zone": timeZone } = runOptions;

/** Reads replicas back and compares them with what was sent. */
export const verify: Command = {
  name: "verify",
  summary: "read replicas back, all of them, and compare them with what was sent",
  usage: ["<source> <target>", "<job>", "--config <file> [job …]"],
  options: { ...jobOptions, bandwidth: bandwidth!, window: window!, "time-zone": timeZone! },
  async run(context) {
    const { output, interrupts } = context;
    let code = DONE;
    for (const spec of (await selectJobs(context)).jobs) {
      const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
      await using opened = await openJob(spec, {
        signal,
        absentState: "miss",
        notice: (message) => output.notice(message, spec.id),
      });
      const report = await verifyJob(opened.job, { signal, onProgress: output.progressOf(spec.id) });
      const rows = report.disks.map(({ disk, volume, bytes, different, differences, root }) => [
        disk,
        different === 0 ? "equal" : "DIFFERENT",
        formatBytes(bytes),
        formatBytes(different),
        differences.length === 0 ? "-" : String(differences[0]!.offset),
        root.slice(0, 16),
        volume,
      ]);
      const heading = `job ${spec.id}: run ${report.run} ${report.equal ? "verified" : "DIFFERS from what was sent; run the job with --mode full to mend it"}\n`;
      output.result(
        "verify",
        { ...report },
        heading + table(["disk", "result", "read", "different", "first at", "root", "volume"], rows),
      );
      if (!report.equal) code = DIFFERENT;
    }
    return code;
  },
};
