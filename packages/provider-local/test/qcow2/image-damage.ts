import fc from "fast-check";
import { randomBytes } from "../../../../test/seed.ts";
import { createQcow2 } from "../../src/qcow2/create-qcow2.ts";
import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";
import { LossyFiles } from "./lossy-files.ts";

async function* none(): AsyncGenerator<never> {}

/** Bytes of the disk of {@link makeImage}. */
export const SIZE: number = 200 * 4096;

/** Files with the image that "/disk.qcow2" stands on, and `bytes` under that name. */
export async function filesWith(bytes: Uint8Array, clusterSize = 4096): Promise<LossyFiles> {
  const files = new LossyFiles();
  await createQcow2({ path: "/base.qcow2", size: SIZE / 2, clusterSize, files });
  files.put("/disk.qcow2", bytes);
  return files;
}

/** A sound overlay with data, zeroes over data, and with `compression` packed clusters. */
export async function makeImage(compression: "zlib" | "zstd" | undefined, clusterSize: number): Promise<Uint8Array> {
  const files = new LossyFiles();
  await createQcow2({ path: "/base.qcow2", size: SIZE / 2, clusterSize, files });
  const backing = { path: "base.qcow2", format: "qcow2" as const };
  await createQcow2({ path: "/disk.qcow2", size: SIZE, clusterSize, compression, backing, files });
  await using writer = await openQcow2Writer("/disk.qcow2", { run: "one", compress: compression !== undefined, files });
  // Over several L2 tables where those are small, and yet no more clusters than are soon unpacked.
  const unit = Math.max(clusterSize, 1024);
  await writer.write(0, new Uint8Array(20 * unit).fill(7));
  await writer.write(30 * unit, randomBytes(10 * unit, 1));
  await writer.zero(25 * unit, 10 * unit);
  await writer.write(150 * unit, new Uint8Array(unit).fill(9));
  await writer.commit({ written: none() });
  return files.bytes("/disk.qcow2");
}

/** The places of the L2 tables of an image. */
function tablesOf(image: Buffer): number[] {
  const l1 = Number(image.readBigUInt64BE(40));
  const tables: number[] = [];
  for (let index = 0; index < image.readUInt32BE(36); index++) {
    const table = Number(image.readBigUInt64BE(l1 + index * 8) & 0x00ff_ffff_ffff_fe00n);
    if (table !== 0) tables.push(table);
  }
  return tables;
}

/** The fields of the header that lead somewhere: place and width, bytes (qcow2 specification, "Header"). */
const FIELDS: readonly (readonly [at: number, width: 1 | 4 | 8])[] = [
  [8, 8],
  [16, 4],
  [20, 4],
  [24, 8],
  [36, 4],
  [40, 8],
  [48, 8],
  [56, 4],
  [60, 4],
  [64, 8],
  [72, 8],
  [80, 8],
  [88, 8],
  [96, 4],
  [100, 4],
  [104, 1],
];

/** What is done to an image; places are bytes. */
export interface Damage {
  changes: ({ at: number; width: 1 | 4 | 8; value: bigint } | { at: number; copyOf: number })[];
  /** Where its end is cut off. */
  cut: number | null;
}

/** The image after that. */
export function damaged(valid: Uint8Array, { changes, cut }: Damage): Uint8Array {
  const bytes = Buffer.from(valid);
  const within = (place: number): number => place % (bytes.byteLength - 8);
  for (const change of changes) {
    const at = within(change.at);
    if ("copyOf" in change) bytes.copy(bytes, at, within(change.copyOf), within(change.copyOf) + 8);
    else if (change.width === 8) bytes.writeBigUInt64BE(change.value, at);
    else if (change.width === 4) bytes.writeUInt32BE(Number(change.value & 0xffffffffn), at);
    else bytes[at] = Number(change.value & 0xffn);
  }
  return cut === null ? bytes : bytes.subarray(0, cut);
}

/** Damage to `valid`: a few changes, aimed at header and tables, and perhaps its end is cut off. */
export function damageOf(valid: Uint8Array, clusterSize: number): fc.Arbitrary<Damage> {
  const image = Buffer.from(valid);
  const clusters = Math.ceil(valid.byteLength / clusterSize);
  const tables = tablesOf(image);
  // A few clusters behind the end too: some entries may name those.
  const place = fc
    .oneof(fc.nat({ max: clusters + 8 }), fc.integer({ min: clusters - 1, max: clusters + 2 }))
    .map((cluster) => BigInt(cluster * clusterSize));
  const value = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.constantFrom(
      0n,
      1n,
      511n,
      512n,
      4096n,
      2n ** 31n,
      2n ** 32n,
      2n ** 53n,
      2n ** 56n - 512n,
      2n ** 62n,
      2n ** 63n,
      2n ** 64n - 1n,
    ),
    place,
    // As L2 entries: used once, kept for zeroes, packed.
    place.map((host) => host + 2n ** 63n),
    place.map((host) => host + 2n ** 63n + 1n),
    fc.nat({ max: 200_000 }).map((offset) => BigInt(offset) + 2n ** 62n),
  );
  const entries = tables.flatMap((table) => Array.from({ length: clusterSize / 8 }, (_, slot) => table + slot * 8));
  const used = entries.filter((at) => image.readBigUInt64BE(at) !== 0n);
  const entry = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...used) }, fc.constantFrom(...entries));
  const at = fc.oneof(
    fc.nat({ max: 14 }).map((word) => word * 8),
    fc.nat({ max: 200 }),
    fc.nat({ max: 20 * 512 }).map((word) => word * 8),
    entry,
  );
  const change = fc.oneof(
    fc.record({ at, value, width: fc.constantFrom(1, 4, 8) }),
    fc.tuple(fc.constantFrom(...FIELDS), value).map(([[at, width], value]) => ({ at, value, width })),
    fc.record({ at: entry, value, width: fc.constant(8 as const) }),
    fc.record({ at: entry, copyOf: entry }),
  );
  return fc.record({
    changes: fc.array(change, { minLength: 1, maxLength: 4 }),
    cut: fc.option(fc.nat({ max: valid.byteLength })),
  });
}
