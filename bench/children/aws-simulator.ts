/**
 * The simulator of AWS in a process of its own, with what a row needs in it. Takes its order as JSON in the first
 * argument, says where it listens on its first line, answers each line of its input with what it did so far, and ends
 * with its input.
 */
import { createInterface } from "node:readline";
import { type AwsSimulatorOptions, startAwsSimulator } from "@diskferry/simulators";

/** What the bench asks of this process. */
export interface AwsSimulatorOrder {
  options: AwsSimulatorOptions;
  /** A snapshot to read: every `stride`-th block holds data of its own; so many digests are there before anybody reads. */
  snapshot?: { sizeGib: number; stride?: number; digests: number } | undefined;
}

/** Its first line. */
export interface AwsSimulatorPlace {
  endpoint: string;
  accessKeyId: string;
  secretAccessKey: string;
  snapshot: string;
}

/** Its later lines. */
export interface AwsSimulatorReport {
  /** Of the whole process, from its start on. */
  cpuSeconds: number;
  calls: Record<string, number>;
  throttled: Record<string, number>;
}

const order = JSON.parse(process.argv[2] ?? "") as AwsSimulatorOrder;
await using simulator = await startAwsSimulator({ ...order.options, readyInstances: false });
const { endpoint, credentials } = simulator;
const [{ accessKeyId, secretAccessKey } = { accessKeyId: "", secretAccessKey: "" }] = credentials;
const snapshot =
  order.snapshot === undefined ? "" : simulator.takeSnapshot(simulator.addSyntheticVolume(order.snapshot));
const place: AwsSimulatorPlace = { endpoint, accessKeyId, secretAccessKey, snapshot };
const began = process.cpuUsage();
console.log(JSON.stringify(place));
for await (const _ of createInterface({ input: process.stdin })) {
  const { user, system } = process.cpuUsage(began);
  const report: AwsSimulatorReport = {
    cpuSeconds: (user + system) / 1e6,
    calls: simulator.faults.counters(),
    throttled: simulator.throttled(),
  };
  console.log(JSON.stringify(report));
}
