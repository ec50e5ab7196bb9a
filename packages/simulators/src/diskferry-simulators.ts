#!/usr/bin/env node
import { parseArgs } from "node:util";
import { startAwsSimulator } from "./aws/aws-simulator.ts";
import { runVcenter, vcenterUsage } from "./vcenter/vcenter-command.ts";

if (process.argv[2] === "vcenter") {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  try {
    await runVcenter(process.argv.slice(3), (line) => process.stdout.write(`${line}\n`), { signal: stop.signal });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\nusage: ${vcenterUsage}\n`);
    process.exitCode = 2;
  }
} else {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { port: { type: "string", default: "0" } },
  });
  if (positionals.length !== 1 || positionals[0] !== "aws" || !/^\d{1,5}$/.test(values.port)) {
    process.stderr.write(`usage: diskferry-simulators aws [--port 0]\n       ${vcenterUsage}\n`);
    process.exitCode = 2;
  } else {
    const simulator = await startAwsSimulator({ port: Number(values.port) });
    const { endpoint, credentials, instances } = simulator;
    process.stdout.write(`${JSON.stringify({ endpoint, credentials, instances })}\n`);
    const stop = (): void => void simulator.close();
    process.once("SIGINT", stop);
    process.once("SIGTERM", stop);
  }
}
