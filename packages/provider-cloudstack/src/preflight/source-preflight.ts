import type { Finding, Machine, Preflight, PreflightRequest, Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { gibFor } from "../target/replica-volumes.ts";
import { applianceFindings, available, placeFindings, privilegesFor, snapshotsRunning } from "./place-findings.ts";

const COPY = ["listSnapshots", "createSnapshot", "deleteSnapshot", "listVMSnapshot"];
/** How a snapshot's bytes are read. */
const READING = {
  appliance: ["createVolume", "deleteVolume", "attachVolume", "detachVolume"],
  download: ["extractSnapshot"],
} as const;
const SEVERAL = ["createVMSnapshot", "createSnapshotFromVMSnapshot", "deleteVMSnapshot"];
const CALLS_PER_DISK = 30;
const DOWNLOADS: Finding = {
  severity: "info",
  subject: "source.read",
  message:
    "Disks are downloaded from the secondary storage machine, which has to be reachable from here and answer ranges.",
};

/** Says before a run what it takes to read a machine and what stands in the way. */
export async function sourcePreflight(
  cloud: Cloud,
  machine: Machine | undefined,
  { disks, signal }: PreflightRequest,
): Promise<Preflight> {
  const wait: Wait = { signal };
  signal?.throwIfAborted();
  const isOn = machine !== undefined && machine.power !== "off";
  const takesMachine = isOn && disks.length > 1 && cloud.options.source?.snapshots !== "volumes";
  const by = cloud.options.source?.read ?? "appliance";
  const commands = [...COPY, ...READING[by], ...(takesMachine ? SEVERAL : [])];
  const { privileges, findings } = await privilegesFor(cloud, commands, wait);
  findings.push(...(await placeFindings(cloud, wait)));
  if (by === "appliance") findings.push(...(await applianceFindings(cloud, disks.length, wait)));
  else findings.push(DOWNLOADS);
  if (machine !== undefined)
    findings.push(...(await snapshotFindings(cloud, machine, disks, isOn, takesMachine, wait)));
  return {
    privileges,
    findings,
    calls: [{ operation: "CloudStack API", count: { value: disks.length * CALLS_PER_DISK, kind: "estimate" } }],
  };
}

async function snapshotFindings(
  cloud: Cloud,
  machine: Machine,
  disks: PreflightRequest["disks"],
  isOn: boolean,
  takesMachine: boolean,
  wait: Wait,
): Promise<Finding[]> {
  const findings: Finding[] = [
    {
      severity: "info",
      subject: machine.name,
      message: "CloudStack tells nothing of changed blocks: every run reads the whole disk and sends what differs.",
    },
  ];
  if (isOn && !takesMachine && (await snapshotsRunning(cloud, wait)) === false) {
    findings.push({
      severity: "blocker",
      subject: machine.name,
      message: "The machine runs, and snapshots of running machines are turned off (kvm.snapshot.enabled).",
      remedy: "Have kvm.snapshot.enabled turned on, or stop the machine.",
    });
  }
  if (takesMachine) {
    findings.push({
      severity: "warning",
      subject: machine.name,
      message:
        "Its disks get one point in time by a VM snapshot with memory, which stops the machine while memory is saved.",
      remedy:
        'Set source.snapshots to "volumes" to snapshot one disk after the other: no stop, and no common point in time.',
    });
  }
  const gib = disks.reduce((sum, { size }) => sum + gibFor(size), 0);
  const clones = cloud.options.source?.read !== "download";
  for (const [resource, wanted, what] of [
    ["snapshot", disks.length, "snapshots"],
    ["volume", clones ? disks.length : 0, "volumes"],
    ["primarystorage", clones ? gib : 0, "GiB of primary storage"],
    ["secondarystorage", gib, "GiB of secondary storage"],
  ] as const) {
    const left = await available(cloud, resource, wait);
    if (left === undefined || wanted <= left) continue;
    findings.push({
      severity: "blocker",
      subject: "quota",
      message: `Reading this machine takes ${wanted} ${what} for a while and ${left} are left.`,
      remedy: "Have the account's or project's limit raised.",
    });
  }
  return findings;
}
