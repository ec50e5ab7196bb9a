import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { AwsConnection } from "../../src/connection/connection.ts";
import { type ListedBlock, listBlocks } from "../../src/source/block-listing.ts";

type Answer = { status?: number; body: object };

/** Lists from a server that answers page after page as it is told. */
async function list(pages: Answer[], changed = false): Promise<{ blocks: ListedBlock[]; queries: URLSearchParams[] }> {
  const queries: URLSearchParams[] = [];
  const server = createServer((request, response) => {
    queries.push(new URL(request.url ?? "/", "http://peer").searchParams);
    const { status = 200, body } = pages[Math.min(queries.length, pages.length) - 1]!;
    const headers = status === 200 ? {} : { "x-amzn-errortype": "ValidationException" };
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await using connection = await AwsConnection.open({
      region: "us-east-1",
      endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      credentials: { accessKeyId: "AKIA", secretAccessKey: "s", accountId: "111111111111" },
    });
    const blocks: ListedBlock[] = [];
    const request = { snapshotId: "snap-1", from: 0, ...(changed ? { firstSnapshotId: "snap-0" } : {}) };
    for await (const page of listBlocks(connection, request)) blocks.push(...page);
    return { blocks, queries };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const page = (indices: unknown[], NextToken?: string, more: object = {}): Answer => ({
  body: {
    Blocks: indices.map((BlockIndex) => ({ BlockIndex, BlockToken: `t${String(BlockIndex)}` })),
    BlockSize: 524_288,
    VolumeSize: 1,
    ...(NextToken === undefined ? {} : { NextToken }),
    ...more,
  },
});

test("short and empty pages are no end, and the most blocks per page are asked for", async () => {
  const { blocks, queries } = await list([page([], "a"), page([3], "b"), page([], "c"), page([4, 9])]);
  expect(blocks.map(({ index }) => index)).toEqual([3, 4, 9]);
  expect(queries.every((query) => query.get("maxResults") === "10000")).toBe(true);
  // A page token beats the starting index, so they never come together.
  expect(queries.map((query) => [query.get("pageToken"), query.get("startingBlockIndex")])).toEqual([
    [null, "0"],
    ["a", null],
    ["b", null],
    ["c", null],
  ]);
});

test("a page token that was refused makes the listing begin behind the last block", async () => {
  const refused = { status: 400, body: { Message: "expired", Reason: "INVALID_PAGE_TOKEN" } };
  const { blocks, queries } = await list([page([0, 7], "a"), refused, page([8])]);
  expect(blocks.map(({ index }) => index)).toEqual([0, 7, 8]);
  expect(queries[2]?.get("startingBlockIndex")).toBe("8");
});

test("page tokens that are always refused end the listing with an error", async () => {
  const refused = { status: 400, body: { Message: "expired", Reason: "INVALID_PAGE_TOKEN" } };
  const pages = Array.from({ length: 20 }, (_, turn) => (turn % 2 === 0 ? page([], "a") : refused));
  await expect(list(pages)).rejects.toMatchObject({ code: "UNAVAILABLE" });
});

const lies: [string, Answer[], RegExp][] = [
  ["blocks out of order", [page([5, 3])], /block 3 where 6/],
  ["the same block twice", [page([5], "a"), page([5])], /block 5 where 6/],
  ["the same page for ever", [page([1], "a"), page([], "a")], /the same page again and again/],
  ["another block size", [page([1], undefined, { BlockSize: 512 })], /blocks of 512 bytes/],
  ["an index that is no number", [page(["7"])], /7 as the index/],
  ["an index below zero", [page([-1])], /-1 as the index/],
  ["a block without a token", [{ body: { Blocks: [{ BlockIndex: 1 }], BlockSize: 524_288 } }], /without a token/],
];

for (const [what, pages, message] of lies) {
  test(`a listing with ${what} is not to be trusted`, async () => {
    await expect(list(pages)).rejects.toMatchObject({
      code: "UNEXPECTED",
      message: expect.stringMatching(message) as string,
    });
  });
}

test("a changed block without a second token was freed", async () => {
  const body = {
    ChangedBlocks: [
      { BlockIndex: 1, FirstBlockToken: "old" },
      { BlockIndex: 2, SecondBlockToken: "new" },
    ],
    BlockSize: 524_288,
  };
  expect((await list([{ body }], true)).blocks).toEqual([{ index: 1 }, { index: 2, token: "new" }]);
});
