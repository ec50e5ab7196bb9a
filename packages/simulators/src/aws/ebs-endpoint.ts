import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { jsonAnswer, type Answer } from "./answer.ts";
import { AwsError, invalid } from "./aws-error.ts";
import { blockSize, digestOf, type StoredBlock } from "./block-pool.ts";
import { blockTokenMs, openToken, pageTokenMs, sealToken } from "./ebs-tokens.ts";
import type { Caller } from "./signature.ts";
import type { Snapshot, Tags } from "./resources.ts";
import { blocksPerGib, type World } from "./world.ts";

/** One request as the EBS direct operations see it. */
export interface EbsRequest {
  method: string;
  url: URL;
  headers: IncomingHttpHeaders;
  body: Buffer;
  caller: Caller;
}

/** The operation a path and method name, its snapshot and its block index. */
export interface EbsRoute {
  operation: string;
  snapshotId?: string;
  index?: string;
}

/** Finds the operation of a request; undefined when there is none. */
export function ebsRoute(method: string, path: string): EbsRoute | undefined {
  const parts = path.split("/").slice(1).map(decodeURIComponent);
  const [first, id = "", third, index] = parts;
  if (first !== "snapshots") return undefined;
  if (parts.length === 1 && method === "POST") return { operation: "StartSnapshot" };
  if (id === "completion" && parts.length === 3 && method === "POST")
    return { operation: "CompleteSnapshot", snapshotId: third ?? "" };
  if (parts.length === 3 && method === "GET") {
    if (third === "blocks") return { operation: "ListSnapshotBlocks", snapshotId: id };
    if (third === "changedblocks") return { operation: "ListChangedBlocks", snapshotId: id };
  }
  if (parts.length === 4 && third === "blocks" && index !== undefined) {
    if (method === "GET") return { operation: "GetSnapshotBlock", snapshotId: id, index };
    if (method === "PUT") return { operation: "PutSnapshotBlock", snapshotId: id, index };
  }
  return undefined;
}

/** Snapshots that may be pending at once in an account and Region (Service Quotas L-94D7AB7D). */
const pendingLimit = 100;

interface Entry {
  index: number;
  first?: StoredBlock;
  second?: StoredBlock;
}

/** The six operations of the EBS direct APIs over the blocks of a world. */
export class EbsEndpoint {
  readonly #world: World;
  readonly #emptyPageEvery: number;
  readonly #overReportEvery: number;
  readonly #strictTokens: boolean;
  readonly #started = new Map<string, { request: string; snapshotId: string }>();
  #pages = 0;

  constructor(world: World, options: { emptyPageEvery: number; overReportEvery: number; strictTokens: boolean }) {
    this.#world = world;
    this.#emptyPageEvery = options.emptyPageEvery;
    this.#overReportEvery = options.overReportEvery;
    this.#strictTokens = options.strictTokens;
  }

  /** Answers one routed request. @throws AwsError */
  async answer(route: EbsRoute, request: EbsRequest): Promise<Answer> {
    const { accountId, region } = request.caller;
    const resource = `arn:aws:ec2:${region}::snapshot/${route.snapshotId ?? "*"}`;
    this.#world.authorize(accountId, `ebs:${route.operation}`, resource);
    switch (route.operation) {
      case "StartSnapshot":
        return this.#start(request);
      case "PutSnapshotBlock":
        return this.#put(route, request);
      case "CompleteSnapshot":
        return this.#complete(route, request);
      case "GetSnapshotBlock":
        return this.#get(route, request);
      case "ListSnapshotBlocks":
        return this.#list(route, request);
      default:
        return this.#listChanged(route, request);
    }
  }

  /** The snapshot named, if the caller may see it. */
  #find(id: string, caller: Caller): Snapshot {
    if (!/^snap-[0-9a-f]{1,59}$/.test(id)) throw invalid("INVALID_SNAPSHOT_ID", `Invalid snapshot id: ${id}`);
    const snapshot = this.#world.snapshots.get(id);
    if (snapshot === undefined || snapshot.region !== caller.region) throw notFound(id);
    if (snapshot.accountId !== caller.accountId) {
      if (snapshot.sharedWith.has("all") && !snapshot.sharedWith.has(caller.accountId))
        throw invalid("INVALID_SNAPSHOT_ID", `The snapshot ${id} is public; public snapshots are not supported.`);
      if (!snapshot.sharedWith.has(caller.accountId))
        throw new AwsError(403, "AccessDeniedException", `The account may not access ${id}.`, "UNAUTHORIZED_ACCOUNT");
    }
    return snapshot;
  }

  #readable(id: string, caller: Caller): Snapshot {
    const snapshot = this.#find(id, caller);
    if (snapshot.tier === "archive")
      throw invalid("INVALID_SNAPSHOT_ID", `You can't use EBS direct APIs with archived snapshots: ${id}`);
    if (this.#world.stateOf(snapshot) !== "completed")
      throw invalid("INVALID_SNAPSHOT_ID", `The snapshot ${id} is not in the completed state.`);
    if (this.#world.now() < (snapshot.completesAt ?? 0) + this.#world.delays.listableMs) throw notFound(id);
    this.#useKey(snapshot);
    return snapshot;
  }

  #writable(id: string, caller: Caller): Snapshot & { upload: NonNullable<Snapshot["upload"]> } {
    const snapshot = this.#find(id, caller);
    if (snapshot.accountId !== caller.accountId)
      throw new AwsError(403, "AccessDeniedException", `The account may not write ${id}.`, "UNAUTHORIZED_ACCOUNT");
    const { upload } = snapshot;
    if (upload !== undefined && this.#world.now() < upload.visibleAt) throw notFound(id);
    if (upload === undefined || snapshot.completesAt !== undefined || this.#world.stateOf(snapshot) !== "pending")
      throw invalid("INVALID_SNAPSHOT_ID", `The snapshot ${id} is not in the pending state.`);
    return { ...snapshot, upload };
  }

  #useKey(snapshot: { encrypted: boolean; kmsKeyId?: string }): void {
    if (snapshot.encrypted && this.#world.deniedKeys.has(snapshot.kmsKeyId ?? ""))
      throw new AwsError(
        403,
        "AccessDeniedException",
        `KMS refused the key ${snapshot.kmsKeyId}.`,
        "DEPENDENCY_ACCESS_DENIED",
      );
  }

  #start({ body, caller }: EbsRequest): Answer {
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
      return jsonAnswer(201, this.#describeStart(snapshot));
    }
    if (parentId !== undefined && input["Encrypted"] !== undefined)
      throw invalid("INVALID_PARAMETER_VALUE", "Encrypted and ParentSnapshotId cannot be specified together.");
    if (keyGiven !== undefined && (parentId !== undefined || input["Encrypted"] !== true))
      throw invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted to be true.");
    const parent = parentId === undefined ? undefined : this.#find(parentId, caller);
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
    this.#useKey({ encrypted, ...(kmsKeyId === undefined ? {} : { kmsKeyId }) });
    const pending = [...world.snapshots.values()].filter(
      (each) => each.accountId === accountId && each.region === region && world.stateOf(each) === "pending",
    );
    if (pending.length >= pendingLimit)
      throw new AwsError(400, "ConcurrentLimitExceededException", `The account has ${pendingLimit} pending snapshots.`);
    const now = world.now();
    const id = world.newId("snap");
    const noiseKey = parent === undefined ? (encrypted ? id : undefined) : parent.noiseKey;
    const snapshot: Snapshot = {
      id,
      accountId,
      region,
      tags,
      sizeGib: size,
      blocks: new Map(parent?.blocks),
      description,
      encrypted,
      volumeId: "vol-ffffffff",
      lineage: parent?.lineage ?? id,
      startedAt: now,
      upload: {
        timeoutMs: timeout * 60_000,
        touchedAt: now,
        written: new Set(),
        busy: new Set(),
        visibleAt: now + world.delays.startVisibleMs,
      },
      tier: "standard",
      sharedWith: new Set(),
      generation: 0,
      ...(parent === undefined ? {} : { parentId: parent.id }),
      ...(kmsKeyId === undefined ? {} : { kmsKeyId }),
      ...(noiseKey === undefined ? {} : { noiseKey }),
    };
    world.snapshots.set(id, snapshot);
    if (token !== undefined) this.#started.set(tokenKey, { request: fingerprint, snapshotId: id });
    return jsonAnswer(201, this.#describeStart(snapshot));
  }

  #describeStart(snapshot: Snapshot): unknown {
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

  async #put(route: EbsRoute, { headers, body, caller }: EbsRequest): Promise<Answer> {
    const snapshot = this.#writable(route.snapshotId ?? "", caller);
    const index = integer(route.index, "BlockIndex", 0, 2147483647, "INVALID_BLOCK");
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
    const digest = digestOf(body);
    if (headers["x-amz-checksum"] !== digest)
      throw invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the data.");
    const { upload } = snapshot;
    if (upload.busy.has(index))
      throw invalid("CONFLICTING_BLOCK_UPDATE", `Block ${index} is being written by another request.`);
    upload.busy.add(index);
    try {
      snapshot.blocks.set(index, await this.#world.pool.store(body, digest));
      upload.written.add(index);
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

  async #complete(route: EbsRoute, { headers, caller }: EbsRequest): Promise<Answer> {
    const world = this.#world;
    const id = route.snapshotId ?? "";
    const { upload, blocks } = this.#writable(id, caller);
    const count = integer(headers["x-amz-changedblockscount"], "ChangedBlocksCount", 0, 2147483647);
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
      for (const index of [...upload.written].sort((a, b) => a - b))
        sum.update(Buffer.from(blocks.get(index)?.digest ?? "", "base64"));
      if (sum.digest("base64") !== checksum)
        throw invalid("INVALID_PARAMETER_VALUE", "The aggregated checksum does not match the blocks written.");
    }
    const snapshot = world.snapshots.get(id);
    if (snapshot === undefined) throw notFound(id);
    snapshot.completesAt = world.now() + world.delays.completeMs;
    return jsonAnswer(202, { Status: "pending" });
  }

  async #get(route: EbsRoute, { url, caller }: EbsRequest): Promise<Answer> {
    const snapshot = this.#readable(route.snapshotId ?? "", caller);
    const index = integer(route.index, "BlockIndex", 0, 2147483647, "INVALID_BLOCK");
    const token = url.searchParams.get("blockToken") ?? "";
    const generation = openToken(
      this.#world.secret,
      `block ${snapshot.id} ${index}`,
      token,
      this.#world.now(),
      "INVALID_BLOCK_TOKEN",
    );
    const block = snapshot.blocks.get(index);
    const stale = this.#strictTokens && Number(generation) !== snapshot.generation;
    if (block === undefined || stale)
      throw invalid("INVALID_BLOCK_TOKEN", "The block token is not valid for this request.");
    const bytes = await this.#world.pool.read(block);
    block.digest ??= digestOf(bytes);
    return {
      status: 200,
      headers: {
        "content-type": "application/octet-stream",
        "x-amz-data-length": String(blockSize),
        "x-amz-checksum": block.digest,
        "x-amz-checksum-algorithm": "SHA256",
      },
      body: bytes,
    };
  }

  #list(route: EbsRoute, { url, caller }: EbsRequest): Answer {
    const snapshot = this.#readable(route.snapshotId ?? "", caller);
    const entries = sorted(snapshot.blocks.keys()).map((index): Entry =>
      entry(index, undefined, snapshot.blocks.get(index)),
    );
    const page = this.#page(`list ${snapshot.id}`, url, entries, snapshot);
    return jsonAnswer(200, {
      Blocks: page.entries.map(({ index }) => ({ BlockIndex: index, BlockToken: this.#token(snapshot, index) })),
      ...this.#listTail(page.nextToken, snapshot.sizeGib),
    });
  }

  #listChanged(route: EbsRoute, { url, caller }: EbsRequest): Answer {
    const second = this.#readable(route.snapshotId ?? "", caller);
    const firstId = url.searchParams.get("firstSnapshotId");
    if (firstId === null) throw invalid("INVALID_SNAPSHOT_ID", "FirstSnapshotId must be specified.");
    const first = this.#readable(firstId, caller);
    if (first.lineage !== second.lineage)
      throw invalid("UNRELATED_SNAPSHOTS", `${first.id} and ${second.id} are not related`);
    const entries: Entry[] = [];
    for (const index of sorted(new Set([...first.blocks.keys(), ...second.blocks.keys()]))) {
      const [before, after] = [first.blocks.get(index), second.blocks.get(index)];
      const reported = this.#overReportEvery > 0 && index % this.#overReportEvery === 0;
      if (before !== after || reported) entries.push(entry(index, before, after));
    }
    const page = this.#page(`changed ${first.id} ${second.id}`, url, entries, second);
    return jsonAnswer(200, {
      ChangedBlocks: page.entries.map((each) => ({
        BlockIndex: each.index,
        ...(each.first === undefined ? {} : { FirstBlockToken: this.#token(first, each.index) }),
        ...(each.second === undefined ? {} : { SecondBlockToken: this.#token(second, each.index) }),
      })),
      ...this.#listTail(page.nextToken, second.sizeGib),
    });
  }

  #listTail(nextToken: string | undefined, sizeGib: number): Record<string, unknown> {
    const ExpiryTime = (this.#world.now() + blockTokenMs) / 1000;
    return {
      ExpiryTime,
      VolumeSize: sizeGib,
      BlockSize: blockSize,
      ...(nextToken === undefined ? {} : { NextToken: nextToken }),
    };
  }

  #token(snapshot: Snapshot, index: number): string {
    const { secret } = this.#world;
    return sealToken(
      secret,
      `block ${snapshot.id} ${index}`,
      String(snapshot.generation),
      this.#world.now() + blockTokenMs,
    );
  }

  #page(subject: string, url: URL, entries: Entry[], snapshot: Snapshot): { entries: Entry[]; nextToken?: string } {
    const { secret } = this.#world;
    const now = this.#world.now();
    const query = url.searchParams;
    // Fewer than 100 counts as 100 (EC2 user guide, EBS direct APIs FAQ).
    const size = Math.max(100, integer(query.get("maxResults") ?? "100", "MaxResults", 1, 10_000));
    let from = integer(query.get("startingBlockIndex") ?? "0", "StartingBlockIndex", 0, 2147483647, "INVALID_BLOCK");
    const token = query.get("pageToken");
    if (token === null) snapshot.generation++;
    else from = Number(openToken(secret, subject, token, now, "INVALID_PAGE_TOKEN"));
    const rest = entries.filter(({ index }) => index >= from);
    this.#pages++;
    const empty = this.#emptyPageEvery > 0 && this.#pages % this.#emptyPageEvery === 0 && rest.length > 0;
    const taken = empty ? [] : rest.slice(0, size);
    const next = rest[taken.length];
    if (next === undefined) return { entries: taken };
    return { entries: taken, nextToken: sealToken(secret, subject, String(next.index), now + pageTokenMs) };
  }
}

function entry(index: number, first: StoredBlock | undefined, second: StoredBlock | undefined): Entry {
  return { index, ...(first === undefined ? {} : { first }), ...(second === undefined ? {} : { second }) };
}

const sorted = (indices: Iterable<number>): number[] => [...indices].sort((a, b) => a - b);

function notFound(id: string): AwsError {
  return new AwsError(404, "ResourceNotFoundException", `The snapshot '${id}' does not exist.`, "SNAPSHOT_NOT_FOUND");
}

function parseJson(body: Buffer): Record<string, unknown> {
  try {
    return JSON.parse(body.toString() || "{}") as Record<string, unknown>;
  } catch {
    throw new AwsError(400, "SerializationException", "The body is not JSON.");
  }
}

function integer(value: unknown, name: string, min: number, max: number, reason = "INVALID_PARAMETER_VALUE"): number {
  const number = typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : value;
  if (typeof number !== "number" || !Number.isInteger(number) || number < min || number > max)
    throw invalid(reason, `${name} has to be a whole number from ${min} to ${max}.`);
  return number;
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
