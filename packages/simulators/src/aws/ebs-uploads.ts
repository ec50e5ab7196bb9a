import { createHash } from "node:crypto";
import { jsonAnswer, type Answer } from "./answer.ts";
import { AwsError, invalid } from "./aws-error.ts";
import { blockSize } from "./block-pool.ts";
import { BlockTable } from "./block-table.ts";
import {
  findSnapshot,
  highestIndex,
  integer,
  notFound,
  useKey,
  writableSnapshot,
  type EbsRequest,
} from "./ebs-access.ts";
import type { Snapshot, Tags } from "./resources.ts";
import { blocksPerGib, type World } from "./world.ts";

/** Snapshots that may be pending at once in an account and Region (Service Quotas L-94D7AB7D). */
const pendingLimit = 100;

/** StartSnapshot, PutSnapshotBlock and CompleteSnapshot. */
export class EbsUploads {
  readonly #world: World;
  readonly #keepBytes: boolean;
  readonly #started = new Map<string, { request: string; snapshotId: string }>();

  /** Without `keepBytes` only the digests of what is put are kept, and reading it back gives zeros. */
  constructor(world: World, keepBytes: boolean) {
    this.#world = world;
    this.#keepBytes = keepBytes;
  }

  /** @throws AwsError */
  start({ body, caller }: EbsRequest): Answer {
    const world = this.#world;
    const { accountId, region } = caller;
    const input = parseJson(body);
    const size = integer(input["VolumeSize"], "VolumeSize", 1, 65536, "INVALID_VOLUME_SIZE");
    const timeout = input["Timeout"] === undefined ? 60 : integer(input["Timeout"], "Timeout", 10, 4320);
    const token = text(input["ClientToken"], "ClientToken", 255);
    const description = text(input["Description"], "Description", 255) ?? "";
    const tags = tagsOf(input["Tags"]);
    const parentId = text(input["ParentSnapshotId"], "ParentSnapshotId", 64);
    const keyGiven = text(input["KmsKeyArn"], "KmsKeyArn", 2048);
    const { ClientToken: _, ...rest } = input;
    const fingerprint = JSON.stringify(Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1)));
    const tokenKey = `${accountId}/${region}/${token}`;
    const earlier = token === undefined ? undefined : this.#started.get(tokenKey);
    if (earlier !== undefined) {
      const snapshot = world.snapshots.get(earlier.snapshotId);
      if (earlier.request !== fingerprint || snapshot === undefined)
        throw new AwsError(409, "ConflictException", "The client token was used with other parameters.");
      return jsonAnswer(201, this.#describe(snapshot));
    }
    if (parentId !== undefined && input["Encrypted"] !== undefined)
      throw invalid("INVALID_PARAMETER_VALUE", "Encrypted and ParentSnapshotId cannot be specified together.");
    if (keyGiven !== undefined && (parentId !== undefined || input["Encrypted"] !== true))
      throw invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted to be true.");
    const parent = parentId === undefined ? undefined : findSnapshot(world, parentId, caller);
    if (parent !== undefined) {
      if (world.stateOf(parent) !== "completed" || parent.tier === "archive" || parent.accountId !== accountId)
        throw invalid("INVALID_SNAPSHOT_ID", `The parent ${parent.id} is not a completed snapshot of this account.`);
      if (size < parent.sizeGib)
        throw invalid("INVALID_VOLUME_SIZE", `VolumeSize must be at least the ${parent.sizeGib} GiB of the parent.`);
    }
    const byDefault = world.encryptedByDefault.has(`${accountId}/${region}`);
    if (byDefault && parent?.encrypted === false)
      throw invalid("INVALID_PARAMETER_VALUE", "Encryption by default: the parent snapshot has to be encrypted.");
    const encrypted = parent?.encrypted ?? (input["Encrypted"] === true || byDefault);
    const kmsKeyId = encrypted ? (parent?.kmsKeyId ?? keyGiven ?? world.defaultKey(accountId, region)) : undefined;
    useKey(world, { encrypted, ...(kmsKeyId === undefined ? {} : { kmsKeyId }) });
    const pending = [...world.snapshots.values()].filter(
      (each) => each.accountId === accountId && each.region === region && world.stateOf(each) === "pending",
    );
    if (pending.length >= pendingLimit)
      throw new AwsError(400, "ConcurrentLimitExceededException", `The account has ${pendingLimit} pending snapshots.`);
    const now = world.now();
    const id = world.newId("snap");
    const noiseKey = parent === undefined ? (encrypted ? id : undefined) : parent.noiseKey;
    const visibleAt = now + world.delays.startVisibleMs;
    const snapshot: Snapshot = {
      id,
      accountId,
      region,
      tags,
      sizeGib: size,
      blocks: parent?.blocks.copy() ?? new BlockTable(),
      description,
      encrypted,
      volumeId: "vol-ffffffff",
      lineage: parent?.lineage ?? id,
      startedAt: now,
      upload: { timeoutMs: timeout * 60_000, touchedAt: now, written: new Map(), busy: new Set(), visibleAt },
      tier: "standard",
      sharedWith: new Set(),
      generation: 0,
      ...(parent === undefined ? {} : { parentId: parent.id }),
      ...(kmsKeyId === undefined ? {} : { kmsKeyId }),
      ...(noiseKey === undefined ? {} : { noiseKey }),
    };
    world.snapshots.set(id, snapshot);
    if (token !== undefined) this.#started.set(tokenKey, { request: fingerprint, snapshotId: id });
    const answer = jsonAnswer(201, this.#describe(snapshot));
    // Found out only after the answer, as KMS is.
    const failure = world.startFailures.shift();
    if (failure !== undefined) Object.assign(snapshot, { failure, completesAt: now });
    return answer;
  }

  #describe(snapshot: Snapshot): unknown {
    return {
      SnapshotId: snapshot.id,
      OwnerId: snapshot.accountId,
      Status: this.#world.stateOf(snapshot),
      StartTime: snapshot.startedAt / 1000,
      VolumeSize: snapshot.sizeGib,
      BlockSize: blockSize,
      Description: snapshot.description,
      Tags: Object.entries(snapshot.tags).map(([Key, Value]) => ({ Key, Value })),
      ParentSnapshotId: snapshot.parentId,
      KmsKeyArn: snapshot.kmsKeyId,
      SseType: snapshot.encrypted ? "sse-kms" : "none",
    };
  }

  /** @throws AwsError */
  async put(id: string, block: string, { headers, body, bodyDigest: digest, caller }: EbsRequest): Promise<Answer> {
    const snapshot = writableSnapshot(this.#world, id, caller);
    const index = integer(block, "BlockIndex", 0, highestIndex, "INVALID_BLOCK");
    if (index >= snapshot.sizeGib * blocksPerGib)
      throw invalid("INVALID_BLOCK", `Block ${index} lies beyond the snapshot's ${snapshot.sizeGib} GiB.`);
    if (headers["content-encoding"] !== undefined)
      throw invalid("INVALID_CONTENT_ENCODING", "Content-Encoding is not supported.");
    const length = integer(headers["x-amz-data-length"], "DataLength", blockSize, blockSize);
    if (body.length !== length)
      throw invalid("INVALID_PARAMETER_VALUE", `The body has ${body.length} bytes, not the ${length} of DataLength.`);
    if (headers["x-amz-progress"] !== undefined) integer(headers["x-amz-progress"], "Progress", 0, 100);
    if (headers["x-amz-checksum-algorithm"] !== "SHA256")
      throw invalid("INVALID_PARAMETER_VALUE", "ChecksumAlgorithm has to be SHA256.");
    if (headers["x-amz-checksum"] !== digest)
      throw invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the data.");
    const { upload } = snapshot;
    if (upload.busy.has(index))
      throw invalid("CONFLICTING_BLOCK_UPDATE", `Block ${index} is being written by another request.`);
    upload.busy.add(index);
    try {
      if (this.#keepBytes) snapshot.blocks.set(index, await this.#world.pool.store(body, digest));
      upload.written.set(index, digest);
      upload.touchedAt = this.#world.now();
    } finally {
      upload.busy.delete(index);
    }
    const answer = jsonAnswer(201, {});
    return {
      ...answer,
      headers: { ...answer.headers, "x-amz-checksum": digest, "x-amz-checksum-algorithm": "SHA256" },
    };
  }

  /** @throws AwsError */
  complete(id: string, { headers, caller }: EbsRequest): Answer {
    const world = this.#world;
    const { upload } = writableSnapshot(world, id, caller);
    const count = integer(headers["x-amz-changedblockscount"], "ChangedBlocksCount", 0, highestIndex);
    if (upload.busy.size > 0)
      throw invalid("CONFLICTING_BLOCK_UPDATE", "Blocks of the snapshot are still being written.");
    if (count !== upload.written.size)
      throw invalid(
        "INVALID_PARAMETER_VALUE",
        `ChangedBlocksCount is ${count}; ${upload.written.size} blocks were written.`,
      );
    const checksum = headers["x-amz-checksum"];
    if (checksum !== undefined) {
      const method = headers["x-amz-checksum-aggregation-method"];
      if (method !== "LINEAR" || headers["x-amz-checksum-algorithm"] !== "SHA256")
        throw invalid("INVALID_PARAMETER_VALUE", "A checksum needs SHA256 and the aggregation method LINEAR.");
      const sum = createHash("sha256");
      for (const [, digest] of [...upload.written].sort(([a], [b]) => a - b)) sum.update(Buffer.from(digest, "base64"));
      if (sum.digest("base64") !== checksum)
        throw invalid("INVALID_PARAMETER_VALUE", "The aggregated checksum does not match the blocks written.");
    }
    const snapshot = world.snapshots.get(id);
    if (snapshot === undefined) throw notFound(id);
    snapshot.completesAt = world.now() + world.delays.completeMs;
    return jsonAnswer(202, { Status: "pending" });
  }
}

function parseJson(body: Buffer): Record<string, unknown> {
  try {
    return JSON.parse(body.toString() || "{}") as Record<string, unknown>;
  } catch {
    throw new AwsError(400, "SerializationException", "The body is not JSON.");
  }
}

function text(value: unknown, name: string, longest: number): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string" || value.length > longest)
    throw invalid("INVALID_PARAMETER_VALUE", `${name} has to be a text of at most ${longest} characters.`);
  return value;
}

function tagsOf(value: unknown): Tags {
  const tags: Tags = {};
  if (value === undefined || value === null) return tags;
  if (!Array.isArray(value) || value.length > 50) throw invalid("INVALID_TAG", "At most 50 tags are allowed.");
  for (const each of value as { Key?: unknown; Value?: unknown }[]) {
    const key = text(each.Key, "a tag's key", 127);
    if (key === undefined || key.startsWith("aws:")) throw invalid("INVALID_TAG", `The tag ${key} is not allowed.`);
    tags[key] = text(each.Value, "a tag's value", 255) ?? "";
  }
  return tags;
}
