import { randomUUID } from "node:crypto";
import { CopySnapshotCommand } from "@aws-sdk/client-ec2";
import { type Snapshot, type Wait, isProviderError } from "@diskferry/core/provider";
import { AwsConnection } from "../connection/connection.ts";
import { tagNames, tagValue, toTags } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import { sleep } from "../limits/clock.ts";
import type { AwsOptions } from "../options.ts";
import {
  type SnapshotFacts,
  awaitCompleted,
  awaitListable,
  demandReadable,
  describeSnapshot,
  findSnapshots,
  noVolume,
} from "../source/snapshot-facts.ts";
import { type SnapshotSet, deleteSnapshots, findSets, handleOf } from "../source/snapshot-set.ts";
import { inCopySlot } from "./copy-slots.ts";
import { whileShared } from "./share-snapshot.ts";

/** What to copy, from where to where. */
export interface CopySnapshotRequest extends Wait {
  /** The account and Region that hold the snapshot. */
  from: AwsOptions;
  /** The account and Region it is to be in. */
  to: AwsOptions;
  snapshotId: string;
  /** Idempotence: the same key gives the same copy again. */
  key: string;
  /** The job it belongs to, for clean-up. */
  job?: string | undefined;
  /** A KMS key of the destination, by id, alias or ARN: the copy is encrypted by it. */
  kmsKey?: string | undefined;
  /** Encrypts the copy by the destination's default key. A copy of an encrypted snapshot is encrypted anyway. */
  encrypted?: boolean | undefined;
  /** For people: something slow or unexpected that was handled. */
  notice?: ((message: string) => void) | undefined;
}

/** A copy that is completed and can be read. */
export interface CopiedSnapshot {
  snapshotId: string;
  region: string;
  accountId: string;
  encrypted: boolean;
  kmsKeyId?: string;
  /** The earlier copy of the same volume under the same key, upon which AWS copies only what changed; absent: a full copy. */
  builtOn?: string;
  /** For the source at the destination, which releases it, opens it and tells what changed between two copies. */
  snapshot: Snapshot;
}

/**
 * Copies a snapshot to another Region or account by CopySnapshot, inside AWS: no byte passes through here. AWS copies only
 * what changed where the last copy of the same volume still exists under the same key; with another key it copies in full.
 * At most 20 copies go to one account and Region at once; more wait.
 * @throws ProviderError UNSUPPORTED for a snapshot that cannot be copied or shared; DENIED when KMS refuses the copy, which
 * AWS only finds out after it has begun; nothing is left of a copy that failed
 */
export async function copySnapshot(request: CopySnapshotRequest): Promise<CopiedSnapshot> {
  const { notice, signal, snapshotId } = request;
  const context = notice === undefined ? { signal } : { signal, notice };
  await using from = await AwsConnection.open(request.from, context);
  await using to = await AwsConnection.open(request.to, context);
  const original = await describeSnapshot(from, snapshotId, { signal });
  demandReadable(original);
  const builtOn = await lastCopy(to, original, request);
  const copy = (): Promise<SnapshotFacts> => copied(from, to, original, request);
  const isForeign = original.ownerId !== to.accountId;
  const done =
    isForeign && original.ownerId === from.accountId
      ? await whileShared(from, original, to.accountId, { signal }, copy)
      : await copy();
  const names = tagNames(to.settings.product);
  const set: SnapshotSet = { id: done.tags[names.set] ?? done.id, count: 1, members: [done] };
  return {
    snapshotId: done.id,
    region: to.region,
    accountId: to.accountId,
    encrypted: done.encrypted,
    ...(done.kmsKeyId === undefined ? {} : { kmsKeyId: done.kmsKeyId }),
    ...(builtOn === undefined || builtOn.kmsKeyId !== done.kmsKeyId || builtOn.id === done.id
      ? {}
      : { builtOn: builtOn.id }),
    snapshot: handleOf(to, set, request.key),
  };
}

/** Finds the copy of this key or begins it, and waits until it can be read. */
async function copied(
  from: AwsConnection,
  to: AwsConnection,
  original: SnapshotFacts,
  request: CopySnapshotRequest,
): Promise<SnapshotFacts> {
  const { key, signal } = request;
  const names = tagNames(to.settings.product);
  const filters = { [`tag:${names.key}`]: [tagValue(key)], [`tag:${names.copyOf}`]: [original.id] };
  return inCopySlot(to, { signal }, async () => {
    let id = await begin(to, request, async () => {
      const [found] = await findSets(to, filters, { signal });
      const [member] = found?.members ?? [];
      if (member !== undefined && member.state !== "error") return member.id;
      if (member !== undefined) await deleteSnapshots(to, [member.id], { signal });
      return await ask(from, to, original, request);
    });
    const facts = await awaitCompleted(to, id, { signal });
    // Where the answer to a first call was lost, the earlier copy stays.
    const [first] = (await findSets(to, filters, { signal })).filter(({ members }) => members[0]?.state !== "error");
    const earlier = first?.members[0];
    if (facts.state === "completed" && earlier !== undefined && earlier.id !== id) {
      await deleteSnapshots(to, [id], { signal });
      ({ id } = await awaitCompleted(to, earlier.id, { signal }));
    }
    if (facts.state !== "completed") await failed(to, original, facts, { signal });
    await awaitListable(to, id, { signal });
    return describeSnapshot(to, id, { signal });
  });
}

/** Begins a copy, and waits while AWS has as many under way as it takes. */
async function begin(to: AwsConnection, { signal }: CopySnapshotRequest, run: () => Promise<string>): Promise<string> {
  const { pollMs, snapshotMs } = to.settings.timeouts;
  const end = performance.now() + snapshotMs;
  for (;;) {
    try {
      return await to.patiently(run, { signal });
    } catch (error) {
      const isFull = failureOf(error)?.awsCode === "ResourceLimitExceeded";
      if (!isProviderError(error) || !isFull || performance.now() > end) throw error;
      await sleep(pollMs, signal);
    }
  }
}

async function ask(
  from: AwsConnection,
  to: AwsConnection,
  original: SnapshotFacts,
  request: CopySnapshotRequest,
): Promise<string> {
  const { key, job, kmsKey, encrypted, signal } = request;
  const { product, tags } = to.settings;
  const names = tagNames(product);
  const own: Record<string, string> = {
    ...tags,
    CreatedBy: product,
    Purpose: "Backup",
    [names.key]: tagValue(key),
    [names.set]: randomUUID(),
    [names.count]: "1",
    [names.machine]: original.tags[names.machine] ?? original.volumeId,
    [names.disk]: original.tags[names.disk] ?? original.volumeId,
    [names.copyOf]: original.id,
    [names.copyVolume]: volumeOf(original, names.copyVolume),
    ...(job === undefined ? {} : { [names.job]: tagValue(job) }),
  };
  const isEncrypted = encrypted === true || kmsKey !== undefined;
  const { SnapshotId } = await to.ec2(
    new CopySnapshotCommand({
      SourceRegion: from.region,
      SourceSnapshotId: original.id,
      Description: `${product} copy of ${original.id} in ${from.region}`,
      TagSpecifications: [{ ResourceType: "snapshot", Tags: toTags(own) }],
      ...(isEncrypted ? { Encrypted: true } : {}),
      ...(kmsKey === undefined ? {} : { KmsKeyId: kmsKey }),
    }),
    { object: original.id, once: true, signal },
  );
  return SnapshotId ?? "";
}

/** A copy that AWS took on and could not make: KMS is asked only after CopySnapshot has answered. */
async function failed(to: AwsConnection, original: SnapshotFacts, facts: SnapshotFacts, wait: Wait): Promise<never> {
  await deleteSnapshots(to, [facts.id], wait);
  const why = facts.stateMessage ?? "EC2 says no more";
  const isKey = /key|kms|encrypt/i.test(why);
  throw awsError(
    isKey ? "DENIED" : "UNAVAILABLE",
    `The copy ${facts.id} of ${original.id} into ${to.region} failed after it had begun (${why}), and is removed. ` +
      (isKey
        ? "Let these credentials use both keys: kms:Decrypt and kms:CreateGrant on the one it is encrypted by, kms:GenerateDataKeyWithoutPlaintext on the other."
        : "Run again."),
    { operation: "CopySnapshot" },
  );
}

/** The last copy of the same volume at the destination that AWS can build upon. */
async function lastCopy(
  to: AwsConnection,
  original: SnapshotFacts,
  { signal }: Wait,
): Promise<SnapshotFacts | undefined> {
  const names = tagNames(to.settings.product);
  const volume = volumeOf(original, names.copyVolume);
  if (volume === noVolume) return undefined;
  let last: SnapshotFacts | undefined;
  for await (const each of findSnapshots(
    to,
    { [`tag:${names.copyVolume}`]: [volume], status: ["completed"] },
    { signal },
  ))
    if (!each.archived && each.tags[names.copyOf] !== original.id && each.startedAt >= (last?.startedAt ?? ""))
      last = each;
  return last;
}

/** The volume that a snapshot, or the one it was copied from, is of. */
function volumeOf(facts: SnapshotFacts, tag: string): string {
  return facts.volumeId === noVolume ? (facts.tags[tag] ?? noVolume) : facts.volumeId;
}
