#!/usr/bin/env node
import { awsUsage, runAws } from "./aws/aws-command.ts";
import { cloudstackUsage, runCloudstack } from "./cloudstack/cloudstack-command.ts";
import { runVcenter, vcenterUsage } from "./vcenter/vcenter-command.ts";

const simulators = new Map([
  ["aws", { usage: awsUsage, run: runAws }],
  ["vcenter", { usage: vcenterUsage, run: runVcenter }],
  ["cloudstack", { usage: cloudstackUsage, run: runCloudstack }],
]);
const usage = `usage: ${[...simulators.values()].map((each) => each.usage).join("\n       ")}\n`;
const [name, ...rest] = process.argv.slice(2);

try {
  if (rest.includes("--help") || name === "--help") process.stdout.write(usage);
  else await serve();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
  process.exitCode = 2;
}

async function serve(): Promise<void> {
  const simulator = simulators.get(name ?? "");
  if (simulator === undefined)
    throw new TypeError(name === undefined ? "name a simulator" : `there is no simulator ${name}`);
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  await simulator.run(rest, (line) => process.stdout.write(`${line}\n`), { signal: stop.signal });
}
