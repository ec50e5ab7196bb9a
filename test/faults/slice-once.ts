import { writeFileSync } from "node:fs";
import { isProviderError, openDirectoryState, transferSlice } from "@diskferry/core";
import type { Extent, RunTicket } from "@diskferry/core";
import { provider } from "@diskferry/provider-local";
import { doomedJob } from "../kill/doomed-job.ts";
import { Executioner } from "../kill/kill-point.ts";
import type { Errand } from "../kill/replicate-once.ts";

/** A slice that one process copies, as JSON in its last argument. */
export interface SliceErrand extends Errand {
  ticket: RunTicket;
  range: Extent;
}

async function run(errand: SliceErrand): Promise<void> {
  using executioner = new Executioner({ kill: errand.kill, times: new SharedArrayBuffer(4), log: errand.log });
  const { job: id, machine, options, ticket, range } = errand;
  await using store = await openDirectoryState(errand.state);
  await using source = await provider.source!(errand.source);
  await using target = await provider.target!(errand.target);
  const job = doomedJob({ id, machine, source, target, store, options }, executioner, undefined);
  const report = await transferSlice(job, ticket, { disk: ticket.disks[0]!.disk, range });
  writeFileSync(errand.report, JSON.stringify(report));
}

const errand = JSON.parse(process.argv.at(-1)!) as SliceErrand;
try {
  await run(errand);
} catch (error) {
  const code = isProviderError(error) ? error.code : "";
  writeFileSync(errand.report, JSON.stringify({ failure: `${code} ${(error as Error).stack}` }));
  process.exitCode = 1;
}
