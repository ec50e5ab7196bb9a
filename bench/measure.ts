import { spawn } from "node:child_process";
import { readFile, rm } from "node:fs/promises";

/** What one run of a program took. */
export interface Measured {
  /** From starting the process to its end. */
  seconds: number;
  /** User and system time of the process and of those it waited for. */
  cpuSeconds: number;
  /** Peak resident set of the largest of them, in bytes. */
  peakBytes: number;
  /**
   * The same of its work alone, without the start of the process, where it tells so on its last line as JSON
   * (`seconds`, `cpuSeconds`); else as above.
   */
  work: { seconds: number; cpuSeconds: number };
  /** What else it told there. */
  told: Readonly<Record<string, unknown>>;
}

/** A program to run and its arguments. */
export interface Command {
  command: string;
  args: readonly string[];
  env?: Readonly<Record<string, string>> | undefined;
}

const TIME = "/usr/bin/time";
const KEPT_OUTPUT = 65_536;
let runs = 0;

/**
 * Runs a program to its end and measures it from outside, ours and the peers by the same means: GNU time (its package
 * is called `time`), whose own process is small enough to leave no trace in the peak. @throws Error when the program fails.
 */
export async function measure({ command, args, env }: Command, folder: string): Promise<Measured> {
  const report = `${folder}/time-${process.pid}-${++runs}`;
  const began = performance.now();
  const child = spawn(TIME, ["-q", "-o", report, "-f", "%U %S %M", "--", command, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    // Where it is set, every Node reads a bundle of certificates first, some 50 ms of processor time that copy nothing.
    env: { ...process.env, NODE_EXTRA_CA_CERTS: undefined, ...env },
  });
  let output = "";
  let complaints = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output = (output + text).slice(-KEPT_OUTPUT)));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (complaints = (complaints + text).slice(-KEPT_OUTPUT)));
  const { promise: ended, resolve, reject } = Promise.withResolvers<number | null>();
  child.once("error", (cause) =>
    reject(new Error(`${TIME} is needed to measure; install the package "time"`, { cause })),
  );
  let seconds = 0;
  child.once("exit", () => (seconds = (performance.now() - began) / 1000));
  child.once("close", resolve);
  const code = await ended;
  if (code !== 0)
    throw new Error(`${command} ${args.join(" ")} ended with ${code}: ${complaints.trim() || output.trim()}`);
  const [user = 0, system = 0, peakKib = 0] = (await readFile(report, "utf8")).trim().split(" ").map(Number);
  await rm(report);
  const told = lastLine(output);
  const whole = { seconds, cpuSeconds: user + system };
  const own = (name: keyof typeof whole): number => (typeof told[name] === "number" ? told[name] : whole[name]);
  return {
    ...whole,
    peakBytes: peakKib * 1024,
    work: { seconds: own("seconds"), cpuSeconds: own("cpuSeconds") },
    told,
  };
}

function lastLine(output: string): Record<string, unknown> {
  const line = output.trim().split("\n").at(-1) ?? "";
  return line.startsWith("{") ? (JSON.parse(line) as Record<string, unknown>) : {};
}
