/**
 * One run of ours from or to EBS snapshots, in a process of its own. Takes its order as JSON in the first argument and
 * tells on its last line how long it took from the open of both ends on.
 */
import { openDirectoryState, openSource, openTarget, transfer, type JobOptions } from "@diskferry/core";
import { provider as aws } from "@diskferry/provider-aws";
import { provider as local } from "@diskferry/provider-local";

/** What the bench asks of this process. */
export type AwsTransferOrder =
  | { action: "download" | "upload"; aws: Record<string, unknown>; file: string; state: string; options: JobOptions }
  /** Runs through the whole listing of a snapshot and reads no block. */
  | { action: "list"; aws: Record<string, unknown> };

const order = JSON.parse(process.argv[2] ?? "") as AwsTransferOrder;
const began = performance.now();
const used = process.cpuUsage();
const facts = order.action === "list" ? await list() : await copy(order);
const seconds = (performance.now() - began) / 1000;
const { user, system } = process.cpuUsage(used);
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, ...facts }));

async function list(): Promise<Record<string, unknown>> {
  await using source = await openSource(aws, order.aws);
  for await (const machine of source.machines()) {
    const snapshot = await source.snapshot(machine, { key: "bench" });
    const [disk] = snapshot.disks;
    let tiles = 0;
    let bytes = 0;
    for await (const tile of source.tracker!.changes(disk!)) {
      tiles++;
      if (tile.kind === "changed") bytes += tile.length;
    }
    if (bytes !== disk!.size) throw new Error(`${bytes} bytes were listed where ${disk!.size} are`);
    return { tiles };
  }
  throw new Error("there is no snapshot");
}

async function copy(asked: Exclude<AwsTransferOrder, { action: "list" }>): Promise<Record<string, unknown>> {
  const disk = { path: asked.file, format: "raw" as const };
  const down = asked.action === "download";
  await using store = await openDirectoryState(asked.state);
  await using source = down ? await openSource(aws, asked.aws) : await openSource(local, disk);
  await using target = down ? await openTarget(local, disk) : await openTarget(aws, asked.aws);
  let machine = "";
  for await (const found of source.machines()) machine = found.id;
  const report = await transfer({ id: "bench", source, machine, target, store, options: asked.options });
  if (report.status !== "done") throw new Error(`the transfer ended as ${report.status}`);
  const { mode, read, moved } = report.disks[0]!;
  return { mode, read, moved };
}
