/**
 * A simulated vCenter with one machine in a process of its own, and the far side of VMware's library beside it. Takes its
 * order as JSON in the first argument, says on its first line where it listens, and ends with its input.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { createInterface } from "node:readline";
import { startVcenterSimulator } from "@diskferry/simulators";
import { standInKind, VddkStandIn } from "../../packages/provider-vmware/test/stand-in/vddk-stand-in.ts";

/** What the bench asks of this process. */
export interface VsphereSimulatorOrder {
  /** A raw file: the content of the machine's one disk. */
  file: string;
  size: number;
  /** Whether nbdkit is to read it. */
  vddk: boolean;
}

/** Its first line. */
export interface VspherePlace {
  url: string;
  userName: string;
  password: string;
  thumbprint: string;
  /** The options of the reader `vddk`, and what the library is told by. */
  vddk?: { plugin: string[]; libdir: string };
  kind?: string;
  env: Record<string, string>;
}

const order = JSON.parse(process.argv[2] ?? "") as VsphereSimulatorOrder;
const { file, size } = order;
await using simulator = await startVcenterSimulator({
  machines: [{ name: "bench", disks: [{ size }], tracking: true }],
});
const disk = openSync(file, "r");
const block = new Uint8Array(1 << 20);
for (let at = 0; at < size; at += block.length) {
  const length = readSync(disk, block, 0, block.length, at);
  simulator.populate("bench", 2000, at, block.subarray(0, length));
}
closeSync(disk);
await using standIn = order.vddk ? await VddkStandIn.start(simulator) : undefined;
// The same bytes as the disk's, without a copy that is made while the clock runs.
if (standIn !== undefined) standIn.instead = file;
const names = ["DISKFERRY_VDDK_STAND_IN", "DISKFERRY_VDDK_STAND_IN_PORT"];
const { plugin = [], libdir = "" } = standIn?.options ?? {};
const place: VspherePlace = {
  url: simulator.url,
  userName: simulator.userName,
  password: simulator.password,
  thumbprint: simulator.tls!.sha256,
  ...(standIn === undefined ? {} : { vddk: { plugin, libdir }, kind: standInKind }),
  env: Object.fromEntries(
    names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  ),
};
console.log(JSON.stringify(place));
for await (const _ of createInterface({ input: process.stdin }));
