import type { Arena } from "./arena.ts";
import type { Row } from "./contest.ts";
import { awsRows } from "./rows/aws.ts";
import { denseRows } from "./rows/dense.ts";
import { farRows } from "./rows/far.ts";
import { imageRows } from "./rows/images.ts";
import { incrementalRows } from "./rows/incremental.ts";
import { memoryRows } from "./rows/memory.ts";
import { serverRows } from "./rows/server.ts";
import { sparseRows } from "./rows/sparse.ts";
import { verifiedRows } from "./rows/verified.ts";
import { vsphereRows } from "./rows/vsphere.ts";

/** Every row of the table, in the order in which it is printed. */
export function allRows(arena: Arena): Row[] {
  return [
    ...denseRows(arena),
    ...farRows(arena),
    ...imageRows(arena),
    ...sparseRows(arena),
    ...incrementalRows(arena),
    ...verifiedRows(arena),
    ...serverRows(arena),
    ...memoryRows(arena),
    ...awsRows(arena),
    ...vsphereRows(arena),
  ];
}
