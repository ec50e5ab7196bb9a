import type { IncomingHttpHeaders } from "node:http";
import { AwsError, invalid } from "./aws-error.ts";
import type { Snapshot, SnapshotUpload } from "./resources.ts";
import type { Caller } from "./signature.ts";
import type { World } from "./world.ts";

/** One request as the EBS direct operations see it. */
export interface EbsRequest {
  url: URL;
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** SHA-256 of the body in base64. */
  bodyDigest: string;
  caller: Caller;
}

/** The snapshot named, if the caller may see it. @throws AwsError */
export function findSnapshot(world: World, id: string, caller: Caller): Snapshot {
  if (!/^snap-[0-9a-f]{1,59}$/.test(id)) throw invalid("INVALID_SNAPSHOT_ID", `Invalid snapshot id: ${id}`);
  const snapshot = world.snapshots.get(id);
  if (snapshot === undefined || snapshot.region !== caller.region) throw notFound(id);
  if (snapshot.accountId !== caller.accountId && !snapshot.sharedWith.has(caller.accountId)) {
    if (snapshot.sharedWith.has("all"))
      throw invalid("INVALID_SNAPSHOT_ID", `The snapshot ${id} is public; public snapshots are not supported.`);
    throw new AwsError(403, "AccessDeniedException", `The account may not access ${id}.`, "UNAUTHORIZED_ACCOUNT");
  }
  return snapshot;
}

/** A completed snapshot that the list calls know. @throws AwsError */
export function readableSnapshot(world: World, id: string, caller: Caller): Snapshot {
  const snapshot = findSnapshot(world, id, caller);
  if (snapshot.tier === "archive")
    throw invalid("INVALID_SNAPSHOT_ID", `You can't use EBS direct APIs with archived snapshots: ${id}`);
  if (world.stateOf(snapshot) !== "completed")
    throw invalid("INVALID_SNAPSHOT_ID", `The snapshot ${id} is not in the completed state.`);
  if (world.now() < (snapshot.completesAt ?? 0) + world.delays.listableMs) throw notFound(id);
  useKey(world, snapshot);
  return snapshot;
}

/** A pending snapshot of the caller's own. @throws AwsError */
export function writableSnapshot(world: World, id: string, caller: Caller): Snapshot & { upload: SnapshotUpload } {
  const snapshot = findSnapshot(world, id, caller);
  if (snapshot.accountId !== caller.accountId)
    throw new AwsError(403, "AccessDeniedException", `The account may not write ${id}.`, "UNAUTHORIZED_ACCOUNT");
  const { upload } = snapshot;
  if (upload !== undefined && world.now() < upload.visibleAt) throw notFound(id);
  if (upload === undefined || snapshot.completesAt !== undefined || world.stateOf(snapshot) !== "pending")
    throw invalid("INVALID_SNAPSHOT_ID", `The snapshot ${id} is not in the pending state.`);
  return { ...snapshot, upload };
}

/** @throws AwsError when KMS refuses the key of something encrypted. */
export function useKey(world: World, thing: { encrypted: boolean; kmsKeyId?: string }): void {
  if (thing.encrypted && world.deniedKeys.has(thing.kmsKeyId ?? ""))
    throw new AwsError(
      403,
      "AccessDeniedException",
      `KMS refused the key ${thing.kmsKeyId}.`,
      "DEPENDENCY_ACCESS_DENIED",
    );
}

/** The error for a snapshot that is not there, or not yet. */
export function notFound(id: string): AwsError {
  return new AwsError(404, "ResourceNotFoundException", `The snapshot '${id}' does not exist.`, "SNAPSHOT_NOT_FOUND");
}

/** A whole number from a query, a header or JSON. @throws AwsError */
export function integer(
  value: unknown,
  name: string,
  min: number,
  max: number,
  reason = "INVALID_PARAMETER_VALUE",
): number {
  const number = typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : value;
  if (typeof number !== "number" || !Number.isInteger(number) || number < min || number > max)
    throw invalid(reason, `${name} has to be a whole number from ${min} to ${max}.`);
  return number;
}

/** The highest index that the service model allows. */
export const highestIndex = 2147483647;
