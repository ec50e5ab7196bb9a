/**
 * Moves a machine from vSphere to CloudStack: copies while it runs, again and again, then shuts it down, sends the rest and
 * launches it there. Nothing is final before `finalizeCutover`.
 *
 *   node examples/vsphere-to-cloudstack.ts options.json web
 *
 * options.json holds the options of both providers; secrets come from the environment:
 *
 *   { "source": { "url": "https://vcenter.example", "username": "backup", "password": "${VCENTER_PASSWORD}" },
 *     "target": { "endpoint": "https://cloud.example/client/api", "apiKey": "…", "secretKey": "${CLOUD_SECRET}" } }
 */
import { readFile } from "node:fs/promises";
import {
  cutover,
  expandEnvironment,
  finalizeCutover,
  type Job,
  loadProvider,
  openDirectoryState,
  openSource,
  openTarget,
  replicate,
  revertCutover,
} from "@diskferry/core";

const [file = "options.json", machine = "web"] = process.argv.slice(2);
const options = expandEnvironment(JSON.parse(await readFile(file, "utf8"))) as { source: unknown; target: unknown };
const from = import.meta.url;
await using source = await openSource(await loadProvider("vsphere", { from }), options.source, {
  notice: console.error,
});
await using target = await openTarget(await loadProvider("cloudstack", { from }), options.target, {
  notice: console.error,
});
await using store = await openDirectoryState("state");
const job: Job = { id: `move-${machine}`, source, machine, target, store };

// The machine runs on; each run sends less, until a run sends hardly less than the one before.
let moved = Infinity;
let before: number;
do {
  before = moved;
  const report = await replicate(job);
  moved = report.disks.reduce((sum, disk) => sum + disk.moved, 0);
  console.log({ modes: report.disks.map(({ mode }) => mode), moved });
} while (moved > 0 && moved < before / 2);

const { machine: launched, run } = await cutover(job, { allowPowerOff: true });
console.log({ launched: launched.name, consumed: launched.consumed, lastMoved: run?.disks.map((disk) => disk.moved) });
// Your own check of the launched machine goes here: does it answer?
const itWorks = process.env["IT_WORKS"] !== "no";
if (itWorks) await finalizeCutover(job);
else await revertCutover(job);
console.log(itWorks ? "moved" : "reverted: the machine runs where it was");
