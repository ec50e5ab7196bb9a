import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { type JobStatus, openDirectoryState, status as statusOf } from "@diskferry/core";
import type { Command, CommandContext } from "../command.ts";
import { readConfig } from "../config/read-config.ts";
import { DONE } from "../exit-codes.ts";
import { formatBytes } from "../quantities.ts";
import { providerOptions, stateOptions } from "../shared-options.ts";
import { jobIds, stateFolder, unknownJob } from "../state-folder.ts";
import { table } from "../table.ts";

/** Tells what is known of jobs. */
export const status: Command = {
  name: "status",
  summary: "tell what is known of jobs; touches neither source nor target",
  usage: ["[job …]", "--config <file> [job …]"],
  options: {
    config: { value: "file", short: "c", summary: "the state directory and the jobs of this YAML file" },
    ...stateOptions,
    ...providerOptions,
  },
  async run(context) {
    const { positionals, output } = context;
    const { folder, jobs } = await placeOf(context);
    if (!existsSync(folder)) {
      if (positionals.length > 0) throw unknownJob(positionals[0]!, [], folder);
      output.result("status", { state: folder, jobs: [] }, `no jobs: there is no state directory ${folder}\n`);
      return DONE;
    }
    await using store = await openDirectoryState(folder);
    const known = await jobIds(store);
    const missing = positionals.find((id) => !known.includes(id) && jobs?.includes(id) !== true);
    if (missing !== undefined) throw unknownJob(missing, [...new Set([...known, ...(jobs ?? [])])], folder);
    const found: JobStatus[] = [];
    for (const id of positionals.length > 0 ? positionals : (jobs ?? known)) found.push(await statusOf(store, id));
    output.result("status", { state: folder, jobs: found }, statusText(folder, found, positionals.length > 0));
    return DONE;
  },
};

async function placeOf({ options, io, output }: CommandContext): Promise<{ folder: string; jobs?: string[] }> {
  const config = options.text("config");
  const given = options.text("state");
  if (config === undefined) return { folder: stateFolder(given, io) };
  const { jobs } = await readConfig(resolve(io.cwd, config), {
    io,
    packages: options.list("provider"),
    hide: (secrets) => output.hide(secrets),
  });
  return { folder: given === undefined ? jobs[0]!.state : resolve(io.cwd, given), jobs: jobs.map(({ id }) => id) };
}

function statusText(folder: string, found: readonly JobStatus[], inDetail: boolean): string {
  if (found.length === 0) return `no jobs in ${folder}\n`;
  const rows = found.map((job) => [
    job.job,
    job.record?.at ?? "-",
    job.record === undefined ? "-" : job.record.disks.some(({ disk }) => job.torn.includes(disk)) ? "torn" : "good",
    job.run === undefined ? "-" : `${job.run.phase} since ${job.run.startedAt}`,
    job.cutover?.step ?? "-",
    job.record === undefined ? "-" : String(job.record.disks.length),
    formatBytes(job.record?.disks.reduce((sum, { size }) => sum + size, 0) ?? 0),
  ]);
  const list = table(["job", "last record", "replica", "run under way", "cutover", "disks", "size"], rows);
  return inDetail ? list + found.map(detailOf).join("") : list;
}

function detailOf({ job, record, launches }: JobStatus): string {
  const lines: string[] = [];
  if (record !== undefined) {
    lines.push(`\njob ${job}: machine ${record.machine}, run ${record.run}\n`);
    lines.push(`point in time: ${record.snapshot.takenAt}, consistency ${record.snapshot.consistency}\n`);
    const rows = record.disks.map(({ disk, size, mode, incrementalNext, root, volume }) => [
      disk,
      formatBytes(size),
      mode,
      incrementalNext ? "incremental" : root === undefined ? "full" : "rescan",
      root ?? "-",
      volume.id,
    ]);
    lines.push(table(["disk", "size", "mode", "next run", "root", "volume"], rows));
  }
  for (const { id, name, purpose } of launches) lines.push(`launched for ${purpose}: ${name} (${id})\n`);
  return lines.join("");
}
