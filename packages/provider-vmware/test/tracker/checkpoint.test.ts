import { expect, test } from "vitest";
import { parseChangeId } from "../../src/tracker/change-id.ts";
import { formatCheckpoint, parseCheckpoint } from "../../src/tracker/checkpoint.ts";

test("a change id is read in the form that vCenter writes, and in no other", () => {
  expect(parseChangeId("52 de c0 d9 2c 0b 7f 1a-8d 15 2f 6e 42 11 90 ab/81")).toEqual({
    epoch: "52dec0d92c0b7f1a8d152f6e421190ab",
    sequence: 81,
  });
  expect(parseChangeId("52 3C 7E 11 00 00 00 00-00 00 00 00 00 00 00 95/446")?.sequence).toBe(446);
  for (const text of ["", "*", "52 de/1", "52 de c0 d9 2c 0b 7f 1a-8d 15 2f 6e 42 11 90 ab", "x/1"]) {
    expect(parseChangeId(text), text).toBeUndefined();
  }
});

test("a checkpoint survives its way through core, and what was none is told", () => {
  const point = { machine: "5029b4f1", disk: "2000", size: 1 << 30, changeId: "52 de/81", beneath: ["snapshot-7"] };
  expect(parseCheckpoint(formatCheckpoint(point))).toEqual(point);
  const inFile = { ...point, file: "[datastore1] web/web.vmdk" };
  expect(parseCheckpoint(formatCheckpoint(inFile))).toEqual(inFile);
  for (const token of ["", "token", "cbt1:", "cbt1:{", "cbt1:null", 'cbt1:{"machine":"a"}', 'cbt2:{"machine":"a"}']) {
    expect(parseCheckpoint(token), token).toBeUndefined();
  }
});
