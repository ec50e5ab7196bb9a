import { DescribeSnapshotsCommand, GetEbsEncryptionByDefaultCommand } from "@aws-sdk/client-ec2";
import {
  type Figure,
  type Finding,
  isProviderError,
  type PlannedDisk,
  type Preflight,
  type TargetPreflightRequest,
  type Wait,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { rightSize } from "../launch/right-size.ts";
import { findSnapshot, wholeGib } from "../target/own-snapshots.ts";
import { probeActions } from "./dry-run.ts";
import { actionsOf, type Duty } from "./policy.ts";
import { requestCost, snapshotStorageCost } from "./prices.ts";
import { BLOCK_BYTES, blocksOf, DEFAULT_QUOTAS, minutesAtQuota, sumOf } from "./request-counts.ts";

/** Pending snapshots of one account in a Region (Service Quotas, L-94D7AB7D). */
const MOST_PENDING = 100;

/**
 * What a run into this target takes: blocks put, money, minutes at the default quota, actions and which of them are missing,
 * and what stands in the way. Only looks; dry runs change nothing.
 */
export async function preflightTarget(connection: AwsConnection, request: TargetPreflightRequest): Promise<Preflight> {
  const { disks, machine, signal } = request;
  const { encrypted, kmsKey, launch } = connection.options.target ?? {};
  const findings: Finding[] = [];
  const byDefault = await encryptsByDefault(connection, { signal });
  const isEncrypted = encrypted === true || kmsKey !== undefined || byDefault === true;
  const puts = sumOf(disks.map((disk) => blocksPut(disk, isEncrypted)));
  if (isEncrypted && disks.some(({ mode }) => mode === "full"))
    findings.push({
      severity: "info",
      subject: "encryption",
      message:
        "New snapshots are encrypted, and behind the holes of those lie random bytes: a full copy writes zeroes too.",
    });
  for (const disk of disks) findings.push(...(await baseFindings(connection, disk, isEncrypted, { signal })));
  findings.push(...(await pendingFindings(connection, disks.length, { signal })));
  if (machine !== undefined && launch?.instanceType === undefined && rightSize(machine) === undefined)
    findings.push({
      severity: "warning",
      subject: "launch",
      message: `No instance type that is known here holds ${machine.cpus ?? "?"} processors and ${machine.memoryBytes ?? "?"} bytes of memory.`,
      remedy: "Set launch.instanceType.",
    });
  if (machine?.guestFamily === "windows" && (launch?.road ?? "image") === "image")
    findings.push({
      severity: "warning",
      subject: "launch",
      message: "An image registered from snapshots is no Windows image to AWS (billing, licence).",
      remedy: 'Set launch.road to "convert".',
    });
  const duties: Duty[] = ["target", ...(kmsKey === undefined ? [] : (["kms"] as const))];
  const launching: Duty[] = machine === undefined ? [] : ["launch", ...roadDuties(launch?.road)];
  const needed = actionsOf([...duties, ...launching]);
  const { missing, unasked } = await probeActions(connection, needed, { signal });
  for (const action of missing) {
    const isForRun = actionsOf(duties).includes(action);
    findings.push({
      severity: isForRun ? "blocker" : "warning",
      subject: action,
      message: `${action} is not allowed to these credentials${isForRun ? "" : "; copying works, launching does not"}.`,
      remedy: "Allow it in the IAM policy; the documentation of this provider holds a whole one.",
    });
  }
  findings.push({
    severity: "info",
    subject: "permissions",
    message: `AWS has no dry run for ${unasked.length} of ${needed.length} actions (EBS direct APIs and KMS among them).`,
  });
  const written: Figure = { value: puts.value * BLOCK_BYTES, kind: puts.kind === "exact" ? "bound" : puts.kind };
  return {
    calls: [
      { operation: "StartSnapshot", count: { value: disks.length, kind: "bound" } },
      { operation: "PutSnapshotBlock", count: puts },
      { operation: "CompleteSnapshot", count: { value: disks.length, kind: "exact" } },
    ],
    costs: [requestCost("PutSnapshotBlock", puts), snapshotStorageCost(written)],
    minutes: minutesAtQuota(puts, DEFAULT_QUOTAS.PutSnapshotBlock),
    privileges: { needed, missing },
    findings,
  };
}

function roadDuties(road: "image" | "convert" | "swap" = "image"): Duty[] {
  return road === "image" ? [] : [road];
}

/** Blocks put for a disk: what is written, and all of it where holes may not be left. */
function blocksPut({ mode, size, write }: PlannedDisk, isEncrypted: boolean): Figure {
  if (mode === "full" && isEncrypted) return { value: wholeGib(size) / BLOCK_BYTES, kind: "exact" };
  return blocksOf(write);
}

/** Whether the account encrypts what is new; undefined where it may not be asked. */
async function encryptsByDefault(connection: AwsConnection, { signal }: Wait): Promise<boolean | undefined> {
  try {
    const about = { object: "the account's default for EBS", signal };
    return (await connection.ec2(new GetEbsEncryptionByDefaultCommand({}), about)).EbsEncryptionByDefault;
  } catch (error) {
    if (isProviderError(error) && error.code === "DENIED") return undefined;
    throw error;
  }
}

async function baseFindings(
  connection: AwsConnection,
  { disk, base, mode }: PlannedDisk,
  isEncrypted: boolean,
  { signal }: Wait,
): Promise<Finding[]> {
  if (base === undefined || mode === "full") return [];
  const { encrypted, kmsKey } = connection.options.target ?? {};
  const remedy = "Run once in mode full.";
  const subject = `disk ${disk}`;
  const found = await findSnapshot(connection, base.id, { signal });
  if (found === undefined)
    return [{ severity: "warning", subject, message: `The last commit ${base.id} is gone: this run copies in full.` }];
  if (found.archived)
    return [
      {
        severity: "blocker",
        subject,
        message: `The last commit ${base.id} is archived.`,
        remedy: `Restore it. ${remedy}`,
      },
    ];
  if (!found.encrypted && isEncrypted) {
    const why =
      encrypted === true || kmsKey !== undefined ? "the options ask for encryption" : "the account encrypts by default";
    const message = `The last commit ${base.id} is not encrypted and ${why}: no snapshot can start from it.`;
    return [{ severity: "blocker", subject, message, remedy }];
  }
  return [];
}

async function pendingFindings(connection: AwsConnection, wanted: number, { signal }: Wait): Promise<Finding[]> {
  const command = new DescribeSnapshotsCommand({
    OwnerIds: ["self"],
    Filters: [{ Name: "status", Values: ["pending"] }],
    MaxResults: 1000,
  });
  let pending: number;
  try {
    pending = (await connection.ec2(command, { object: "this account's snapshots", signal })).Snapshots?.length ?? 0;
  } catch (error) {
    // The probe of this action says it better.
    if (isProviderError(error) && error.code === "DENIED") return [];
    throw error;
  }
  if (pending + wanted <= MOST_PENDING) return [];
  return [
    {
      severity: pending >= MOST_PENDING ? "blocker" : "warning",
      subject: "pending snapshots",
      message: `The account has ${pending} pending snapshots in ${connection.region}, and AWS allows ${MOST_PENDING} that are written by the direct APIs.`,
      remedy: "Wait until some complete, or remove those that nobody completes.",
    },
  ];
}
