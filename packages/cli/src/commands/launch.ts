import { launch as launchJob, type LaunchedMachine, terminate } from "@diskferry/core";
import type { Command } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { openJob } from "../jobs/open-job.ts";
import { selectJob } from "../jobs/select-jobs.ts";
import { jobOptions } from "../shared-options.ts";

/** Starts a clone of a replica, or ends it. */
export const launch: Command = {
  name: "launch",
  summary: "start a clone of the last replica and leave it running; the replica stays as it is",
  usage: ["<job>", "<source> <target>", "--config <file> <job>", "<job> --terminate <machine>"],
  options: {
    ...jobOptions,
    "allow-inconsistent": { summary: "even if the disks are not one point in time" },
    terminate: { value: "machine", summary: "end a machine that this job launched, instead" },
  },
  async run(context) {
    const { output, interrupts, options } = context;
    const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
    const spec = await selectJob(context);
    await using opened = await openJob(spec, {
      signal,
      absentState: "miss",
      notice: (message) => output.notice(message, spec.id),
    });
    const ended = options.text("terminate");
    if (ended !== undefined) {
      await terminate(opened.job, ended, { signal });
      output.result("launch", { job: spec.id, terminated: ended }, `job ${spec.id}: machine ${ended} is ended\n`);
      return DONE;
    }
    const machine = await launchJob(opened.job, { signal, allowInconsistent: options.flag("allow-inconsistent") });
    const how = `end it: diskferry launch ${spec.id} --terminate ${machine.id}\n`;
    output.result("launch", { job: spec.id, machine }, machineText(spec.id, machine) + how);
    return DONE;
  },
};

/** A launched machine, for people. */
export function machineText(job: string, { id, name, notes = [] }: LaunchedMachine): string {
  return [`job ${job}: launched ${name} (${id})\n`, ...notes.map((note) => `- ${note}\n`)].join("");
}
