import { cutover as cutOver, finalizeCutover, isProviderError, revertCutover } from "@diskferry/core";
import type { Command } from "../command.ts";
import { DONE, PAUSED } from "../exit-codes.ts";
import { openJob } from "../jobs/open-job.ts";
import { selectJob } from "../jobs/select-jobs.ts";
import { runText } from "../reports/run-text.ts";
import { jobOptions, runOptions } from "../shared-options.ts";
import { usageError } from "../usage-error.ts";
import { machineText } from "./launch.ts";

const { mode: _mode, ...options } = runOptions;

/** Moves a machine for good. */
export const cutover: Command = {
  name: "cutover",
  summary: "stop the source, send the last changes, verify, and launch; reversible until --finalize",
  usage: ["<job>", "<source> <target>", "--config <file> <job>", "<job> --finalize", "<job> --revert"],
  options: {
    ...jobOptions,
    ...options,
    "allow-power-off": { summary: "power a machine off that does not shut down" },
    "allow-inconsistent": { summary: "launch even if the disks are not one point in time" },
    finalize: { summary: "make a cutover final: it can no longer be reverted" },
    revert: { summary: "end the launched machine and start the source again" },
  },
  async run(context) {
    const { output, interrupts, options: given } = context;
    const { pause, stop } = interrupts;
    if (given.flag("finalize") && given.flag("revert")) throw usageError("--finalize and --revert exclude each other");
    const spec = await selectJob(context);
    await using opened = await openJob(spec, {
      signal: stop,
      absentState: "miss",
      notice: (message) => output.notice(message, spec.id),
    });
    const { job } = opened;
    if (given.flag("finalize")) {
      await finalizeCutover(job, { signal: stop });
      output.result("cutover", { job: spec.id, step: "finalized" }, `job ${spec.id}: the cutover is final\n`);
      return DONE;
    }
    if (given.flag("revert")) {
      await revertCutover(job, { signal: stop });
      output.result("cutover", { job: spec.id, step: "reverted" }, `job ${spec.id}: the cutover was taken back\n`);
      return DONE;
    }
    try {
      const { machine, run } = await cutOver(job, {
        signal: stop,
        pause,
        allowPowerOff: given.flag("allow-power-off"),
        allowInconsistent: given.flag("allow-inconsistent"),
        onProgress: output.progressOf(spec.id),
      });
      for (const fallback of run?.fallbacks ?? []) output.fallback(spec.id, fallback);
      const next = `try it, then: diskferry cutover ${spec.id} --finalize, or take it back: diskferry cutover ${spec.id} --revert\n`;
      output.result(
        "cutover",
        { job: spec.id, step: "launched", machine, ...(run === undefined ? {} : { report: run }) },
        (run === undefined ? "" : runText(run)) + machineText(spec.id, machine) + next,
      );
      return DONE;
    } catch (error) {
      const isPause = isProviderError(error) && error.code === "UNAVAILABLE" && error.retryable;
      // Whatever else fails after somebody asked for a pause does not go away by going on.
      if (!pause.aborted || stop.aborted || !isPause) throw error;
      output.error(error, PAUSED, spec.id);
      return PAUSED;
    }
  },
};
