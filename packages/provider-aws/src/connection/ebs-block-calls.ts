import { type BlockPage, type PageMemory, readPage } from "./block-page.ts";
import type { AnswerHeaders, DirectCall, Receiver } from "./direct-client.ts";
import { encode } from "./sigv4.ts";

/** Where a page begins: at a token of the page before, or at a block. */
export interface PageRequest {
  pageSize: number;
  nextToken?: string | undefined;
  from?: number | undefined;
  /** Used for this page's text, and given back larger where it was too small. Absent: memory of its own. */
  memory?: PageMemory | undefined;
}

/** GetSnapshotBlock; `receive` takes the block and its headers (`x-amz-data-length`, `x-amz-checksum`, …). */
export function getSnapshotBlock(
  block: { snapshotId: string; index: number; token: string },
  receive: (headers: AnswerHeaders) => Receiver<void>,
): DirectCall<void> {
  return {
    operation: "GetSnapshotBlock",
    method: "GET",
    path: blockPath(block),
    query: { blockToken: block.token },
    headers: {},
    receive,
  };
}

/** PutSnapshotBlock; `checksum`: the SHA-256 of `data` in base64, which AWS compares with what arrives. */
export function putSnapshotBlock(block: {
  snapshotId: string;
  index: number;
  data: Uint8Array;
  checksum: string;
}): DirectCall<void> {
  return {
    operation: "PutSnapshotBlock",
    method: "PUT",
    path: blockPath(block),
    query: {},
    headers: {
      "x-amz-checksum": block.checksum,
      "x-amz-checksum-algorithm": "SHA256",
      "x-amz-data-length": String(block.data.byteLength),
    },
    body: block.data,
    // The answer says nothing, but only a whole one is an answer.
    receive: () => ({ take: () => true, end() {} }),
  };
}

/** ListSnapshotBlocks: a page of what a snapshot holds. */
export function listSnapshotBlocks(snapshotId: string, page: PageRequest): DirectCall<BlockPage> {
  return {
    operation: "ListSnapshotBlocks",
    method: "GET",
    path: `/snapshots/${encode(snapshotId)}/blocks`,
    query: pageQuery(page),
    headers: {},
    receive: (headers) => receivePage(headers, "Blocks", page.memory),
  };
}

/** ListChangedBlocks: a page of what differs between two snapshots. */
export function listChangedBlocks(
  firstSnapshotId: string,
  snapshotId: string,
  page: PageRequest,
): DirectCall<BlockPage> {
  return {
    operation: "ListChangedBlocks",
    method: "GET",
    path: `/snapshots/${encode(snapshotId)}/changedblocks`,
    query: { firstSnapshotId, ...pageQuery(page) },
    headers: {},
    receive: (headers) => receivePage(headers, "ChangedBlocks", page.memory),
  };
}

function blockPath({ snapshotId, index }: { snapshotId: string; index: number }): string {
  return `/snapshots/${encode(snapshotId)}/blocks/${index}`;
}

function pageQuery({ pageSize, nextToken, from }: PageRequest): Record<string, string | number | undefined> {
  return { maxResults: pageSize, pageToken: nextToken, startingBlockIndex: from };
}

/** No page is longer, in bytes: 10 000 entries with two tokens of 256 characters are a third of it. */
const longestPage = 16 * 2 ** 20;

/** Collects a page's text in one piece of memory. */
function receivePage(
  { "content-length": told }: AnswerHeaders,
  list: "Blocks" | "ChangedBlocks",
  memory: PageMemory = { text: Buffer.alloc(0) },
): Receiver<BlockPage> {
  const demand = (bytes: number): void => {
    if (bytes <= memory.text.byteLength) return;
    const larger = Buffer.allocUnsafeSlow(Math.min(longestPage, bytes + (bytes >> 2)));
    memory.text.copy(larger, 0, 0, length);
    memory.text = larger;
  };
  let length = 0;
  demand(Math.min(longestPage, Math.max(1024, Number(told ?? 0) || 0)));
  return {
    take(bytes) {
      const end = length + bytes.byteLength;
      if (end > longestPage) return false;
      demand(end);
      memory.text.set(bytes, length);
      length = end;
      return true;
    },
    end: () => readPage(memory.text.subarray(0, length), list),
  };
}
