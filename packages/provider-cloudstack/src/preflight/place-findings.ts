import { type Finding, type Preflight, type Wait, isProviderError } from "@diskferry/core/provider";
import { flagIn, numberIn, textIn } from "../client/decode.ts";
import type { Cloud } from "../cloud.ts";

/** Oldest version that anything here was written against. */
const OLDEST = "4.19";

/** Commands that every use of a place needs. */
const ALWAYS = [
  "listCapabilities",
  "listApis",
  "listZones",
  "listVolumes",
  "listVirtualMachines",
  "queryAsyncJobResult",
  "listAsyncJobs",
];

/** A finding where a question could not be answered, which is itself worth knowing. */
export function asFinding(subject: string, error: unknown): Finding {
  if (!isProviderError(error)) throw error;
  return { severity: "blocker", subject, message: error.message };
}

/** Which commands a use needs, and which of them the account's role lacks. */
export async function privilegesFor(
  cloud: Cloud,
  commands: readonly string[],
  wait: Wait,
): Promise<{ privileges: NonNullable<Preflight["privileges"]>; findings: Finding[] }> {
  const needed = [...new Set([...ALWAYS, ...commands])];
  const known = await cloud.commands(wait);
  const missing = needed.filter((command) => !known.has(command.toLowerCase()));
  const findings = missing.map((command): Finding => ({
    severity: "blocker",
    subject: command,
    message: `The role of this account lacks the command ${command}, or this version of CloudStack does.`,
    remedy: `Allow ${command} in the account's role, or use an account whose role has it.`,
  }));
  return { privileges: { needed, missing }, findings };
}

/** What is to be said of the place itself: version, zone, API limit. */
export async function placeFindings(cloud: Cloud, wait: Wait): Promise<Finding[]> {
  const findings: Finding[] = [];
  const capabilities = await cloud.capabilities(wait);
  const version = textIn(capabilities["cloudstackversion"]) ?? "unknown";
  if (await cloud.reaches(OLDEST, wait)) {
    findings.push({ severity: "info", subject: "version", message: `CloudStack ${version}.` });
  } else {
    findings.push({
      severity: "warning",
      subject: "version",
      message: `CloudStack ${version} is older than ${OLDEST}, the oldest this was written for.`,
      remedy: "Try with a disk that does not matter, and verify the copy.",
    });
  }
  const most = numberIn(capabilities["apilimitmax"]);
  if (most !== undefined) {
    const seconds = numberIn(capabilities["apilimitinterval"]) ?? 1;
    findings.push({
      severity: "info",
      subject: "api limit",
      message: `The server takes ${most} calls of this account in ${seconds} s; calls beyond wait.`,
    });
  }
  if (cloud.options.endpoint.startsWith("http:")) {
    findings.push({
      severity: "warning",
      subject: "endpoint",
      message: "The API is reached without TLS: whoever sees the network sees what is asked and answered.",
      remedy: "Use https and, for a certificate of its own, tls.caFile or tls.pin.",
    });
  }
  try {
    await cloud.zoneId(wait);
  } catch (error) {
    findings.push(asFinding("zone", error));
  }
  return findings;
}

/** Volumes that a machine takes besides its root (KVM's `max_data_volumes_limit`). */
const MOST_DATA_VOLUMES = 64;

/** Whether the appliance runs and takes so many more volumes. */
export async function applianceFindings(cloud: Cloud, more: number, wait: Wait): Promise<Finding[]> {
  try {
    const appliance = await cloud.appliance(wait);
    const now = (await cloud.machine(appliance.id, wait)) ?? appliance;
    const findings: Finding[] = [];
    if (now.state !== "Running") {
      findings.push({
        severity: "blocker",
        subject: "appliance",
        message: `The appliance ${now.displayName} is ${now.state}.`,
        remedy: "Start it: volumes are written and read by it.",
      });
    }
    let attached = 0;
    for await (const volume of cloud.volumes({ virtualmachineid: now.id }, wait))
      if (volume.type !== "ROOT") attached++;
    if (attached + more > MOST_DATA_VOLUMES) {
      findings.push({
        severity: "blocker",
        subject: "appliance",
        message: `The appliance has ${attached} volumes and takes ${MOST_DATA_VOLUMES}; ${more} more are wanted at once.`,
        remedy: "Run fewer disks at once, or set up another appliance.",
      });
    }
    return findings;
  } catch (error) {
    return [asFinding("appliance", error)];
  }
}

/** What of a limited resource an account or project has left; undefined: no limit, or it may not be asked. */
export async function available(cloud: Cloud, resource: string, wait: Wait): Promise<number | undefined> {
  const isProject = cloud.options.project !== undefined;
  const command = isProject ? "listProjects" : "listAccounts";
  if (!(await cloud.commands(wait)).has(command.toLowerCase())) return undefined;
  const { owner: other } = cloud.options;
  const own = other === undefined ? {} : { name: other.account, domainid: other.domainId };
  const scope = isProject ? { id: (await cloud.scope(wait))["projectid"] } : own;
  for await (const owner of cloud.client.list(command, scope, wait)) {
    return numberIn(owner[`${resource}available`]);
  }
  return undefined;
}

/** Whether running machines' volumes can be snapshotted; undefined where the server does not tell. */
export async function snapshotsRunning(cloud: Cloud, wait: Wait): Promise<boolean | undefined> {
  return flagIn((await cloud.capabilities(wait))["kvmsnapshotenabled"]);
}
