/**
 * One run of ours, in a process of its own: the public `transfer` (or `audit`) over a directory of state. Takes its
 * order as JSON in the first argument and tells on its last line how long it took from the open of both ends on.
 */
import { statSync } from "node:fs";
import { audit, openDirectoryState, openSource, openTarget, transfer, type JobOptions } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";
import { nullTarget } from "./null-target.ts";

/** What the bench asks of this process. */
export interface TransferOrder {
  action: "transfer" | "audit";
  job: string;
  state: string;
  /** Options of the provider `local`. */
  source: Record<string, unknown>;
  /** The same, or the target that throws everything away. */
  target: Record<string, unknown> | "null";
  options: JobOptions;
  /** Leaves that an audit reads. */
  samples?: number;
  /** A file whose length is told at the end. */
  sized?: string | undefined;
}

const order = JSON.parse(process.argv[2] ?? "") as TransferOrder;
const began = performance.now();
const used = process.cpuUsage();
await using store = await openDirectoryState(order.state);
await using source = await openSource(local, order.source);
await using target = order.target === "null" ? nullTarget() : await openTarget(local, order.target);
let machine = "";
for await (const found of source.machines()) machine = found.id;
const job = { id: order.job, source, machine, target, store, options: order.options };
let facts: Record<string, unknown>;
if (order.action === "audit") {
  const report = await audit(job, { samples: order.samples });
  if (!report.sound) throw new Error("the audit found a difference where there is none");
  facts = { sampled: report.disks[0]!.sampled };
} else {
  const report = await transfer(job);
  if (report.status !== "done") throw new Error(`the transfer ended as ${report.status}`);
  const { mode, read, moved, same, threads, verifiedBytes } = report.disks[0]!;
  facts = { mode, read, moved, same, threads, verifiedBytes };
}
const bytes = order.sized === undefined ? {} : { bytes: statSync(order.sized).size };
const seconds = (performance.now() - began) / 1000;
const { user, system } = process.cpuUsage(used);
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, ...facts, ...bytes }));
