import type { Command } from "../command.ts";
import { jobOptions, runOptions } from "../shared-options.ts";
import { jobOfUris } from "../jobs/select-jobs.ts";
import { runJobs } from "../jobs/run-jobs.ts";
import { usageError } from "../usage-error.ts";

const { config: _config, ...options } = jobOptions;

/** Copies once: in full the first time, then what changed. */
export const copy: Command = {
  name: "copy",
  summary: "copy a disk: in full the first time, then only what changed",
  usage: ["<source> <target>"],
  options: { ...options, ...runOptions },
  async run(context) {
    const [source, target, ...more] = context.positionals;
    if (source === undefined || target === undefined || more.length > 0) {
      throw usageError(
        `copy takes a source and a target, and was given ${context.positionals.length} arguments; see: diskferry help copy`,
      );
    }
    return await runJobs("copy", [await jobOfUris(source, target, context)], 1, context);
  },
};
