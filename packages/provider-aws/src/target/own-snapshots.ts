import { DeleteSnapshotCommand, DescribeSnapshotsCommand, type Filter, type Snapshot } from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagsOf } from "../connection/tags.ts";
import { sleep } from "../limits/clock.ts";

/** A snapshot of this account, as DescribeSnapshots tells. */
export interface OwnSnapshot {
  id: string;
  state: "pending" | "completed" | "error";
  /** Why it is in error. */
  message: string | undefined;
  /** Bytes. */
  size: number;
  encrypted: boolean;
  kmsKey: string | undefined;
  /** Milliseconds since 1970. */
  startedAt: number;
  archived: boolean;
  tags: Record<string, string>;
}

const GIB = 2 ** 30;
/** The most that one page of DescribeSnapshots holds. */
const PAGE = 1000;

/** Bytes rounded up to what a snapshot can have: whole GiB, one at least. */
export function wholeGib(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / GIB)) * GIB;
}

function fromEc2(snapshot: Snapshot): OwnSnapshot {
  const { State } = snapshot;
  return {
    id: snapshot.SnapshotId ?? "",
    state: State === "completed" || State === "error" ? State : "pending",
    message: snapshot.StateMessage,
    size: (snapshot.VolumeSize ?? 0) * GIB,
    encrypted: snapshot.Encrypted === true,
    kmsKey: snapshot.KmsKeyId,
    startedAt: snapshot.StartTime?.getTime() ?? 0,
    archived: snapshot.StorageTier === "archive",
    tags: tagsOf(snapshot.Tags),
  };
}

/** This account's snapshots that carry all of these tags, oldest first. Other accounts' are never listed. */
export async function snapshotsWith(
  connection: AwsConnection,
  tags: Readonly<Record<string, string>>,
  { signal }: Wait = {},
): Promise<OwnSnapshot[]> {
  const Filters: Filter[] = Object.entries(tags).map(([name, value]) => ({ Name: `tag:${name}`, Values: [value] }));
  const found: OwnSnapshot[] = [];
  for (let NextToken: string | undefined; ;) {
    const command = new DescribeSnapshotsCommand({ OwnerIds: ["self"], Filters, MaxResults: PAGE, NextToken });
    const page = await connection.ec2(command, { object: "this account's snapshots", signal });
    for (const snapshot of page.Snapshots ?? []) found.push(fromEc2(snapshot));
    NextToken = page.NextToken;
    if (NextToken === undefined || NextToken === "") break;
  }
  return found.sort((one, other) => one.startedAt - other.startedAt || (one.id < other.id ? -1 : 1));
}

/**
 * One snapshot; undefined when it is not there.
 * `settling`: it was made just now, so AWS is asked again for a while before its absence is believed.
 */
export async function findSnapshot(
  connection: AwsConnection,
  id: string,
  { signal, settling = false }: Wait & { settling?: boolean } = {},
): Promise<OwnSnapshot | undefined> {
  const command = new DescribeSnapshotsCommand({ SnapshotIds: [id] });
  const { visibleMs, pollMs } = connection.settings.timeouts;
  const end = performance.now() + (settling ? visibleMs : 0);
  for (;;) {
    try {
      const { Snapshots = [] } = await connection.ec2(command, { object: id, signal });
      if (Snapshots[0] !== undefined) return fromEc2(Snapshots[0]);
    } catch (error) {
      if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
    }
    if (performance.now() >= end) return undefined;
    await sleep(pollMs, signal);
  }
}

/** Deletes a snapshot; one that is gone already is deleted. @throws ProviderError IN_USE while an image stands on it */
export async function deleteSnapshot(connection: AwsConnection, id: string, { signal }: Wait = {}): Promise<void> {
  try {
    await connection.ec2(new DeleteSnapshotCommand({ SnapshotId: id }), { object: id, signal });
  } catch (error) {
    if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
  }
}
