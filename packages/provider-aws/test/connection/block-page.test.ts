import { expect, test } from "vitest";
import { readPage } from "../../src/connection/block-page.ts";
import { randomFrom, seedOf } from "../../../../test/seed.ts";

function entries(text: string): unknown[] {
  return [...readPage(Buffer.from(text), "Blocks").entries].flat();
}

test("entries are those that JSON.parse finds, whatever they hold and however they are written", () => {
  const seed = seedOf(4711);
  const random = randomFrom(seed);
  const odd = ['"', "\\", "\\\\", "]", "}", "[{", '"},{"', '\\"', "é", "\u2028", "a"];
  for (const name of ["Blocks", "ChangedBlocks"] as const) {
    for (let turn = 0; turn < 60; turn++) {
      const list = Array.from({ length: Math.floor(random() ** 3 * 1200) }, (_, index) => ({
        BlockIndex: index,
        BlockToken: Array.from({ length: 3 }, () => odd[Math.floor(random() * odd.length)]).join(""),
        ...(random() < 0.1 ? { More: [[{ deep: [] }], {}] } : {}),
      }));
      const page = { Other: [1, { Blocks: [2] }], BlockSize: 524_288, [name]: list, NextToken: '"]}\\' };
      const text = JSON.stringify(page, undefined, turn % 3 === 0 ? 2 : undefined);
      const read = readPage(Buffer.from(text), name);
      expect([...read.entries].flat(), `seed ${seed}`).toEqual(list);
      expect(read).toMatchObject({ BlockSize: 524_288, NextToken: '"]}\\' });
    }
  }
});

test("a page without a list, or with an empty one, has no entries", () => {
  for (const text of ["{}", '{"Blocks":[]}', '{"Blocks" : [ ] }', '{"Blocks":null}', '{"Other":[{"BlockIndex":1}]}'])
    expect(entries(text), text).toEqual([]);
});

test.for([
  ["Blocks", '{"ChangedBlocks":[{"BlockIndex":1,"SecondBlockToken":"a"}]}'],
  ["ChangedBlocks", '{"Blocks":[{"BlockIndex":1,"BlockToken":"a"}]}'],
  ["ChangedBlocks", '{"Blocks":[{"BlockIndex":1}],"ChangedBlocks":[{"BlockIndex":2}]}'],
] as const)("a page of %s with the other call's list is refused", ([list, text]) => {
  expect(() => readPage(Buffer.from(text), list)).toThrow(/instead of/);
});

const many = Array.from({ length: 256 }, (_, index) => `{"BlockIndex":${index}}`).join(",");
test.for([
  "",
  "[]x",
  "7",
  "null",
  '{"Blocks":[',
  '{"Blocks":[{"BlockIndex":1}',
  '{"Blocks":[{"BlockIndex":1}]',
  '{"Blocks":[{"BlockIndex":1},]}',
  '{"Blocks":[,{"BlockIndex":1}]}',
  '{"Blocks":[{"BlockIndex":1}{"BlockIndex":2}]}',
  '{"Blocks":[{"BlockIndex":1}}]}',
  '{"Blocks":[{"BlockToken":"}]}',
  `{"Blocks":[${many},]}`,
  `{"Blocks":[${many},,{}]}`,
  `{"Blocks":[${many}`,
])("what is no JSON object is refused: %s", (text) => {
  expect(() => entries(text)).toThrow(/JSON|cut off/);
});
