import { expect, test } from "vitest";
import { AnswerParser } from "../../src/connection/http-answer.ts";
import { randomFrom, seedOf } from "../../../../test/seed.ts";

interface Read {
  heads: { status: number; headers: Record<string, string | undefined> }[];
  body: string;
  parser: AnswerParser;
  /** Bytes that were not of the answer. */
  rest: number;
}

/** Reads an answer that comes in pieces of these lengths, and then of one byte. */
function read(text: string, lengths: readonly number[] = [text.length]): Read {
  const heads: Read["heads"] = [];
  const body: Buffer[] = [];
  const parser = new AnswerParser(
    (head) => heads.push(head),
    (bytes) => body.push(Buffer.from(bytes)),
  );
  const all = Buffer.from(text, "latin1");
  let at = 0;
  for (let turn = 0; at < all.length && !parser.isDone; turn++) {
    const length = lengths[turn] ?? 1;
    // Each piece in memory of its own that is overwritten afterwards, as a connection's is.
    const piece = Buffer.from(all.subarray(at, at + length));
    const used = parser.push(piece);
    if (used < piece.length) expect(parser.isDone).toBe(true);
    at += used;
    piece.fill(0x21);
  }
  return { heads, body: Buffer.concat(body).toString("latin1"), parser, rest: all.length - at };
}

const whole: [string, string, { status: number; body: string; leaves: boolean; rest?: number }][] = [
  ["of a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", { status: 200, body: "hello", leaves: true }],
  ["of none", "HTTP/1.1 201 Created\r\ncontent-length:0\r\n\r\n", { status: 201, body: "", leaves: true }],
  ["without a body", "HTTP/1.1 204 No Content\r\n\r\n", { status: 204, body: "", leaves: true }],
  [
    "in chunks",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0A \r\n, all of u\r\n0\r\nX: y\r\n\r\n",
    { status: 200, body: "hello, all of u", leaves: true },
  ],
  [
    "after others that are none yet",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    { status: 200, body: "x", leaves: true },
  ],
  [
    "that ends its connection",
    "HTTP/1.1 400 Bad\r\nConnection: keep-alive, Close\r\nContent-Length: 2\r\n\r\n{}",
    { status: 400, body: "{}", leaves: false },
  ],
  ["of HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", { status: 200, body: "{}", leaves: false }],
  [
    "with another behind it",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n",
    { status: 200, body: "{}", leaves: true, rest: 17 },
  ],
];
test.for(whole)("an answer %s is read, however it is cut", ([, text, { status, body, leaves, rest = 0 }]) => {
  const seed = seedOf(2616);
  const random = randomFrom(seed);
  const cuts = [[text.length], [1], [2, 1000], [text.indexOf("\r\n\r\n") + 2, 1000]];
  for (let turn = 0; turn < 50; turn++)
    cuts.push(Array.from({ length: text.length }, () => 1 + Math.floor(random() * 40)));
  for (const lengths of cuts) {
    const got = read(text, lengths);
    expect(got.body, `seed ${seed}`).toBe(body);
    expect(got.heads.map((head) => head.status)).toEqual([status]);
    expect(got.parser.isDone).toBe(true);
    expect(got.parser.leavesConnection).toBe(leaves);
    expect(got.rest).toBe(rest);
  }
});

test("an answer without a length goes on until the connection ends, and any other must not end before", () => {
  const open = read("HTTP/1.1 200 OK\r\n\r\nall of it");
  expect(open.parser.isDone).toBe(false);
  open.parser.close();
  expect(open.body).toBe("all of it");
  expect(open.parser.isDone).toBe(true);
  expect(open.parser.leavesConnection).toBe(false);
  for (const cut of [
    "",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
  ])
    expect(() => read(cut).parser.close(), cut).toThrow("broke off");
});

test("a header that comes twice is one with both values", () => {
  const { heads } = read("HTTP/1.1 204 x\r\nX-Amz-A: 1\r\nx-amz-a:  2 \r\n__proto__: 3\r\n\r\n");
  expect(heads[0]?.headers["x-amz-a"]).toBe("1, 2");
  expect(Object.entries(heads[0]!.headers)).toContainEqual(["__proto__", "3"]);
});

const refused: [string, string][] = [
  ["what is no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"],
  ["HTTP/2", "HTTP/2.0 200 OK\r\n\r\n"],
  ["a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n"],
  ["a protocol nobody asked for", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"],
  ["a header without a colon", "HTTP/1.1 200 OK\r\nContent-Length 5\r\n\r\n"],
  ["a header that goes on in the next line", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"],
  ["a header's name with a space", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n"],
  ["a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n"],
  ["a length below nothing", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"],
  ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"],
  ["a length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"],
  ["another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"],
  ["a chunk without a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"],
  ["a chunk below nothing", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"],
  ["a chunk that is longer than told", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n"],
  ["lines that end in one character", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n"],
  ["a head without an end", `HTTP/1.1 200 OK\r\nA: ${"b".repeat(70_000)}`],
  ["a long head", `HTTP/1.1 200 OK\r\nA: ${"b".repeat(70_000)}\r\n\r\n`],
  [
    "a trailer without an end",
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n${`A: ${"b".repeat(1000)}\r\n`.repeat(70)}`,
  ],
  ["a chunk's line without an end", `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${"0".repeat(70_000)}`],
];
test.for(refused)("%s is refused, however it is cut", ([, text]) => {
  expect(() => read(text)).toThrow("not to be understood as HTTP");
  expect(() => read(text, [3, 20, 5, 1000, 1])).toThrow("not to be understood as HTTP");
});
