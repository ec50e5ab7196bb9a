import { subscribe } from "node:diagnostics_channel";
import { writeFileSync } from "node:fs";
import { isProviderError, openDirectoryState, replicate } from "@diskferry/core";
import type { JobOptions, RunMode } from "@diskferry/core";
import { provider } from "@diskferry/provider-local";
import { type KnownChanges, doomedJob } from "./doomed-job.ts";
import { Executioner, type KillPoint } from "./kill-point.ts";

/** What one process is told to do, as JSON in its last argument. */
export interface Errand {
  job: string;
  state: string;
  machine: string;
  source: object;
  target: object;
  options: JobOptions;
  changes?: KnownChanges;
  kill?: KillPoint;
  log: string;
  report: string;
}

/** One `replicate` in a process of its own, which dies where it is told to. Its report, or its failure, goes to a file. */
async function run(errand: Errand): Promise<void> {
  using executioner = new Executioner({ kill: errand.kill, times: new SharedArrayBuffer(4), log: errand.log });
  subscribe("diskferry:transfer-start", (message) => executioner.note((message as { mode: RunMode }).mode));
  const { job: id, machine, options } = errand;
  await using store = await openDirectoryState(errand.state);
  await using source = await provider.source!(errand.source);
  await using target = await provider.target!(errand.target);
  const job = doomedJob({ id, machine, source, target, store, options }, executioner, errand.changes);
  const report = await replicate(job);
  writeFileSync(errand.report, JSON.stringify(report));
}

const errand = JSON.parse(process.argv.at(-1)!) as Errand;
try {
  await run(errand);
} catch (error) {
  const code = isProviderError(error) ? error.code : "";
  writeFileSync(errand.report, JSON.stringify({ failure: `${code} ${(error as Error).stack}` }));
  process.exitCode = 1;
}
