import type { Finding, Preflight, TargetPreflightRequest, Wait } from "@diskferry/core/provider";
import { numberIn } from "../client/decode.ts";
import type { Cloud } from "../cloud.ts";
import { shapeMachine } from "../launch/machine-shape.ts";
import { GIB, diskOffering, gibFor } from "../target/replica-volumes.ts";
import { applianceFindings, asFinding, available, placeFindings, privilegesFor } from "./place-findings.ts";

/** What a copy needs. */
const COPY = [
  "listDiskOfferings",
  "createVolume",
  "attachVolume",
  "detachVolume",
  "resizeVolume",
  "deleteVolume",
  "createTags",
  "deleteTags",
];
/** What a launch needs besides. */
const LAUNCH = [
  "listServiceOfferings",
  "listNetworks",
  "listOsTypes",
  "listTemplates",
  "listSnapshots",
  "createSnapshot",
  "deleteSnapshot",
  "deployVirtualMachine",
  "updateVirtualMachine",
  "updateVolume",
  "startVirtualMachine",
  "stopVirtualMachine",
  "destroyVirtualMachine",
];

const BY_TEMPLATE = ["createTemplate", "deleteTemplate"];

/** The commands that a launch needs by the method that the options name. */
export function launchCommands(cloud: Cloud): readonly string[] {
  return [...LAUNCH, ...(cloud.options.launch?.method === "template" ? BY_TEMPLATE : [])];
}

/** Calls of one copy of one disk: looking, claiming, attaching, checking, detaching. */
const CALLS_PER_DISK = 40;

/** Says before a run, or a launch, what it takes of this place and what stands in its way. */
export async function targetPreflight(cloud: Cloud, request: TargetPreflightRequest): Promise<Preflight> {
  const { disks, machine, signal } = request;
  const wait: Wait = { signal };
  signal?.throwIfAborted();
  const launches = machine !== undefined && cloud.options.launch !== undefined;
  const commands = [...COPY, ...(launches ? launchCommands(cloud) : [])];
  const { privileges, findings } = await privilegesFor(cloud, commands, wait);
  findings.push(...(await placeFindings(cloud, wait)));
  if (findings.some(({ subject }) => subject === "zone")) return { privileges, findings };
  findings.push(...(await applianceFindings(cloud, disks.length, wait)));
  const fresh = disks.filter(({ base }) => base === undefined);
  const largest = Math.max(0, ...disks.map(({ size }) => size));
  try {
    await diskOffering(cloud, largest, wait);
  } catch (error) {
    findings.push(asFinding("disk offering", error));
  }
  findings.push(...(await sizeFindings(cloud, disks, wait)));
  findings.push(...(await quotaFindings(cloud, fresh, wait)));
  if (launches) findings.push(...(await launchFindings(cloud, machine, wait)));
  return {
    privileges,
    findings,
    calls: [{ operation: "CloudStack API", count: { value: disks.length * CALLS_PER_DISK, kind: "estimate" } }],
  };
}

/** Disks that are larger than the zone's volumes may be. */
export async function sizeFindings(
  cloud: Cloud,
  disks: TargetPreflightRequest["disks"],
  wait: Wait,
): Promise<Finding[]> {
  const most = numberIn((await cloud.capabilities(wait))["customdiskofferingmaxsize"]);
  if (most === undefined) return [];
  return disks
    .filter(({ size }) => gibFor(size) > most)
    .map(({ disk, size }) => ({
      severity: "blocker",
      subject: disk,
      message: `The disk needs ${gibFor(size)} GiB; the zone's largest custom volume has ${most} GiB.`,
      remedy: "Have custom.diskoffering.size.max raised.",
    }));
}

/** Quotas and, for who may see them, pools: so that the last disk of many does not fail after hours. */
export async function quotaFindings(
  cloud: Cloud,
  fresh: TargetPreflightRequest["disks"],
  wait: Wait,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const gib = fresh.reduce((sum, { size }) => sum + gibFor(size), 0);
  const check = async (resource: string, wanted: number, what: string): Promise<void> => {
    const left = await available(cloud, resource, wait);
    if (left === undefined || wanted <= left) return;
    findings.push({
      severity: "blocker",
      subject: "quota",
      message: `${what}: ${wanted} are needed and ${left} are left.`,
      remedy: "Have the account's or project's limit raised, or remove what is not needed.",
    });
  };
  await check("volume", fresh.length, "Volumes of this account");
  await check("primarystorage", gib, "GiB of primary storage of this account");
  if ((await cloud.commands(wait)).has("liststoragepools")) {
    let free = 0;
    let count = 0;
    for await (const pool of cloud.client.list("listStoragePools", { zoneid: await cloud.zoneId(wait) }, wait)) {
      const [total, used] = [numberIn(pool["disksizetotal"]), numberIn(pool["disksizeallocated"])];
      if (pool["state"] !== "Up" || total === undefined || used === undefined) continue;
      free = Math.max(free, total - used);
      count++;
    }
    if (count > 0 && free < gib * GIB) {
      findings.push({
        severity: "warning",
        subject: "capacity",
        message: `The volumes need ${gib} GiB and no pool has more than ${Math.floor(free / GIB)} GiB that is not allocated.`,
        remedy: "Free some, or mind the pools' overprovisioning.",
      });
    }
  }
  return findings;
}

/** What is to be said of a launch: what is not set up, and what the shape of the machine lacks. */
export async function launchFindings(
  cloud: Cloud,
  machine: NonNullable<TargetPreflightRequest["machine"]>,
  wait: Wait,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const { testNetwork, networks, method = "auto" } = cloud.options.launch ?? {};
  if (method === "auto" && !(await cloud.commands(wait)).has("createtemplate")) {
    findings.push({
      severity: "info",
      subject: "createTemplate",
      message:
        "The role of this account lacks it: where a pool is managed, and no root volume swapped, nothing is launched.",
      remedy: "Allow createTemplate and deleteTemplate in the account's role.",
    });
  }
  for (const purpose of ["test", "cutover"] as const) {
    // What is not set up is said once, and is no reason to stop a copy.
    const isSetUp = purpose === "test" ? testNetwork !== undefined : networks !== undefined;
    if (!isSetUp) {
      findings.push({
        severity: "info",
        subject: `launch.${purpose === "test" ? "testNetwork" : "networks"}`,
        message: `Not set: there is no ${purpose} launch without it.`,
      });
      continue;
    }
    try {
      const { notes } = await shapeMachine(cloud, machine, purpose, wait);
      for (const message of notes) {
        if (!findings.some((known) => known.message === message))
          findings.push({ severity: "warning", subject: "launch", message });
      }
    } catch (error) {
      const found = asFinding(`launch (${purpose})`, error);
      if (!findings.some(({ message }) => message === found.message)) findings.push(found);
    }
  }
  return findings;
}
