import type { Wait } from "@diskferry/core/provider";
import { readFully, type ImageFile } from "./image-file.ts";
import type { Qcow2Image } from "./qcow2-image.ts";
import {
  COUNT_MASK,
  ReferenceCounter,
  type CountWindow,
  WINDOW_CLUSTERS,
  refcountBlocks,
  windowLength,
} from "./references.ts";

/** Where a refcount table with its blocks right behind it lies; clusters. */
export interface RefcountPlace {
  readonly first: number;
  readonly tableClusters: number;
  readonly blocks: number;
  /** The clusters of the file that they speak of, themselves included. */
  readonly clusters: number;
}

/** Refcounts of ours have 16 bits. */
const BYTES = 2;

/** How large the refcounts of a file of `clusters` are, when they lie inside it (`own` false) or are added to it. */
export function planRefcounts(clusters: number, clusterSize: number, first: number, own: boolean): RefcountPlace {
  let total = clusters;
  for (;;) {
    const blocks = Math.ceil(total / (clusterSize / BYTES));
    const tableClusters = Math.ceil((blocks * 8) / clusterSize);
    const next = own ? clusters + blocks + tableClusters : clusters;
    if (next === total) return { first, tableClusters, blocks, clusters: total };
    total = next;
  }
}

/** Writes refcounts; `counts(first, into)` fills 16-bit counts from cluster `first` on. */
export async function writeRefcounts(
  file: ImageFile,
  clusterSize: number,
  place: RefcountPlace,
  counts: (first: number, into: Uint16Array) => Promise<void>,
): Promise<void> {
  const perBlock = clusterSize / BYTES;
  const values = new Uint16Array(perBlock);
  for (let block = 0; block < place.blocks; block++) {
    values.fill(0);
    await counts(block * perBlock, values);
    const bytes = Buffer.from(values.buffer);
    await file.write(bytes.swap16(), (place.first + place.tableClusters + block) * clusterSize);
  }
  const table = Buffer.alloc(place.tableClusters * clusterSize);
  for (let block = 0; block < place.blocks; block++) {
    table.writeBigUInt64BE(BigInt((place.first + place.tableClusters + block) * clusterSize), block * 8);
  }
  await file.write(table, place.first * clusterSize);
}

/**
 * Counts every reference anew and writes fresh refcounts beside the old ones, which stay as they are until the header
 * names the new. Resolves with their place and the clusters the file has to keep.
 */
export async function rebuildRefcounts(
  image: Qcow2Image,
  options: { problem(message: string): void } & Wait,
): Promise<{ place: RefcountPlace; end: number }> {
  const { file, header } = image;
  const { clusterSize } = header;
  const old = await oldClusters(image);
  let window: CountWindow = { first: 0, counts: new Uint16Array(windowLength(image)) };
  const references = new ReferenceCounter(image, { ...options, refcounts: false });
  const { highest } = await references.count(window);
  const referenced = highest + 1;
  const inside = planRefcounts(referenced, clusterSize, 0, false);
  const hole = findHole(window.counts, referenced, inside.tableClusters + inside.blocks, old);
  const place: RefcountPlace =
    hole === undefined ? placeAtEnd(referenced, clusterSize, old) : { ...inside, first: hole };
  const owned = (cluster: number): boolean =>
    cluster >= place.first && cluster < place.first + place.tableClusters + place.blocks;
  await writeRefcounts(file, clusterSize, place, async (first, into) => {
    if (first >= window.first + WINDOW_CLUSTERS) {
      window = { first, counts: new Uint16Array(WINDOW_CLUSTERS) };
      await references.count(window);
    }
    for (let index = 0; index < into.length; index++) {
      into[index] = owned(first + index) ? 1 : window.counts[first - window.first + index]! & COUNT_MASK;
    }
  });
  return { place, end: place.clusters };
}

/** Right behind what is referred to, or behind the old ones where those are in the way. */
function placeAtEnd(referenced: number, clusterSize: number, old: ReadonlySet<number>): RefcountPlace {
  let behind = referenced;
  for (const cluster of old) behind = Math.max(behind, cluster + 1);
  const near = planRefcounts(referenced, clusterSize, referenced, true);
  for (let cluster = referenced; cluster < near.clusters; cluster++) {
    if (old.has(cluster)) return planRefcounts(behind, clusterSize, behind, true);
  }
  return near;
}

async function oldClusters(image: Qcow2Image): Promise<Set<number>> {
  const { file, header } = image;
  const { refcountOffset, refcountClusters, clusterSize } = header;
  const clusters = new Set<number>();
  for (let index = 0; index < refcountClusters; index++) clusters.add(refcountOffset / clusterSize + index);
  const table = Buffer.alloc(refcountClusters * clusterSize);
  await readFully(file, table, refcountOffset, "refcount table");
  for (const [, host] of refcountBlocks(table)) {
    // A block that is named beyond the file is no block: nothing there to keep.
    if (host < image.fileSize) clusters.add(Math.floor(host / clusterSize));
  }
  return clusters;
}

function findHole(
  counts: Uint16Array,
  clusters: number,
  length: number,
  taken: ReadonlySet<number>,
): number | undefined {
  let run = 0;
  for (let cluster = 1; cluster < Math.min(clusters, counts.length); cluster++) {
    run = counts[cluster] === 0 && !taken.has(cluster) ? run + 1 : 0;
    if (run === length) return cluster - length + 1;
  }
  return undefined;
}
