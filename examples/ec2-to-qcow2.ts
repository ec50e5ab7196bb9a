/**
 * Copies the volumes of an EC2 instance into chains of qcow2 recovery points: in full once, then the blocks that EBS lists as
 * changed. Credentials are those that the AWS command line would use.
 *
 *   node examples/ec2-to-qcow2.ts i-0123456789abcdef0 recovery-points/
 */
import { openDirectoryState, openSource, openTarget, plan, replicate, type Job } from "@diskferry/core";
import { provider as aws } from "@diskferry/provider-aws";
import { provider as local } from "@diskferry/provider-local";

const [instance = "", directory = "recovery-points"] = process.argv.slice(2);
const { AWS_REGION: region, AWS_ENDPOINT_URL: endpoint } = process.env;
await using source = await openSource(aws, { region, ...(endpoint === undefined ? {} : { endpoint }) });
await using target = await openTarget(local, { directory, format: "qcow2-chain" });
await using store = await openDirectoryState(`${directory}/state`);
const job: Job = {
  id: `${instance}-to-qcow2`,
  source,
  machine: instance,
  target,
  store,
  options: { consistency: "crash" },
};

// What it would take, before anything is touched: every read of a block is a request that costs.
const { disks, calls, costs, findings } = await plan(job);
for (const { disk, mode, read } of disks) console.error({ disk, mode, read });
for (const { operation, count } of calls) console.error({ operation, count });
for (const { item, amount, currency } of costs) console.error({ item, amount, currency });
if (findings.some(({ severity }) => severity === "blocker")) throw new Error(JSON.stringify(findings));

const report = await replicate(job, { onProgress: ({ phase, doneBytes }) => console.error(phase, doneBytes) });
for (const { disk, mode, moved, verifiedBytes } of report.disks) console.log({ disk, mode, moved, verifiedBytes });
