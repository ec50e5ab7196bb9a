// Lists every machine of a vCenter, with disks and cards, and tells how many there were and what that took.
import { openSource } from "@diskferry/core";
import { provider } from "@diskferry/provider-vmware";

const { VSPHERE_URL: url = "" } = process.env;
const protocol = process.argv[2] === "soap" ? "soap" : "vi-json";
const began = performance.now();
const cpuBefore = process.cpuUsage();
await using source = await openSource(provider, { url, protocol });
let machines = 0;
let disks = 0;
for await (const machine of source.machines()) {
  machines++;
  disks += machine.disks.length;
}
const { user, system } = process.cpuUsage(cpuBefore);
const cpuSeconds = (user + system) / 1e6;
const seconds = (performance.now() - began) / 1000;
console.log(JSON.stringify({ seconds, cpuSeconds, machines, disks, machinesPerCpuSecond: machines / cpuSeconds }));
