import fc from "fast-check";
import { isProviderError } from "@diskferry/core/provider";
import { expect } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { type Qcow2Check, checkQcow2 } from "../../src/qcow2/check-qcow2.ts";
import { type Qcow2Reader, openQcow2Reader } from "../../src/qcow2/qcow2-reader.ts";
import { type Qcow2Writer, openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { SIZE } from "./image-damage.ts";
import type { LossyFiles } from "./lossy-files.ts";

async function* none(): AsyncGenerator<never> {}

const SECTOR = 512;
/** Messages that a check keeps: of one with fewer all are known. */
const MESSAGE_LIMIT = 100;

/** What a run writes on an image; sectors, counted from the start of the disk or back from its end. */
export interface WritePlan {
  run: "one" | "two";
  compress: boolean;
  steps: { kind: "write" | "zero" | "flush"; sector: number; fromEnd: boolean; count: number; fill: number }[];
}

/** Plans of a few writes anywhere in what {@link makeImage} fills. */
export const writePlan: fc.Arbitrary<WritePlan> = fc.record({
  run: fc.constantFrom("one", "two"),
  compress: fc.boolean(),
  steps: fc.array(
    fc.record({
      kind: fc.constantFrom("write", "write", "zero", "flush"),
      sector: fc.oneof(fc.nat({ max: 80 }), fc.nat({ max: 330 }), fc.nat({ max: SIZE / SECTOR - 1 })),
      fromEnd: fc.boolean(),
      count: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(8, 16)),
      fill: fc.nat({ max: 255 }),
    }),
    { minLength: 1, maxLength: 4 },
  ),
});

/** One write as it comes to the disk at hand. */
interface Written {
  offset: number;
  data: Uint8Array;
}

/** Lets a ProviderError pass, and nothing else. */
export async function tolerate(body: () => Promise<void>): Promise<boolean> {
  try {
    await body();
    return true;
  } catch (error) {
    if (isProviderError(error)) return false;
    throw error;
  }
}

/** A cluster of guest data; without bytes where it cannot be read. */
interface Piece {
  offset: number;
  length: number;
  bytes: Uint8Array | undefined;
}

/** What the first and the last {@link SIZE} bytes of a disk hold, by cluster. */
async function piecesOf(reader: Qcow2Reader): Promise<Piece[]> {
  const unit = reader.chain[0]!.clusterSize!;
  const length = Math.min(reader.size, SIZE);
  const starts = new Set([0, Math.floor((reader.size - length) / unit) * unit]);
  const pieces: Piece[] = [];
  for (const start of starts) {
    const end = Math.min(reader.size, start + Math.ceil(length / unit) * unit);
    const limit = Math.min(end, start + SIZE + unit);
    const all = new Uint8Array(Math.min(limit - start, 2 * SIZE));
    const readable = await tolerate(() => reader.read(start, all));
    // Sixteen at once, and one by one only where that fails.
    for (let first = start; first < start + all.byteLength; first += 16 * unit) {
      const some = all.subarray(first - start, first - start + 16 * unit);
      const known = readable || (await tolerate(() => reader.read(first, some)));
      for (let offset = first; offset < first + some.byteLength; offset += unit) {
        const part = some.subarray(offset - first, offset - first + unit);
        const bytes = known || (await tolerate(() => reader.read(offset, part))) ? part : undefined;
        pieces.push({ offset, length: part.byteLength, bytes });
      }
    }
  }
  return pieces;
}

/** The image as it is: what its check finds and what its disk holds; undefined where the header tells that it is none. */
async function stateOf(files: LossyFiles): Promise<{ check: Qcow2Check; pieces: Piece[] } | undefined> {
  let state: { check: Qcow2Check; pieces: Piece[] } | undefined;
  await tolerate(async () => {
    await using reader = await openQcow2Reader("/disk.qcow2", { files });
    const pieces = await piecesOf(reader);
    state = { check: await checkQcow2("/disk.qcow2", { files }), pieces };
  });
  return state;
}

async function follow(plan: WritePlan, writer: Qcow2Writer, tried: Written[]): Promise<void> {
  for (const { kind, sector, fromEnd, count, fill } of plan.steps) {
    if (kind === "flush") {
      await writer.flush();
      continue;
    }
    const sectors = writer.size / SECTOR;
    if (sectors === 0) continue;
    const first = fromEnd ? Math.max(0, sectors - 1 - sector) : sector % sectors;
    const length = Math.min(count, sectors - first) * SECTOR;
    const data =
      kind === "zero"
        ? new Uint8Array(length)
        : fill === 0
          ? randomBytes(length, sector)
          : new Uint8Array(length).fill(fill);
    const offset = first * SECTOR;
    tried.push({ offset, data });
    if (kind === "zero") await writer.zero(offset, length);
    else await writer.write(offset, data);
  }
}

/** What a cluster must hold after a run; undefined where that is not known. */
function expected(piece: Piece, tried: readonly Written[], taken: boolean): Uint8Array | undefined {
  const end = piece.offset + piece.length;
  const over = tried.filter(({ offset, data }) => offset < end && offset + data.byteLength > piece.offset);
  if (over.length === 0) return piece.bytes;
  // What was refused may be written in part.
  if (!taken) return undefined;
  const bytes = Buffer.alloc(piece.length);
  const known = new Uint8Array(piece.length).fill(piece.bytes === undefined ? 0 : 1);
  if (piece.bytes !== undefined) bytes.set(piece.bytes);
  for (const { offset, data } of over) {
    const from = Math.max(offset, piece.offset);
    const to = Math.min(offset + data.byteLength, end);
    bytes.set(data.subarray(from - offset, to - offset), from - piece.offset);
    known.fill(1, from - piece.offset, to - piece.offset);
  }
  return known.every((one) => one === 1) ? bytes : undefined;
}

function expectNoWorse(before: Qcow2Check, after: Qcow2Check, taken: boolean): void {
  expect(after.corruptions, after.messages[0]).toBeLessThanOrEqual(before.corruptions);
  // Refused halfway, what was written and nothing names is space lost.
  if (!taken) return;
  expect(after.leaks, after.messages[0]).toBeLessThanOrEqual(before.leaks);
  if (before.messages.length < MESSAGE_LIMIT)
    expect(before.messages).toEqual(expect.arrayContaining([...after.messages]));
}

/**
 * Writes on an image that may be damaged, which the writer may refuse at any point. Taken or refused: what was damaged
 * before may stay so, but nothing gets worse, and no cluster that was not written on reads otherwise than before. Taken:
 * what was written reads as written. Tells whether it was taken.
 */
export async function expectNothingWorse(files: LossyFiles, plan: WritePlan): Promise<boolean> {
  const before = await stateOf(files);
  const tried: Written[] = [];
  const taken = await tolerate(async () => {
    await using writer = await openQcow2Writer("/disk.qcow2", { run: plan.run, compress: plan.compress, files });
    await follow(plan, writer, tried);
    await writer.commit({ written: none() });
  });
  if (before === undefined) {
    expect(taken, "written on, though it could not be read").toBe(false);
    return taken;
  }
  const after = await stateOf(files);
  expect(after, "read before, and no longer").toBeDefined();
  expectNoWorse(before.check, after!.check, taken);
  if (taken) {
    expect(after!.check.dirty).toBe(false);
    // Of features that only a writer which knows them keeps up.
    expect(Buffer.from(files.bytes("/disk.qcow2")).readBigUInt64BE(88), "autoclear features").toBe(0n);
  }
  expect(after!.pieces.length).toBe(before.pieces.length);
  for (const [index, piece] of before.pieces.entries()) {
    const bytes = expected(piece, tried, taken);
    if (bytes === undefined) continue;
    const found = after!.pieces[index]!.bytes;
    if (found === undefined) expect.fail(`the cluster at ${piece.offset} can no longer be read`);
    if (Buffer.compare(found, bytes) !== 0) expect.fail(`the cluster at ${piece.offset} holds something else`);
  }
  return taken;
}
