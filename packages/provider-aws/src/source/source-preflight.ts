import { CreateSnapshotCommand, CreateSnapshotsCommand, DescribeVolumesCommand } from "@aws-sdk/client-ec2";
import { DescribeInstanceInformationCommand } from "@aws-sdk/client-ssm";
import {
  type Cost,
  type Finding,
  type Machine,
  type PlannedDisk,
  type Preflight,
  type PreflightRequest,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { failureOf } from "../errors.ts";
import { probeActions } from "../plan/dry-run.ts";
import { type Duty, actionsOf } from "../plan/policy.ts";
import { requestCost } from "../plan/prices.ts";
import { DEFAULT_QUOTAS, blocksOf, listingPages, minutesAtQuota, sumOf } from "../plan/request-counts.ts";
import { toldOf } from "./beyond-snapshots.ts";
import { readCheckpoint } from "./checkpoint.ts";
import { demandReadable, describeSnapshot, findSnapshots } from "./snapshot-facts.ts";

/** Pending snapshots of a volume at once; of st1 and sc1 one (EC2 user guide, CreateSnapshot). */
const pendingPerVolume = 5;

/**
 * What a run out of this source takes: calls, money, minutes at the default quotas, actions and which of them are missing,
 * and what stands in the way. Only looks; dry runs change nothing.
 */
export async function preflightSource(
  connection: AwsConnection,
  machine: Machine | undefined,
  request: PreflightRequest,
): Promise<Preflight> {
  const { disks, signal } = request;
  signal?.throwIfAborted();
  const findings: Finding[] = [];
  const duties = new Set<Duty>(["source"]);
  if (connection.options.source?.application !== undefined) duties.add("ssm");
  if (machine?.id.startsWith("snap-") === true)
    findings.push(...(await snapshotFindings(connection, machine.id, { signal })));
  else if (machine !== undefined) {
    const volumes = machine.disks.map(({ key }) => key).filter((key) => key.startsWith("vol-"));
    const found = await volumeFindings(connection, volumes, { signal });
    if (found.some(({ subject }) => subject.startsWith("encryption of"))) duties.add("kms");
    findings.push(...found, ...(await guestFindings(connection, machine, { signal })));
    for (const message of toldOf(machine)) findings.push({ severity: "warning", subject: machine.id, message });
  }
  for (const disk of disks) findings.push(...(await baseFindings(connection, disk, { signal })));
  const needed = actionsOf([...duties]);
  const privileges = await missingOf(connection, machine, needed, findings, { signal });
  const reads = disks.map(({ read }) => blocksOf(read));
  const compared = disks.filter(({ mode }) => mode === "incremental");
  const listed = disks.filter(({ mode }) => mode !== "incremental");
  const pages = (some: readonly PlannedDisk[]) => sumOf(some.map(({ read }) => listingPages(blocksOf(read))));
  const counts = [
    ["ListSnapshotBlocks", listed.length === 0 ? undefined : pages(listed)],
    ["ListChangedBlocks", compared.length === 0 ? undefined : pages(compared)],
    ["GetSnapshotBlock", reads.length === 0 ? undefined : sumOf(reads)],
  ] as const;
  const calls = counts.flatMap(([operation, count]) => (count === undefined ? [] : [{ operation, count }]));
  return {
    calls,
    costs: calls.map(({ operation, count }): Cost => requestCost(operation, count)),
    ...(reads.length === 0 ? {} : { minutes: minutesAtQuota(sumOf(reads), DEFAULT_QUOTAS.GetSnapshotBlock) }),
    privileges,
    findings,
  };
}

/** Which actions are missing, by dry runs; on the machine itself where the action is about one. */
async function missingOf(
  connection: AwsConnection,
  machine: Machine | undefined,
  needed: string[],
  findings: Finding[],
  wait: Wait,
): Promise<{ needed: string[]; missing: string[] }> {
  const { missing, unasked } = await probeActions(connection, needed, wait);
  const create =
    machine === undefined || machine.id.startsWith("snap-")
      ? undefined
      : machine.id.startsWith("i-")
        ? "ec2:CreateSnapshots"
        : "ec2:CreateSnapshot";
  if (machine !== undefined && create !== undefined && needed.includes(create)) {
    const about = { object: `${machine.id} (dry run)`, once: true, ...wait };
    const asked =
      create === "ec2:CreateSnapshots"
        ? connection.ec2(
            new CreateSnapshotsCommand({ InstanceSpecification: { InstanceId: machine.id }, DryRun: true }),
            about,
          )
        : connection.ec2(new CreateSnapshotCommand({ VolumeId: machine.id, DryRun: true }), about);
    const answer: unknown = await asked.then(
      () => undefined,
      (error: unknown) => error,
    );
    wait.signal?.throwIfAborted();
    if (isProviderError(answer) && answer.code === "DENIED") missing.push(create);
    if (failureOf(answer)?.awsCode === "DryRunOperation") unasked.splice(unasked.indexOf(create), 1);
  }
  for (const action of missing)
    findings.push({
      severity: "blocker",
      subject: action,
      message: `${action} is not allowed to these credentials.`,
      remedy: "Allow it in the IAM policy; the documentation of this provider holds a whole one.",
    });
  findings.push({
    severity: "info",
    subject: "permissions",
    message: `${unasked.length} of ${needed.length} actions could not be tried by a dry run (EBS direct APIs and KMS among them).`,
  });
  return { needed, missing };
}

/** Whether an existing snapshot can be read. */
async function snapshotFindings(connection: AwsConnection, id: string, wait: Wait): Promise<Finding[]> {
  try {
    const facts = await describeSnapshot(connection, id, wait);
    demandReadable(facts);
    if (facts.ownerId === connection.accountId) return [];
    return [
      {
        severity: "info",
        subject: id,
        message: `Snapshot ${id} belongs to account ${facts.ownerId}; that one can take it away at any time, and a public one is not read.`,
      },
    ];
  } catch (error) {
    if (!isProviderError(error) || error.code === "AUTH") throw error;
    return [{ severity: "blocker", subject: id, message: error.message }];
  }
}

/** Snapshots under way and keys of a machine's volumes. */
async function volumeFindings(connection: AwsConnection, ids: readonly string[], wait: Wait): Promise<Finding[]> {
  if (ids.length === 0) return [];
  const findings: Finding[] = [];
  const { Volumes = [] } = await connection.ec2(new DescribeVolumesCommand({ VolumeIds: [...ids] }), {
    object: ids.join(", "),
    ...wait,
  });
  const pending = new Map<string, number>();
  for await (const { volumeId } of findSnapshots(connection, { "volume-id": [...ids], status: ["pending"] }, wait))
    pending.set(volumeId, (pending.get(volumeId) ?? 0) + 1);
  for (const { VolumeId: id = "", VolumeType: type, Encrypted, KmsKeyId } of Volumes) {
    const most = type === "st1" || type === "sc1" ? 1 : pendingPerVolume;
    if ((pending.get(id) ?? 0) >= most)
      findings.push({
        severity: "blocker",
        subject: `pending snapshots of ${id}`,
        message: `${id} has ${pending.get(id)} pending snapshots, and AWS allows ${most} of a volume of type ${type}.`,
        remedy: "Wait until one completes.",
      });
    if (Encrypted === true)
      findings.push({
        severity: "info",
        subject: `encryption of ${id}`,
        message: `${id} is encrypted by ${KmsKeyId ?? "the account's key"}: reading its snapshots needs kms:Decrypt on that key.`,
      });
  }
  return findings;
}

/** Whether Systems Manager reaches the guest, where it is to be asked. */
async function guestFindings(connection: AwsConnection, machine: Machine, wait: Wait): Promise<Finding[]> {
  if (connection.options.source?.application === undefined || !machine.id.startsWith("i-")) return [];
  const subject = `Systems Manager on ${machine.id}`;
  const remedy = "Its agent must run, and the instance's role must hold AmazonSSMManagedInstanceCore.";
  const command = new DescribeInstanceInformationCommand({ Filters: [{ Key: "InstanceIds", Values: [machine.id] }] });
  try {
    const { InstanceInformationList = [] } = await connection.ssm(command, { object: machine.id, ...wait });
    if (InstanceInformationList[0]?.PingStatus === "Online") return [];
    const message = "The guest is not reached, so snapshots will be crash-consistent alone.";
    return [{ severity: "warning", subject, message, remedy }];
  } catch (error) {
    if (!isProviderError(error) || error.code !== "DENIED") throw error;
    return [{ severity: "warning", subject, message: error.message, remedy }];
  }
}

/** Whether the base of an incremental run is still what it was. */
async function baseFindings(connection: AwsConnection, disk: PlannedDisk, wait: Wait): Promise<Finding[]> {
  if (disk.since === undefined || disk.mode !== "incremental") return [];
  try {
    const base = readCheckpoint(disk.since);
    demandReadable(await describeSnapshot(connection, base.snapshotId, wait));
    return [];
  } catch (error) {
    if (!isProviderError(error) || error.code === "AUTH") throw error;
    return [
      {
        severity: "warning",
        subject: `disk ${disk.disk}`,
        message: `The base of the last run is not there to compare with, so all of the disk is read. ${error.message}`,
      },
    ];
  }
}
