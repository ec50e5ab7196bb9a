import { setTimeout as delay } from "node:timers/promises";
import { launch as launchJob, terminate } from "@diskferry/core";
import type { Command } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { openJob } from "../jobs/open-job.ts";
import { selectJob } from "../jobs/select-jobs.ts";
import { millisecondsFrom, spanForm } from "../quantities.ts";
import { jobOptions } from "../shared-options.ts";
import { machineText } from "./launch.ts";

/** Starts a clone of a replica to see that it can be, and ends it. */
export const test: Command = {
  name: "test",
  summary: "start a clone of the last replica, keep it for a while, and end it",
  usage: ["<job>", "<source> <target>", "--config <file> <job>"],
  options: {
    ...jobOptions,
    "allow-inconsistent": { summary: "even if the disks are not one point in time" },
    hold: { value: "time", summary: "how long it runs before it is ended; default not at all; Ctrl-C ends it early" },
  },
  async run(context) {
    const { output, interrupts, options } = context;
    const { stop, pause } = interrupts;
    const holdMs = options.read("hold", millisecondsFrom, spanForm) ?? 0;
    const spec = await selectJob(context);
    await using opened = await openJob(spec, {
      signal: stop,
      absentState: "miss",
      notice: (message) => output.notice(message, spec.id),
    });
    const machine = await launchJob(opened.job, {
      signal: stop,
      allowInconsistent: options.flag("allow-inconsistent"),
    });
    output.notice(machineText(spec.id, machine).trimEnd(), spec.id);
    try {
      // Cut short by either signal, and the machine is ended all the same.
      await delay(holdMs, undefined, { signal: AbortSignal.any([stop, pause]) }).catch(() => {});
    } finally {
      await terminate(opened.job, machine.id);
    }
    output.result(
      "test",
      { job: spec.id, machine, terminated: true },
      `${machineText(spec.id, machine)}ended ${machine.name} again\n`,
    );
    return DONE;
  },
};
