import type { Finding, Machine, Preflight, PreflightRequest, Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { gibFor } from "../target/replica-volumes.ts";
import { applianceFindings, available, placeFindings, privilegesFor, snapshotsRunning } from "./place-findings.ts";

const COPY = [
  "listSnapshots",
  "createSnapshot",
  "deleteSnapshot",
  "createVolume",
  "deleteVolume",
  "attachVolume",
  "detachVolume",
  "listVMSnapshot",
];
const SEVERAL = ["createVMSnapshot", "createSnapshotFromVMSnapshot", "deleteVMSnapshot"];
const CALLS_PER_DISK = 30;

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
  const { privileges, findings } = await privilegesFor(cloud, [...COPY, ...(takesMachine ? SEVERAL : [])], wait);
  findings.push(...(await placeFindings(cloud, wait)));
  findings.push(...(await applianceFindings(cloud, disks.length, wait)));
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
  for (const [resource, wanted, what] of [
    ["snapshot", disks.length, "snapshots"],
    ["volume", disks.length, "volumes"],
    ["primarystorage", gib, "GiB of primary storage"],
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
