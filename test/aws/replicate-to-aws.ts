import { openDirectoryState, replicate, type JobOptions } from "@diskferry/core";
import { type AwsOptions, provider as aws } from "@diskferry/provider-aws";
import { type LocalOptions, provider as local } from "@diskferry/provider-local";

/** What one process is told to do, as JSON in its last argument. */
export interface Errand {
  job: string;
  state: string;
  machine: string;
  source: LocalOptions;
  target: AwsOptions;
  options: JobOptions;
}

const { job: id, state, machine, options, ...ends } = JSON.parse(process.argv.at(-1)!) as Errand;
await using store = await openDirectoryState(state);
await using source = await local.source!(ends.source);
await using target = await aws.target!(ends.target);
await replicate({ id, machine, source, target, store, options });
