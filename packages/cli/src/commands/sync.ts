import type { Command } from "../command.ts";
import { jobOptions, runOptions } from "../shared-options.ts";
import { selectJobs } from "../jobs/select-jobs.ts";
import { runJobs } from "../jobs/run-jobs.ts";
import { millisecondsFrom, spanForm, wholeNumber } from "../quantities.ts";

/** Runs standing jobs, once or again and again. */
export const sync: Command = {
  name: "sync",
  summary: "run standing jobs, once or again and again",
  usage: ["--config <file> [job …]", "<source> <target>", "<job>"],
  options: {
    ...jobOptions,
    ...runOptions,
    every: {
      value: "time",
      summary: "run again and again, this long from one beginning to the next: 30s, 15m, 1h, 1d",
    },
    once: { summary: "run once, whatever the file says of every" },
    concurrency: { value: "number", summary: "jobs at once; default what the file says, else 2" },
  },
  async run(context) {
    const { options } = context;
    const { jobs, concurrency } = await selectJobs(context);
    const everyMs = options.read("every", millisecondsFrom, spanForm);
    const atOnce = options.text("concurrency");
    const timed = jobs.map((job) => ({ ...job, everyMs: options.flag("once") ? undefined : (everyMs ?? job.everyMs) }));
    return await runJobs(
      "sync",
      timed,
      atOnce === undefined ? concurrency : wholeNumber("concurrency", atOnce, 1),
      context,
    );
  },
};
