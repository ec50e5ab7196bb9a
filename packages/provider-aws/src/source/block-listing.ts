import type { Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import type { BlockPage, PageMemory } from "../connection/block-page.ts";
import { listChangedBlocks, listSnapshotBlocks } from "../connection/ebs-block-calls.ts";
import { AwsFailure, awsError, failureOf } from "../errors.ts";
import { ebsBlockSize } from "./snapshot-facts.ts";

/** One entry of a listing. */
export interface ListedBlock {
  index: number;
  /** What GetSnapshotBlock wants to see; absent: the block was freed since the first snapshot and reads as zeroes. */
  token?: string;
}

export interface ListingRequest extends Wait {
  snapshotId: string;
  /** The snapshot to compare with; absent: everything that the snapshot holds. */
  firstSnapshotId?: string | undefined;
  /** The first block wanted. */
  from: number;
  /** Entries of a page, 100 to 10 000. Default 10 000, the most. */
  pageSize?: number | undefined;
}

/** The most entries of a page (EBS direct APIs, MaxResults). */
const largestPage = 10_000;
/** Empty pages in a row, and listings begun anew in a row, that no listing needs. */
const mostEmptyPages = 10_000;
const mostRestarts = 5;

/**
 * The blocks of a listing from an index on, page by page: ascending, each once. A page is gone through once, before the next
 * is asked for. Pages that are short or empty are no end: only a page without a token is. A page token that ran out (after 60
 * minutes) makes the listing begin anew behind the last block. Each page is asked for once; who is refused goes on from
 * where it was.
 * @throws ProviderError UNEXPECTED for a listing that is out of order, goes round in circles or counts in other blocks
 */
export async function* listBlocks(
  connection: AwsConnection,
  request: ListingRequest,
): AsyncGenerator<Iterable<ListedBlock>> {
  let { from } = request;
  let token: string | undefined;
  let empty = 0;
  let restarts = 0;
  const memory: PageMemory = { text: Buffer.alloc(0) };
  for (;;) {
    let page: BlockPage;
    try {
      page = await listPage(connection, request, { from, token, memory });
    } catch (error) {
      if (failureOf(error)?.reason !== "INVALID_PAGE_TOKEN" || token === undefined || ++restarts > mostRestarts)
        throw error;
      token = undefined;
      continue;
    }
    const begun = from;
    const blocks = (function* (): Generator<ListedBlock> {
      for (const some of entriesOf(request, page)) {
        for (const entry of some) {
          const block = blockOf(request, entry);
          if (block.index < from)
            throw outOfOrder(request, `block ${block.index} where ${from} or a later one had to follow`);
          from = block.index + 1;
          yield block;
        }
      }
    })();
    yield blocks;
    // One who did not ask for all of them wants none of the others, but the listing goes on behind the last.
    while (blocks.next().done !== true);
    const isEmpty = from === begun;
    if (!isEmpty) empty = restarts = 0;
    else if (++empty > mostEmptyPages) throw outOfOrder(request, `${empty} empty pages in a row`);
    const next = nextOf(request, page.NextToken);
    if (next === undefined) return;
    if (next === token && isEmpty) throw outOfOrder(request, "the same page again and again, with nothing on it");
    token = next;
  }
}

async function listPage(
  connection: AwsConnection,
  request: ListingRequest,
  place: { from: number; token: string | undefined; memory: PageMemory },
): Promise<BlockPage> {
  const { snapshotId, firstSnapshotId, signal, pageSize = largestPage } = request;
  const { from, token, memory } = place;
  // A page token beats the starting index, so only one of them is sent.
  const where = { pageSize, memory, ...(token === undefined ? { from } : { nextToken: token }) };
  const call =
    firstSnapshotId === undefined
      ? listSnapshotBlocks(snapshotId, where)
      : listChangedBlocks(firstSnapshotId, snapshotId, where);
  const page = await connection.direct(call, { object: objectOf(request), snapshotId, signal });
  demandBlockSize(request, page.BlockSize);
  return page;
}

function blockOf(request: ListingRequest, entry: unknown): ListedBlock {
  const isComparison = request.firstSnapshotId !== undefined;
  if (typeof entry !== "object" || entry === null) throw outOfOrder(request, "something else where its blocks belong");
  const { BlockIndex, BlockToken, SecondBlockToken } = entry as Record<string, unknown>;
  const index = indexOf(request, BlockIndex);
  const token = tokenOf(request, index, isComparison ? SecondBlockToken : BlockToken);
  if (token === undefined && !isComparison) throw outOfOrder(request, `block ${index} without a token`);
  return token === undefined ? { index } : { index, token };
}

function* entriesOf(request: ListingRequest, page: BlockPage): Generator<readonly unknown[]> {
  try {
    yield* page.entries;
  } catch (error) {
    throw error instanceof AwsFailure ? outOfOrder(request, "what is no JSON", error) : error;
  }
}

/** Null is as good as nothing, as rest-json has it. */
function tokenOf(request: ListingRequest, index: unknown, token: unknown): string | undefined {
  if (token === undefined || token === null) return undefined;
  if (typeof token === "string") return token;
  throw outOfOrder(request, `block ${String(index)} with a token that is no text`);
}

function nextOf(request: ListingRequest, token: unknown): string | undefined {
  if (token === undefined || token === null || token === "") return undefined;
  if (typeof token === "string") return token;
  throw outOfOrder(request, "a page token that is no text");
}

function indexOf(request: ListingRequest, index: unknown): number {
  if (typeof index === "number" && Number.isInteger(index) && index >= 0) return index;
  throw outOfOrder(request, `${String(index)} as the index of a block`);
}

function demandBlockSize(request: ListingRequest, size: unknown): void {
  if (size === ebsBlockSize) return;
  throw outOfOrder(request, `blocks of ${String(size)} bytes, where only ${ebsBlockSize} are known`);
}

function objectOf({ snapshotId, firstSnapshotId }: ListingRequest): string {
  return firstSnapshotId === undefined ? snapshotId : `${snapshotId} since ${firstSnapshotId}`;
}

function outOfOrder(request: ListingRequest, what: string, cause?: AwsFailure): Error {
  return awsError(
    "UNEXPECTED",
    `The listing of ${objectOf(request)} is not to be trusted: it holds ${what}. Nothing more is taken from it; try again, ` +
      `and tell AWS if it happens again.`,
    { operation: request.firstSnapshotId === undefined ? "ListSnapshotBlocks" : "ListChangedBlocks", cause },
  );
}
