#!/usr/bin/env node
import { awsUsage, runAws } from "./aws/aws-command.ts";
import { runVcenter, vcenterUsage } from "./vcenter/vcenter-command.ts";

const usage = `usage: ${awsUsage}\n       ${vcenterUsage}\n`;
const [name, ...rest] = process.argv.slice(2);

try {
  if (rest.includes("--help") || name === "--help") process.stdout.write(usage);
  else if (name === "vcenter") await serveVcenter();
  else if (name === "aws") await serveAws();
  else throw new TypeError(name === undefined ? "name a simulator" : `there is no simulator ${name}`);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
  process.exitCode = 2;
}

async function serveVcenter(): Promise<void> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  await runVcenter(rest, (line) => process.stdout.write(`${line}\n`), { signal: stop.signal });
}

async function serveAws(): Promise<void> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  await runAws(rest, (line) => process.stdout.write(`${line}\n`), { signal: stop.signal });
}
