import { localError } from "../errors.ts";
import type { ImageFile } from "./image-file.ts";

/** "QFI\xfb" (qcow2 specification, "Header"). */
export const QCOW2_MAGIC = 0x514649fb;
/** The smallest atomic unit of a disk: header changes that must not tear stay inside the first one. */
export const SECTOR = 512;
/** Limits that qemu keeps to, so that no image of ours is refused there and no header of others costs memory. */
const L1_LIMIT = 32 * 1024 * 1024;
const REFCOUNT_TABLE_LIMIT = 8 * 1024 * 1024;
const BACKING_NAME_LIMIT = 1023;

/** Header extension types (qcow2 specification, "Header extensions"). */
const EXTENSION = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  encryption: 0x0537be77,
  dataFile: 0x44415441,
  /** Ours: "DFRY". The specification has readers ignore what they do not know, and qemu keeps it. */
  run: 0x44465259,
} as const;

const INCOMPATIBLE = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n } as const;
const INCOMPATIBLE_KNOWN = 31n;
const LAZY_REFCOUNTS = 1n;
const BITMAPS_CONSISTENT = 1n;

/** Whose half-written state an image holds: kept in the image itself, so that it moves with the file. */
export interface RunMark {
  /** SHA-256 of the run's name, first 16 bytes. */
  readonly run: Uint8Array;
  /** Random, 16 bytes: drawn when the run opened the image first. */
  readonly generation: Uint8Array;
  /** Whether the image itself held nothing when the run opened it first. */
  readonly fresh: boolean;
  readonly committed: boolean;
}

interface Extension {
  type: number;
  data: Buffer;
}

/** The header of a qcow2 image, checked. Offsets and sizes are bytes. */
export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Bytes of the virtual disk. */
  readonly size: number;
  readonly backing: { name: string; format: string | undefined } | undefined;
  /** Where the backing file's name lies. */
  readonly backingAt: { offset: number; length: number } | undefined;
  /** Entries. */
  readonly l1Size: number;
  readonly l1Offset: number;
  readonly refcountOffset: number;
  readonly refcountClusters: number;
  readonly refcountOrder: number;
  readonly snapshots: number;
  readonly snapshotsOffset: number;
  readonly dirty: boolean;
  readonly lazyRefcounts: boolean;
  readonly extendedL2: boolean;
  readonly compression: "zlib" | "zstd";
  /** Where the bitmap directory lies, when the image has persistent dirty bitmaps that are consistent. */
  readonly bitmaps: { count: number; offset: number; length: number } | undefined;
  readonly mark: RunMark | undefined;
  /** Features that a writer which does not know them clears before it writes: bitmaps kept up are one. */
  readonly autoclear: bigint;
  /** The fixed part as it is on disk, and what follows it. */
  readonly fixed: Buffer;
  readonly extensions: readonly Extension[];
}

/** How many bytes of guest data one L2 table maps. */
export function tableCoverage(header: Qcow2Header): number {
  return (header.clusterSize / (header.extendedL2 ? 16 : 8)) * header.clusterSize;
}

/** Whether the bytes a file begins with are a qcow2 header's. */
export function looksLikeQcow2(start: Uint8Array): boolean {
  return start.byteLength >= 4 && Buffer.from(start.buffer, start.byteOffset, 4).readUInt32BE(0) === QCOW2_MAGIC;
}

function bad(path: string, what: string): Error {
  return localError("CORRUPT", `${path} is a damaged qcow2 image: ${what}. "qemu-img check ${path}" tells more`, {
    operation: "open",
  });
}

function unsupported(path: string, what: string, remedy: string): Error {
  return localError("UNSUPPORTED", `${path} ${what}; ${remedy}`, { operation: "open" });
}

function serveIt(path: string): string {
  return `serve it with "qemu-nbd --read-only --socket=/run/disk.sock ${path}" and use nbd+unix:///?socket=/run/disk.sock`;
}

function safe(value: bigint, path: string, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw bad(path, `${what} is ${value}`);
  return Number(value);
}

function readExtensions(bytes: Buffer, from: number, to: number, path: string): Extension[] {
  const extensions: Extension[] = [];
  let at = from;
  while (at + 8 <= to) {
    const type = bytes.readUInt32BE(at);
    const length = bytes.readUInt32BE(at + 4);
    if (type === EXTENSION.end) break;
    if (length > to - at - 8) throw bad(path, `header extension 0x${type.toString(16)} is longer than the header`);
    extensions.push({ type, data: Buffer.from(bytes.subarray(at + 8, at + 8 + length)) });
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return extensions;
}

function featureName(extensions: readonly Extension[], bit: number): string | undefined {
  const table = extensions.find((extension) => extension.type === EXTENSION.featureNames)?.data;
  if (table === undefined) return undefined;
  for (let at = 0; at + 48 <= table.byteLength; at += 48) {
    if (table[at] !== 0 || table[at + 1] !== bit) continue;
    // The name comes from the image: only what prints goes into a message.
    return table
      .toString("latin1", at + 2, at + 48)
      .replace(/\0.*$/s, "")
      .replaceAll(/[^\x20-\x7e]/g, "?");
  }
  return undefined;
}

function refuseFeatures(features: bigint, extensions: readonly Extension[], path: string): void {
  if ((features & INCOMPATIBLE.corrupt) !== 0n) {
    throw localError(
      "CORRUPT",
      `${path} is marked corrupt by the program that wrote it: repair it with "qemu-img check -r all ${path}"`,
      { operation: "open" },
    );
  }
  if ((features & INCOMPATIBLE.dataFile) !== 0n) {
    throw unsupported(path, "keeps its data in an external data file", serveIt(path));
  }
  const unknown = features & ~INCOMPATIBLE_KNOWN;
  if (unknown === 0n) return;
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if ((unknown & (1n << BigInt(bit))) === 0n) continue;
    const name = featureName(extensions, bit);
    names.push(name === undefined ? `bit ${bit}` : `"${name}" (bit ${bit})`);
  }
  throw unsupported(path, `needs features that are not known here: ${names.join(", ")}`, serveIt(path));
}

function readMark(extensions: readonly Extension[]): RunMark | undefined {
  const data = extensions.find((extension) => extension.type === EXTENSION.run)?.data;
  if (data === undefined || data.byteLength !== 40 || data[0] !== 1) return undefined;
  return {
    run: data.subarray(8, 24),
    generation: data.subarray(24, 40),
    fresh: (data[1]! & 1) !== 0,
    committed: (data[1]! & 2) !== 0,
  };
}

function readBitmaps(
  extensions: readonly Extension[],
  autoclear: bigint,
  path: string,
): { count: number; offset: number; length: number } | undefined {
  const data = extensions.find((extension) => extension.type === EXTENSION.bitmaps)?.data;
  if (data === undefined || (autoclear & BITMAPS_CONSISTENT) === 0n) return undefined;
  if (data.byteLength < 24) throw bad(path, "its bitmaps extension is too short");
  return {
    count: data.readUInt32BE(0),
    length: safe(data.readBigUInt64BE(8), path, "the length of its bitmap directory"),
    offset: safe(data.readBigUInt64BE(16), path, "the offset of its bitmap directory"),
  };
}

function checkTable(path: string, what: string, offset: number, length: number, limits: TableLimits): void {
  if (length > limits.length) throw bad(path, `its ${what} would be ${length} bytes long`);
  if (length === 0) return;
  if (offset % limits.clusterSize !== 0) throw bad(path, `its ${what} at ${offset} does not begin at a cluster`);
  if (offset < limits.clusterSize) throw bad(path, `its ${what} at ${offset} lies in the header`);
  if (offset + length > limits.fileSize) throw bad(path, `its ${what} at ${offset} lies beyond the end of the file`);
}

interface TableLimits {
  length: number;
  clusterSize: number;
  fileSize: number;
}

/**
 * Reads and checks the header of an image: sizes, offsets and features.
 * @throws ProviderError UNSUPPORTED (no qcow2, encrypted, external data file, unknown features by name), CORRUPT.
 */
export async function readHeader(file: ImageFile): Promise<Qcow2Header> {
  const path = file.path;
  const fileSize = await file.size();
  const start = Buffer.alloc(4096);
  const available = await file.read(start, 0);
  if (available < 72 || !looksLikeQcow2(start)) {
    throw unsupported(path, "is not a qcow2 image", "if it is a raw disk, name it as one");
  }
  const version = start.readUInt32BE(4);
  if (version !== 2 && version !== 3) {
    throw unsupported(path, `is a qcow image of version ${version}`, `convert it with "qemu-img convert -O qcow2"`);
  }
  const clusterBits = start.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw bad(path, `it states clusters of 2^${clusterBits} bytes`);
  const clusterSize = 2 ** clusterBits;
  const size = safe(start.readBigUInt64BE(24), path, "its virtual size");
  if (size % SECTOR !== 0) {
    throw unsupported(
      path,
      `has a virtual size of ${size} bytes, no multiple of ${SECTOR}`,
      `"qemu-img resize" mends it`,
    );
  }
  const headerLength = version === 2 ? 72 : start.readUInt32BE(100);
  if (headerLength < (version === 2 ? 72 : 104) || headerLength > clusterSize || headerLength % 8 !== 0) {
    throw bad(path, `it states a header of ${headerLength} bytes`);
  }
  if (available < Math.min(headerLength, 4096)) throw bad(path, "it ends inside its header");
  const cluster = Buffer.alloc(clusterSize);
  await file.read(cluster, 0);

  const backingOffset = safe(cluster.readBigUInt64BE(8), path, "the place of its backing file's name");
  const backingLength = backingOffset === 0 ? 0 : cluster.readUInt32BE(16);
  if (
    backingOffset !== 0 &&
    (backingLength > BACKING_NAME_LIMIT || backingOffset < headerLength || backingOffset + backingLength > clusterSize)
  ) {
    throw bad(path, "the name of its backing file does not lie in the header");
  }
  const extensions = readExtensions(cluster, headerLength, backingOffset || clusterSize, path);
  const features = version === 2 ? 0n : cluster.readBigUInt64BE(72);
  const autoclear = version === 2 ? 0n : cluster.readBigUInt64BE(88);
  refuseFeatures(features, extensions, path);
  const crypt = cluster.readUInt32BE(32);
  if (crypt !== 0 || extensions.some((extension) => extension.type === EXTENSION.encryption)) {
    throw unsupported(
      path,
      `is encrypted (${crypt === 1 ? "AES" : crypt === 2 ? "LUKS" : `method ${crypt}`})`,
      serveIt(path),
    );
  }
  const compressionType = headerLength > 104 ? cluster[104]! : 0;
  if (compressionType > 1 || (compressionType !== 0) !== ((features & INCOMPATIBLE.compression) !== 0n)) {
    throw unsupported(
      path,
      `states compression type ${compressionType}, which its features contradict or we lack`,
      serveIt(path),
    );
  }
  const extendedL2 = (features & INCOMPATIBLE.extendedL2) !== 0n;
  if (extendedL2 && clusterBits < 14) throw bad(path, `it has subclusters in clusters of ${clusterSize} bytes`);

  const l1Size = cluster.readUInt32BE(36);
  const l1Offset = safe(cluster.readBigUInt64BE(40), path, "the offset of its L1 table");
  const refcountOffset = safe(cluster.readBigUInt64BE(48), path, "the offset of its refcount table");
  const refcountClusters = cluster.readUInt32BE(56);
  const refcountOrder = version === 2 ? 4 : cluster.readUInt32BE(96);
  if (refcountOrder > 6) throw bad(path, `it states refcounts of 2^${refcountOrder} bits`);
  checkTable(path, "L1 table", l1Offset, l1Size * 8, { length: L1_LIMIT, clusterSize, fileSize });
  // QEMU opens no such image either (block/qcow2.c, "Image does not contain a reference count table").
  if (refcountClusters === 0) throw bad(path, "it states a refcount table of no clusters");
  checkTable(path, "refcount table", refcountOffset, refcountClusters * clusterSize, {
    length: REFCOUNT_TABLE_LIMIT,
    clusterSize,
    fileSize,
  });
  const backing =
    backingLength === 0
      ? undefined
      : {
          name: cluster.toString("utf8", backingOffset, backingOffset + backingLength),
          format: extensions.find((extension) => extension.type === EXTENSION.backingFormat)?.data.toString("latin1"),
        };
  const header: Qcow2Header = {
    version,
    clusterBits,
    clusterSize,
    size,
    backing,
    backingAt: backingLength === 0 ? undefined : { offset: backingOffset, length: backingLength },
    l1Size,
    l1Offset,
    refcountOffset,
    refcountClusters,
    refcountOrder,
    snapshots: cluster.readUInt32BE(60),
    snapshotsOffset: safe(cluster.readBigUInt64BE(64), path, "the offset of its snapshot table"),
    dirty: (features & INCOMPATIBLE.dirty) !== 0n,
    lazyRefcounts: version === 3 && (cluster.readBigUInt64BE(80) & LAZY_REFCOUNTS) !== 0n,
    extendedL2,
    compression: compressionType === 1 ? "zstd" : "zlib",
    bitmaps: readBitmaps(extensions, autoclear, path),
    mark: readMark(extensions),
    autoclear,
    fixed: Buffer.from(cluster.subarray(0, headerLength)),
    extensions,
  };
  if (l1Size < Math.ceil(size / tableCoverage(header)))
    throw bad(path, "its L1 table is too short for its virtual size");
  return header;
}

/** What a header change sets; absent members stay as they are. */
export interface HeaderChange {
  backing?: { name: string; format: string } | null;
  refcounts?: { offset: number; clusters: number };
  dirty?: boolean;
  lazyRefcounts?: boolean;
  mark?: RunMark;
}

const FIXED_LENGTH = 112;

/** The fixed part of the header of a new image of version 3. */
export function newFixedHeader(image: {
  clusterBits: number;
  size: number;
  l1Size: number;
  l1Offset: number;
  refcountOffset: number;
  refcountClusters: number;
  compression: "zlib" | "zstd";
}): Buffer {
  const fixed = Buffer.alloc(FIXED_LENGTH);
  fixed.writeUInt32BE(QCOW2_MAGIC, 0);
  fixed.writeUInt32BE(3, 4);
  fixed.writeUInt32BE(image.clusterBits, 20);
  fixed.writeBigUInt64BE(BigInt(image.size), 24);
  fixed.writeUInt32BE(image.l1Size, 36);
  fixed.writeBigUInt64BE(BigInt(image.l1Offset), 40);
  fixed.writeBigUInt64BE(BigInt(image.refcountOffset), 48);
  fixed.writeUInt32BE(image.refcountClusters, 56);
  if (image.compression === "zstd") fixed.writeBigUInt64BE(INCOMPATIBLE.compression, 72);
  fixed.writeUInt32BE(4, 96);
  fixed.writeUInt32BE(FIXED_LENGTH, 100);
  fixed[104] = image.compression === "zstd" ? 1 : 0;
  return fixed;
}

function encodeExtension(extension: Extension): Buffer {
  const bytes = Buffer.alloc(8 + Math.ceil(extension.data.byteLength / 8) * 8);
  bytes.writeUInt32BE(extension.type, 0);
  bytes.writeUInt32BE(extension.data.byteLength, 4);
  extension.data.copy(bytes, 8);
  return bytes;
}

function encodeMark(mark: RunMark): Buffer {
  const data = Buffer.alloc(40);
  data[0] = 1;
  data[1] = (mark.fresh ? 1 : 0) | (mark.committed ? 2 : 0);
  data.set(mark.run, 8);
  data.set(mark.generation, 24);
  return data;
}

/** What is there of a header before a change: an image's, or nothing but the fixed part of a new one. */
type HeaderBefore = Pick<Qcow2Header, "fixed" | "extensions" | "backing" | "backingAt" | "clusterSize">;

/**
 * The bytes that change a header in one atomic step: the first sector, and beforehand (it is not looked at until the
 * first sector points there) the backing file's name where that does not fit in.
 * @throws ProviderError UNSUPPORTED when the header has no room.
 */
export function encodeHeader(
  path: string,
  before: HeaderBefore,
  change: HeaderChange,
): { sector: Buffer; name?: { offset: number; bytes: Buffer } } {
  const { fixed: old, extensions, clusterSize } = before;
  if (old.readUInt32BE(4) !== 3) {
    throw unsupported(
      path,
      "is of version 2, whose header has no room for this",
      `"qemu-img amend -o compat=1.1 ${path}" makes it version 3`,
    );
  }
  const fixed = Buffer.alloc(Math.max(FIXED_LENGTH, old.byteLength));
  old.copy(fixed);
  fixed.writeUInt32BE(fixed.byteLength, 100);
  let features = fixed.readBigUInt64BE(72);
  if (change.dirty !== undefined)
    features = change.dirty ? features | INCOMPATIBLE.dirty : features & ~INCOMPATIBLE.dirty;
  fixed.writeBigUInt64BE(features, 72);
  if (change.lazyRefcounts !== undefined) {
    const compatible = fixed.readBigUInt64BE(80);
    fixed.writeBigUInt64BE(change.lazyRefcounts ? compatible | LAZY_REFCOUNTS : compatible & ~LAZY_REFCOUNTS, 80);
  }
  // Autoclear bits speak of things that a writer which does not keep them up must call stale before it writes anything.
  if (change.mark !== undefined) fixed.writeBigUInt64BE(0n, 88);
  if (change.refcounts !== undefined) {
    fixed.writeBigUInt64BE(BigInt(change.refcounts.offset), 48);
    fixed.writeUInt32BE(change.refcounts.clusters, 56);
    fixed.writeUInt32BE(4, 96);
  }
  const backing = change.backing === undefined ? before.backing : (change.backing ?? undefined);
  const replaced = new Set<number>([EXTENSION.featureNames, EXTENSION.backingFormat]);
  const parts: Extension[] = [];
  if (backing?.format !== undefined)
    parts.push({ type: EXTENSION.backingFormat, data: Buffer.from(backing.format, "latin1") });
  if (change.mark !== undefined) {
    replaced.add(EXTENSION.run);
    parts.push({ type: EXTENSION.run, data: encodeMark(change.mark) });
  }
  // The table of feature names is for messages alone, and would push the rest out of the first sector.
  for (const extension of extensions) if (!replaced.has(extension.type)) parts.push(extension);
  const body = Buffer.concat([...parts.map(encodeExtension), Buffer.alloc(8)]);
  const used = fixed.byteLength + body.byteLength;
  const name = backing === undefined ? undefined : Buffer.from(backing.name, "utf8");
  if (name !== undefined && name.byteLength > BACKING_NAME_LIMIT) {
    throw unsupported(path, `cannot name a backing file in ${name.byteLength} bytes`, "choose a shorter path");
  }
  const place = name === undefined ? 0 : placeOfName(used, name.byteLength, clusterSize, before.backingAt);
  if (used > SECTOR || place === undefined) {
    throw unsupported(path, "has no room in its header for what must be kept there", "use clusters of 64 KiB");
  }
  fixed.writeBigUInt64BE(BigInt(place), 8);
  fixed.writeUInt32BE(name?.byteLength ?? 0, 16);
  const sector = Buffer.alloc(SECTOR);
  fixed.copy(sector);
  body.copy(sector, fixed.byteLength);
  if (name === undefined) return { sector };
  if (place < SECTOR) {
    name.copy(sector, place);
    return { sector };
  }
  return { sector, name: { offset: place, bytes: name } };
}

function placeOfName(
  used: number,
  length: number,
  clusterSize: number,
  old: { offset: number; length: number } | undefined,
): number | undefined {
  if (used + length <= SECTOR) return used;
  // Never over the name in use: until the first sector is written, that one counts.
  return [SECTOR, SECTOR + 1024, SECTOR + 2048].find(
    (place) =>
      place + length <= clusterSize &&
      (old === undefined || place + length <= old.offset || old.offset + old.length <= place),
  );
}

/** Changes an image's header atomically and durably; resolves with the header as it is then. */
export async function changeHeader(file: ImageFile, before: HeaderBefore, change: HeaderChange): Promise<Qcow2Header> {
  const { sector, name } = encodeHeader(file.path, before, change);
  if (name !== undefined) {
    await file.write(name.bytes, name.offset);
    await file.sync();
  }
  await file.write(sector, 0);
  await file.sync();
  return readHeader(file);
}
