import type { Wait } from "@diskferry/core/provider";
import { type ImageFile, type ImageFiles, localFiles, readFully } from "./image-file.ts";
import { Qcow2Image } from "./qcow2-image.ts";
import { COUNT_MASK, ReferenceCounter, WINDOW_CLUSTERS, refcountBlocks, windowLength } from "./references.ts";

/** What {@link checkQcow2} found. */
export interface Qcow2Check {
  readonly path: string;
  /** Clusters that are counted and not used: space lost, nothing worse. */
  readonly leaks: number;
  /** Clusters that are used more often than counted, and entries that cannot be right: data at risk. */
  readonly corruptions: number;
  /** The first of each, for people. */
  readonly messages: readonly string[];
  /** A writer was stopped: refcounts are behind on purpose, and neither leaks nor low counts are held against them. */
  readonly dirty: boolean;
  /** Clusters of guest data that have a place in the file. */
  readonly allocated: number;
  /** Bytes of the file up to the last cluster in use. */
  readonly end: number;
}

const MESSAGE_LIMIT = 100;

/**
 * Checks one image (not its backing files) as `qemu-img check` does: every reference against every refcount.
 * @throws ProviderError where the header alone tells that the image cannot be read.
 */
export async function checkQcow2(path: string, options: { files?: ImageFiles } & Wait = {}): Promise<Qcow2Check> {
  const file = await (options.files ?? localFiles()).open(path, "read");
  try {
    return await checkFile(path, file, options.signal);
  } finally {
    await file.close();
  }
}

async function checkFile(path: string, file: ImageFile, signal: AbortSignal | undefined): Promise<Qcow2Check> {
  const image = await Qcow2Image.load(file, { signal });
  const { clusterSize, dirty } = image.header;
  const messages: string[] = [];
  let leaks = 0;
  let corruptions = 0;
  const tell = (message: string): void => {
    if (messages.length < MESSAGE_LIMIT) messages.push(message);
  };
  const problem = (message: string): void => {
    corruptions++;
    tell(message);
  };
  const stored = await StoredRefcounts.open(image, problem);
  const fileClusters = Math.ceil(image.fileSize / clusterSize);
  const references = new ReferenceCounter(image, { refcounts: true, signal, problem });
  const counts = new Uint16Array(windowLength(image));
  let end = 1;
  let allocated = 0;
  for (let first = 0; first < Math.max(end, fileClusters); first += WINDOW_CLUSTERS) {
    counts.fill(0);
    const summary = await references.count({ first, counts });
    end = Math.max(end, summary.highest + 1);
    allocated = summary.allocated;
    if (dirty) continue;
    const last = Math.min(first + WINDOW_CLUSTERS, Math.max(end, fileClusters));
    for (let cluster = first; cluster < last; cluster++) {
      if (cluster === first || cluster % stored.perBlock === 0) {
        signal?.throwIfAborted();
        await stored.load(cluster);
      }
      const used = (counts[cluster - first] ?? 0) & COUNT_MASK;
      const counted = stored.of(cluster);
      if (counted === used) continue;
      const message = `the cluster at ${cluster * clusterSize} is counted ${counted} times and used ${used} times`;
      if (counted > used) {
        leaks++;
        tell(message);
      } else {
        problem(message);
      }
    }
  }
  return { path, leaks, corruptions, messages, dirty, allocated, end: end * clusterSize };
}

/** The refcounts as they are in the file, one block in memory. */
class StoredRefcounts {
  readonly perBlock: number;
  readonly #image: Qcow2Image;
  readonly #blocks: ReadonlyMap<number, number>;
  readonly #block: Buffer;

  private constructor(image: Qcow2Image, blocks: ReadonlyMap<number, number>) {
    const bits = 2 ** image.header.refcountOrder;
    this.perBlock = (image.header.clusterSize * 8) / bits;
    this.#image = image;
    this.#blocks = blocks;
    this.#block = Buffer.alloc(image.header.clusterSize);
  }

  static async open(image: Qcow2Image, problem: (message: string) => void): Promise<StoredRefcounts> {
    const { file, header } = image;
    const table = Buffer.alloc(header.refcountClusters * header.clusterSize);
    await readFully(file, table, header.refcountOffset, "refcount table");
    const blocks = new Map<number, number>();
    for (const [index, host] of refcountBlocks(table)) {
      if (host % header.clusterSize !== 0 || host + header.clusterSize > image.fileSize) {
        problem(`entry ${index} of the refcount table names a block at ${host}, where none can be`);
      } else {
        blocks.set(index, host);
      }
    }
    return new StoredRefcounts(image, blocks);
  }

  /** Makes the counts of the block that speaks of `cluster` ready for {@link of}. */
  async load(cluster: number): Promise<void> {
    const host = this.#blocks.get(Math.floor(cluster / this.perBlock));
    if (host === undefined) this.#block.fill(0);
    else await readFully(this.#image.file, this.#block, host, "refcounts");
  }

  of(cluster: number): number {
    const at = cluster % this.perBlock;
    const order = this.#image.header.refcountOrder;
    if (order < 3) {
      const perByte = 8 >>> order;
      return (this.#block[Math.floor(at / perByte)]! >>> ((at % perByte) << order)) & ((1 << (1 << order)) - 1);
    }
    if (order === 6) return Math.min(Number(this.#block.readBigUInt64BE(at * 8)), COUNT_MASK);
    return Math.min(this.#block.readUIntBE(at << (order - 3), 1 << (order - 3)), COUNT_MASK);
  }
}
