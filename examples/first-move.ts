/**
 * The first move: a machine of two disks from a vCenter into a CloudStack, both embedded simulators with real bytes. It is
 * copied while its guest writes, again by what changed, tested as a clone, and cut over; every byte is compared.
 *
 *   npm start
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  cutover,
  type Job,
  launch,
  openDirectoryState,
  openSource,
  openTarget,
  replicate,
  type RunReport,
  terminate,
} from "@diskferry/core";
import { provider as cloudstack } from "@diskferry/provider-cloudstack";
import { provider as vsphere } from "@diskferry/provider-vmware";
import { startCloudstackSimulator, startVcenterSimulator } from "@diskferry/simulators";

const MIB = 1 << 20;
const SIZES = [32 * MIB, 16 * MIB];
const FIRST_DISK = 2000;

const folder = mkdtempSync(join(tmpdir(), "diskferry-first-move-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

// Plain HTTP on 127.0.0.1, so that nothing but Node is needed.
await using vcenter = await startVcenterSimulator({
  tls: false,
  machines: [{ name: "web", disks: SIZES.map((size) => ({ size })), tracking: false }],
});
await using cloud = await startCloudstackSimulator();
for (const [index, size] of SIZES.entries()) {
  const bytes = crypto.getRandomValues(new Uint8Array(64 << 10));
  for (let offset = 0; offset < size / 2; offset += 2 * bytes.length)
    vcenter.populate("web", diskKey(index), offset, bytes);
}

await using source = await openSource(vsphere, {
  url: vcenter.url,
  username: vcenter.userName,
  password: vcenter.password,
  readers: ["nfc"],
});
const { root, id: appliance } = cloud.appliance;
await using target = await openTarget(cloudstack, {
  endpoint: cloud.url,
  apiKey: cloud.tenant.apiKey,
  secretKey: cloud.tenant.secretKey,
  // The appliance is where the writer runs; the simulator's shows its devices in a folder.
  appliance: {
    machine: appliance,
    devices: { byId: `${root}/dev/disk/by-id`, dev: `${root}/dev`, sys: `${root}/sys` },
  },
  diskOffering: "Custom",
  launch: { networks: [{ network: "production" }], testNetwork: "isolated-test" },
  timeouts: { pollMs: 5, pollMostMs: 50, requestMs: 10_000, jobMs: 10_000, deviceMs: 5_000 },
});
await using store = await openDirectoryState(join(folder, "state"));
const job: Job = { id: "first-move", source, machine: "web", target, store };

console.log(`\nA machine with two disks moves from vSphere to CloudStack (simulators with real bytes, reader nfc):\n`);
tell("full copy", await replicate(job));
guestWrites(16);
const last = await replicate(job);
tell("what changed", last);

const tested = await launch(job);
console.log(`test launch    ${tested.name} runs from clones on network isolated-test; ended again`);
await terminate(job, tested.id);

guestWrites(8);
const { machine, run } = await cutover(job, { allowPowerOff: true });
if (run !== undefined) tell("cutover", run);
const state = `source ${vcenter.machine("web").power}, ${machine.name} ${cloud.machineState(machine.id)}`;
await compare(cloud.volumesOf(machine.id));
console.log(`launched       ${state}; ${SIZES.length} of ${SIZES.length} disks equal, byte for byte`);

function diskKey(index: number): number {
  return FIRST_DISK + index;
}

/** The guest goes on working while it is copied. */
function guestWrites(places: number): void {
  for (const [index, size] of SIZES.entries()) {
    for (let place = 0; place < places; place++) {
      const offset = Math.floor((place + 0.5) * (size / places / 4096)) * 4096;
      vcenter.write("web", diskKey(index), offset, crypto.getRandomValues(new Uint8Array(4096)));
    }
  }
}

function tell(title: string, report: RunReport): void {
  for (const { disk, mode, read, moved, size, root: proof } of report.disks) {
    console.log(
      `${title.padEnd(14)} disk ${disk}  ${mode.padEnd(11)}  read ${mib(read)}  moved ${mib(moved)} of ${mib(size)}  ` +
        `root ${proof?.slice(0, 16)}…`,
    );
  }
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1).padStart(5)} MiB`;
}

async function compare(volumes: readonly string[]): Promise<void> {
  for (const [index, size] of SIZES.entries()) {
    const held = await cloud.volumeBytes(volumes[index] ?? "", 0, size);
    const wanted = vcenter.readDisk("web", diskKey(index), {});
    if (Buffer.compare(held, wanted) !== 0) throw new Error(`disk ${diskKey(index)} differs at CloudStack`);
  }
}
