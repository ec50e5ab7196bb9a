/**
 * One copy of ours from vSphere to a raw file, in a process of its own: a snapshot, all of its one disk, its removal. Takes its
 * order as JSON in the first argument and tells on its last line how long it took from the open of both ends on.
 */
import { openDirectoryState, openSource, openTarget, transfer, type JobOptions } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";
import { provider as vsphere } from "@diskferry/provider-vmware";

/** What the bench asks of this process. */
export interface VsphereTransferOrder {
  /** Options of the provider `vsphere`; user and password come by the environment. */
  source: { url: string } & Record<string, unknown>;
  file: string;
  state: string;
  options: JobOptions;
}

const order = JSON.parse(process.argv[2] ?? "") as VsphereTransferOrder;
const began = performance.now();
const used = process.cpuUsage();
await using store = await openDirectoryState(order.state);
await using source = await openSource(vsphere, order.source);
await using target = await openTarget(local, { path: order.file, format: "raw" });
const report = await transfer({ id: "bench", source, machine: "bench", target, store, options: order.options });
if (report.status !== "done") throw new Error(`the transfer ended as ${report.status}`);
const { mode, read, moved } = report.disks[0]!;
const seconds = (performance.now() - began) / 1000;
const { user, system } = process.cpuUsage(used);
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, mode, read, moved }));
