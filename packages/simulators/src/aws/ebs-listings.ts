import { jsonAnswer, type Answer } from "./answer.ts";
import { invalid } from "./aws-error.ts";
import { blockSize } from "./block-pool.ts";
import { BlockTable } from "./block-table.ts";
import { highestIndex, integer, readableSnapshot, type EbsRequest } from "./ebs-access.ts";
import {
  blockTokenKey,
  blockTokenMs,
  openBlockToken,
  openToken,
  pageTokenMs,
  sealBlockToken,
  sealToken,
} from "./ebs-tokens.ts";
import type { Snapshot } from "./resources.ts";
import type { World } from "./world.ts";

/** How listings may differ from the plainest ones. */
export interface ListingOptions {
  /** Each n-th page is empty with a next token; 0 for none. */
  emptyPageEvery: number;
  /** Unchanged blocks whose index divides by this are reported as changed too; 0 for none. */
  overReportEvery: number;
  /** A new listing makes the block tokens of earlier listings of the snapshot invalid. */
  strictTokens: boolean;
}

/** ListSnapshotBlocks, ListChangedBlocks and GetSnapshotBlock. */
export class EbsListings {
  readonly #world: World;
  readonly #options: ListingOptions;
  #pages = 0;

  constructor(world: World, options: ListingOptions) {
    this.#world = world;
    this.#options = options;
  }

  /** @throws AwsError */
  blocks(id: string, { url, caller }: EbsRequest): Answer {
    const snapshot = readableSnapshot(this.#world, id, caller);
    const page = this.#page(`list ${snapshot.id}`, url, [snapshot], (from) => snapshot.blocks.indices(from));
    return jsonAnswer(200, {
      Blocks: page.indices.map((index) => ({ BlockIndex: index, BlockToken: page.token(snapshot, index) })),
      ...this.#tail(page.nextToken, snapshot.sizeGib),
    });
  }

  /** @throws AwsError */
  changes(id: string, { url, caller }: EbsRequest): Answer {
    const second = readableSnapshot(this.#world, id, caller);
    const firstId = url.searchParams.get("firstSnapshotId");
    if (firstId === null) throw invalid("INVALID_SNAPSHOT_ID", "FirstSnapshotId must be specified.");
    const first = readableSnapshot(this.#world, firstId, caller);
    if (first.lineage !== second.lineage)
      throw invalid("UNRELATED_SNAPSHOTS", `${first.id} and ${second.id} are not related`);
    const every = this.#options.overReportEvery;
    const page = this.#page(`changed ${first.id} ${second.id}`, url, [first, second], (from) =>
      BlockTable.differences(first.blocks, second.blocks, from, every),
    );
    return jsonAnswer(200, {
      ChangedBlocks: page.indices.map((index) => ({
        BlockIndex: index,
        ...(first.blocks.get(index) === undefined ? {} : { FirstBlockToken: page.token(first, index) }),
        ...(second.blocks.get(index) === undefined ? {} : { SecondBlockToken: page.token(second, index) }),
      })),
      ...this.#tail(page.nextToken, second.sizeGib),
    });
  }

  /** @throws AwsError */
  async block(id: string, block: string, { url, caller }: EbsRequest): Promise<Answer> {
    const snapshot = readableSnapshot(this.#world, id, caller);
    const index = integer(block, "BlockIndex", 0, highestIndex, "INVALID_BLOCK");
    const token = url.searchParams.get("blockToken") ?? "";
    const generation = openBlockToken(blockTokenKey(this.#world.secret, snapshot.id), index, token, this.#world.now());
    const stored = snapshot.blocks.get(index);
    const stale = this.#options.strictTokens && generation !== snapshot.generation;
    if (stored === undefined || stale)
      throw invalid("INVALID_BLOCK_TOKEN", "The block token is not valid for this request.");
    const { pieces, digest } = await this.#world.pool.sendable(stored);
    return {
      status: 200,
      headers: {
        "content-type": "application/octet-stream",
        "x-amz-data-length": String(blockSize),
        "x-amz-checksum": digest,
        "x-amz-checksum-algorithm": "SHA256",
      },
      body: pieces,
    };
  }

  #tail(nextToken: string | undefined, sizeGib: number): Record<string, unknown> {
    return {
      ExpiryTime: (this.#world.now() + blockTokenMs) / 1000,
      VolumeSize: sizeGib,
      BlockSize: blockSize,
      ...(nextToken === undefined ? {} : { NextToken: nextToken }),
    };
  }

  #page(
    subject: string,
    url: URL,
    listed: readonly Snapshot[],
    indicesFrom: (from: number) => Iterable<number>,
  ): { indices: number[]; nextToken?: string; token: (snapshot: Snapshot, index: number) => string } {
    const { secret } = this.#world;
    const now = this.#world.now();
    const query = url.searchParams;
    // Fewer than 100 counts as 100 (EC2 user guide, EBS direct APIs FAQ).
    const size = Math.max(100, integer(query.get("maxResults") ?? "100", "MaxResults", 1, 10_000));
    const start = query.get("startingBlockIndex") ?? "0";
    let from = integer(start, "StartingBlockIndex", 0, highestIndex, "INVALID_BLOCK");
    const pageToken = query.get("pageToken");
    if (pageToken === null) for (const each of listed) each.generation++;
    else from = Number(openToken(secret, subject, pageToken, now, "INVALID_PAGE_TOKEN"));
    this.#pages++;
    const { emptyPageEvery } = this.#options;
    const most = emptyPageEvery > 0 && this.#pages % emptyPageEvery === 0 ? 0 : size;
    const indices: number[] = [];
    let next: number | undefined;
    for (const index of indicesFrom(from)) {
      if (indices.length === most) {
        next = index;
        break;
      }
      indices.push(index);
    }
    const expiresAt = now + blockTokenMs;
    const keys = new Map(listed.map(({ id }) => [id, blockTokenKey(secret, id)]));
    return {
      indices,
      token: (snapshot, index) =>
        sealBlockToken(keys.get(snapshot.id) ?? [0, 0], index, snapshot.generation, expiresAt),
      ...(next === undefined ? {} : { nextToken: sealToken(secret, subject, String(next), now + pageTokenMs) }),
    };
  }
}
