#!/usr/bin/env node
import { parseArgs } from "node:util";
import { startAwsSimulator } from "./aws/aws-simulator.ts";
import { runVcenter, vcenterUsage } from "./vcenter/vcenter-command.ts";

const usage = `usage: diskferry-simulators aws [--port 0]\n       ${vcenterUsage}\n`;
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
  const { values } = parseArgs({ args: rest, options: { port: { type: "string", default: "0" } } });
  if (!/^\d{1,5}$/.test(values.port)) throw new TypeError(`${values.port} is no port`);
  const simulator = await startAwsSimulator({ port: Number(values.port) });
  const { endpoint, credentials, instances } = simulator;
  process.stdout.write(`${JSON.stringify({ endpoint, credentials, instances })}\n`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void simulator.close());
}
