import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Arena } from "./arena.ts";
import type { AwsSimulatorOrder, AwsSimulatorPlace, AwsSimulatorReport } from "./children/aws-simulator.ts";

/** The simulator of AWS in a process of its own. */
export interface SimulatedAws extends AsyncDisposable {
  place: AwsSimulatorPlace;
  /** What it did since it was ready. */
  report(): Promise<AwsSimulatorReport>;
}

/** Starts a simulator with fresh quotas, which keeps what it needs in memory. */
export async function simulatedAws(arena: Arena, order: AwsSimulatorOrder): Promise<SimulatedAws> {
  const { command, args } = arena.script("aws-simulator.ts", [JSON.stringify(order)]);
  const child = spawn(command, args, {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, TMPDIR: arena.folder("memory") },
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<unknown> => {
    const line = await lines.next();
    if (line.done === true) throw new Error("the simulator of AWS ended");
    return JSON.parse(line.value);
  };
  const place = (await next()) as AwsSimulatorPlace;
  return {
    place,
    async report() {
      child.stdin.write("report\n");
      return (await next()) as AwsSimulatorReport;
    },
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await exited;
    },
  };
}
