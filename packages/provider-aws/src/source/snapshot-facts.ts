import { DescribeSnapshotsCommand, type Snapshot as Ec2Snapshot } from "@aws-sdk/client-ec2";
import { type Wait, isProviderError } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { listSnapshotBlocks } from "../connection/ebs-block-calls.ts";
import { tagsOf } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import { sleep } from "../limits/clock.ts";

/** Bytes of a GiB, in which AWS counts sizes. */
export const gibi: number = 2 ** 30;

/** Bytes of a block (EBS direct APIs, GetSnapshotBlock: DataLength is 524288). */
export const ebsBlockSize: number = 512 * 1024;

/** What EC2 says of the volume of a snapshot that was copied (EC2 user guide, CopySnapshot). */
export const noVolume = "vol-ffffffff";

/** A snapshot as EC2 describes it. */
export interface SnapshotFacts {
  id: string;
  state: "pending" | "completed" | "error" | "recoverable" | "recovering";
  /** Why it is in `error`. */
  stateMessage?: string;
  /** In words of EC2: `34%`. */
  progress?: string;
  /** `vol-ffffffff` for copies and for snapshots that were written block by block. */
  volumeId: string;
  ownerId: string;
  /** Bytes. */
  size: number;
  /** When the point in time was fixed, ISO 8601. */
  startedAt: string;
  encrypted: boolean;
  kmsKeyId?: string;
  archived: boolean;
  onOutpost: boolean;
  description: string;
  tags: Record<string, string>;
}

/** How many snapshots DescribeSnapshots takes by id at once, to keep requests short. */
const idsAtOnce = 100;

/** One snapshot. @throws ProviderError NOT_FOUND; while `settling`, UNAVAILABLE instead */
export async function describeSnapshot(
  connection: AwsConnection,
  id: string,
  wait: Wait & { settling?: boolean } = {},
): Promise<SnapshotFacts> {
  const { Snapshots = [] } = await connection.ec2(new DescribeSnapshotsCommand({ SnapshotIds: [id] }), {
    object: id,
    ...wait,
  });
  const [found] = Snapshots;
  if (found !== undefined) return factsOf(found);
  throw awsError("NOT_FOUND", `There is no snapshot ${id} in ${connection.region} that these credentials can see.`, {
    operation: "DescribeSnapshots",
  });
}

/** Snapshots of this account that pass the filters, page by page. Those that are gone are left out. */
export async function* findSnapshots(
  connection: AwsConnection,
  filters: Record<string, string[]>,
  wait: Wait = {},
): AsyncGenerator<SnapshotFacts, void> {
  // Without an owner EC2 lists everybody's public snapshots too.
  const Filters = Object.entries(filters).map(([Name, Values]) => ({ Name, Values }));
  let NextToken: string | undefined;
  do {
    const page = await connection.ec2(
      new DescribeSnapshotsCommand({
        OwnerIds: ["self"],
        Filters,
        MaxResults: 1000,
        ...(NextToken === undefined ? {} : { NextToken }),
      }),
      { object: "snapshots", ...wait },
    );
    for (const each of page.Snapshots ?? []) yield factsOf(each);
    NextToken = page.NextToken === "" ? undefined : page.NextToken;
  } while (NextToken !== undefined);
}

/** Those of the snapshots that exist, in no order. */
export async function existing(
  connection: AwsConnection,
  ids: readonly string[],
  wait: Wait = {},
): Promise<SnapshotFacts[]> {
  const found: SnapshotFacts[] = [];
  for (let at = 0; at < ids.length; at += idsAtOnce) {
    const some = ids.slice(at, at + idsAtOnce);
    for await (const each of findSnapshots(connection, { "snapshot-id": some }, wait)) found.push(each);
  }
  return found;
}

/**
 * Refuses a snapshot that the EBS direct APIs do not read, and says what would make it readable.
 * @throws ProviderError UNSUPPORTED or UNAVAILABLE
 */
export function demandReadable(facts: SnapshotFacts): void {
  const { id, state } = facts;
  const refuse = (code: "UNSUPPORTED" | "UNAVAILABLE", why: string): never => {
    throw awsError(code, `Snapshot ${id} cannot be read: ${why}`, { operation: "open", retryable: false });
  };
  if (facts.archived)
    refuse("UNSUPPORTED", "it is archived. Restore it with RestoreSnapshotTier, which takes up to 72 hours.");
  if (facts.onOutpost) refuse("UNSUPPORTED", "it lies on an Outpost. Copy it to the Region first.");
  if (state === "pending")
    refuse("UNAVAILABLE", `it is pending (${facts.progress ?? "0%"}). Wait until EC2 calls it completed.`);
  if (state === "error")
    refuse("UNSUPPORTED", `it failed (${facts.stateMessage ?? "EC2 says no more"}). Take another one.`);
  if (state !== "completed")
    refuse("UNSUPPORTED", "it is in the recycle bin. Restore it with RestoreSnapshotFromRecycleBin.");
}

/**
 * Waits until a snapshot is completed or failed.
 * @throws ProviderError UNAVAILABLE when it takes longer than the option `timeouts.snapshotMs`
 */
export async function awaitCompleted(connection: AwsConnection, id: string, wait: Wait = {}): Promise<SnapshotFacts> {
  const { pollMs, snapshotMs, visibleMs } = connection.settings.timeouts;
  const began = performance.now();
  for (;;) {
    const settling = performance.now() - began < visibleMs;
    const facts = await describeSnapshot(connection, id, { ...wait, settling });
    if (facts.state !== "pending") return facts;
    if (performance.now() - began > snapshotMs)
      throw awsError(
        "UNAVAILABLE",
        `Snapshot ${id} is still pending (${facts.progress ?? "0%"}) after ${Math.round(snapshotMs / 1000)} s. It goes on ` +
          `at AWS: run again later, or raise timeouts.snapshotMs.`,
        { operation: "CreateSnapshots", retryable: false },
      );
    await sleep(pollMs, wait.signal);
  }
}

/**
 * Waits until the EBS direct APIs know a completed snapshot: for a while after EC2 calls it completed they say that it
 * does not exist.
 */
export async function awaitListable(connection: AwsConnection, id: string, wait: Wait = {}): Promise<void> {
  const { pollMs, visibleMs } = connection.settings.timeouts;
  const end = performance.now() + visibleMs;
  for (;;) {
    try {
      await connection.patiently(
        () =>
          connection.direct(listSnapshotBlocks(id, { pageSize: 100 }), {
            object: id,
            snapshotId: id,
            ...wait,
          }),
        wait,
      );
      return;
    } catch (error) {
      const unknown = isProviderError(error) && failureOf(error)?.awsCode === "ResourceNotFoundException";
      if (!unknown || performance.now() > end) throw error;
    }
    await sleep(Math.min(pollMs, 2000), wait.signal);
  }
}

function factsOf(snapshot: Ec2Snapshot): SnapshotFacts {
  return {
    id: snapshot.SnapshotId ?? "",
    state: snapshot.State ?? "pending",
    ...(snapshot.StateMessage === undefined ? {} : { stateMessage: snapshot.StateMessage }),
    ...(snapshot.Progress === undefined ? {} : { progress: snapshot.Progress }),
    volumeId: snapshot.VolumeId ?? noVolume,
    ownerId: snapshot.OwnerId ?? "",
    size: (snapshot.VolumeSize ?? 0) * gibi,
    startedAt: (snapshot.StartTime ?? new Date(0)).toISOString(),
    encrypted: snapshot.Encrypted === true,
    ...(snapshot.KmsKeyId === undefined ? {} : { kmsKeyId: snapshot.KmsKeyId }),
    archived: snapshot.StorageTier === "archive",
    onOutpost: snapshot.OutpostArn !== undefined && snapshot.OutpostArn !== "",
    description: snapshot.Description ?? "",
    tags: tagsOf(snapshot.Tags),
  };
}
