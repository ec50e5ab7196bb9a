import { writeFileSync } from "node:fs";
import { isProviderError, openDirectoryState, replicate } from "@diskferry/core";
import { type AwsOptions, provider as aws } from "@diskferry/provider-aws";
import { provider as local } from "@diskferry/provider-local";

/** What a process is told to do, as JSON in its last argument. */
export interface ChainErrand {
  machine: string;
  source: AwsOptions;
  /** Folders of the state and of the chains. */
  state: string;
  chains: string;
  /** Where the report, or the failure, is written. */
  report: string;
}

const errand = JSON.parse(process.argv.at(-1)!) as ChainErrand;
try {
  await using store = await openDirectoryState(errand.state);
  await using source = await aws.source!(errand.source);
  await using target = await local.target!({ directory: errand.chains, format: "qcow2-chain" });
  const options = { journal: { bytes: 4 << 20 }, memory: 8 << 20 };
  const report = await replicate({ id: "chain", source, machine: errand.machine, target, store, options });
  writeFileSync(errand.report, JSON.stringify(report));
} catch (error) {
  const code = isProviderError(error) ? error.code : "";
  writeFileSync(errand.report, JSON.stringify({ failure: `${code} ${(error as Error).stack}` }));
  process.exitCode = 1;
}
