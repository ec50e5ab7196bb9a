import * as path from "node:path";
import type { Wait } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import type { ImageFile, ImageFiles } from "./image-file.ts";
import { looksLikeQcow2 } from "./qcow2-header.ts";
import { Qcow2Image } from "./qcow2-image.ts";

/** One file of a backing chain, for people and for retention. */
export interface ChainLayer {
  /** Absolute. */
  readonly path: string;
  /** Device and inode: two paths with the same identity are one file. */
  readonly identity: string;
  readonly format: "qcow2" | "raw";
  /** Bytes of its disk. */
  readonly size: number;
  /** Absent for raw. */
  readonly clusterSize?: number;
  /** Internal snapshots, which reading ignores. */
  readonly snapshots: number;
  /** Refcounts may be behind (a writer was stopped); no harm for reading. */
  readonly dirty: boolean;
  /** As the image names it, and where that is. */
  readonly backing?: { readonly name: string; readonly path: string; readonly format: string | undefined };
}

/** An open layer: `image` for qcow2, else the file itself is the disk. */
export interface OpenLayer {
  readonly layer: ChainLayer;
  readonly file: ImageFile;
  readonly image: Qcow2Image | undefined;
  /** Raw only: a file without one allocated block reads as zeroes throughout. */
  readonly empty: boolean;
}

/** A chain longer than this is a loop through hard links or an accident; qemu itself slows down long before. */
const DEPTH_LIMIT = 256;
/** L1 tables are held whole; over a chain they stay below this. */
const TABLE_LIMIT = 128 * 1024 * 1024;

export interface OpenChainOptions extends Wait {
  files: ImageFiles;
  /** Blocking calls, inside a worker. */
  immediate?: boolean;
  /** What the top file is; `qcow2` when absent. */
  format?: "qcow2" | "raw" | undefined;
}

/**
 * Where the backing file that an image names is. @throws ProviderError UNSUPPORTED for anything but a path (`json:`,
 * `nbd:` and other protocols).
 */
export function resolveBacking(image: string, name: string): string {
  let plain = name;
  const protocol = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(name);
  if (protocol !== null) {
    if (protocol[1] !== "file" || name.startsWith("file://")) {
      throw localError(
        "UNSUPPORTED",
        `${image} stands on "${protocol[1]}:…", which is no plain path: serve it with "qemu-nbd --read-only ${image}" and copy from there`,
        { operation: "open" },
      );
    }
    plain = name.slice("file:".length);
  }
  if (plain === "" || plain.includes("\0")) {
    throw localError("CORRUPT", `${image} names a backing file by no usable path: see "qemu-img info ${image}"`, {
      operation: "open",
    });
  }
  return path.resolve(path.dirname(path.resolve(image)), plain);
}

async function openRawLayer(file: ImageFile): Promise<OpenLayer> {
  const size = await file.size();
  const layer: ChainLayer = {
    path: path.resolve(file.path),
    identity: await file.identity(),
    format: "raw",
    size,
    snapshots: 0,
    dirty: false,
  };
  return { layer, file, image: undefined, empty: size === 0 };
}

async function openImageLayer(file: ImageFile, options: OpenChainOptions): Promise<OpenLayer> {
  const image = await Qcow2Image.load(file, options);
  const { header } = image;
  const layer: ChainLayer = {
    path: path.resolve(file.path),
    identity: await file.identity(),
    format: "qcow2",
    size: header.size,
    clusterSize: header.clusterSize,
    snapshots: header.snapshots,
    dirty: header.dirty,
    ...(header.backing === undefined
      ? {}
      : { backing: { ...header.backing, path: resolveBacking(file.path, header.backing.name) } }),
  };
  return { layer, file, image, empty: false };
}

async function formatOf(file: ImageFile, declared: string | undefined, image: string): Promise<"qcow2" | "raw"> {
  if (declared === "raw" || declared === "qcow2") return declared;
  if (declared !== undefined) {
    throw localError(
      "UNSUPPORTED",
      `${image} stands on ${file.path} in the format "${declared}": serve it with "qemu-nbd --read-only ${image}" and copy from there`,
      { operation: "open" },
    );
  }
  const start = new Uint8Array(4);
  await file.read(start, 0);
  return looksLikeQcow2(start) ? "qcow2" : "raw";
}

/**
 * Opens an image and everything it stands on, the top first. The caller closes every file of the result; on failure
 * none is left open. A backing file without a stated format is probed as qemu does, but one that is probed as qcow2
 * must not stand on anything itself: a guest that wrote a header into its raw disk could name any file of this machine.
 * @throws ProviderError NOT_FOUND, UNSUPPORTED, CORRUPT (loops among them).
 */
export async function openChain(top: string, options: OpenChainOptions): Promise<OpenLayer[]> {
  const layers: OpenLayer[] = [];
  const seen = new Set<string>();
  let next: { path: string; format: string | undefined; probed: boolean } | undefined = {
    path: top,
    format: options.format ?? "qcow2",
    probed: false,
  };
  let tables = 0;
  try {
    while (next !== undefined) {
      options.signal?.throwIfAborted();
      const { path: at, format, probed }: { path: string; format: string | undefined; probed: boolean } = next;
      if (layers.length === DEPTH_LIMIT) {
        throw localError(
          "UNSUPPORTED",
          `${top} stands on more than ${DEPTH_LIMIT} files: merge some with "qemu-img commit"`,
          {
            operation: "open",
          },
        );
      }
      const file = await options.files.open(at, "read");
      try {
        const found = await formatOf(file, format, layers.at(-1)?.layer.path ?? top);
        const opened: OpenLayer = found === "raw" ? await openRawLayer(file) : await openImageLayer(file, options);
        layers.push(opened);
      } catch (error) {
        await file.close();
        throw error;
      }
      const { layer, image } = layers.at(-1)!;
      if (seen.has(layer.identity)) {
        throw localError(
          "CORRUPT",
          `the backing chain of ${top} comes back to ${layer.path}: set it right with "qemu-img rebase -u"`,
          {
            operation: "open",
          },
        );
      }
      seen.add(layer.identity);
      tables += image?.l1.byteLength ?? 0;
      if (tables > TABLE_LIMIT) {
        throw localError(
          "UNSUPPORTED",
          `the L1 tables of the chain of ${top} are larger than ${TABLE_LIMIT} bytes: use larger clusters`,
          {
            operation: "open",
          },
        );
      }
      if (layer.backing !== undefined && probed) {
        throw localError(
          "UNSUPPORTED",
          `${layer.path} is a backing file whose format is not stated, and it names another file: state it with "qemu-img rebase -u -b … -F qcow2" on the image above`,
          { operation: "open" },
        );
      }
      next =
        layer.backing === undefined
          ? undefined
          : { path: layer.backing.path, format: layer.backing.format, probed: layer.backing.format === undefined };
    }
    return layers;
  } catch (error) {
    await closeLayers(layers);
    throw error;
  }
}

/** Closes every file of a chain. */
export async function closeLayers(layers: readonly OpenLayer[]): Promise<void> {
  for (const { file } of layers) await file.close();
}

/** What a range of a chain holds: which layer answers, and how. */
export interface ChainRun {
  readonly kind: "data" | "zero" | "hole" | "compressed";
  readonly length: number;
  readonly host: number;
  readonly packed: number;
  /** The layer that answered; for a `hole` the one below which nothing is looked at. */
  readonly depth: number;
}

/**
 * The run at `offset`, looking down from layer `from` and not below layer `to` (exclusive; default all). Beyond the end
 * of a lower layer there are zeroes. A `hole` is left only where every layer looked at has none of it.
 */
export async function chainRun(
  layers: readonly OpenLayer[],
  from: number,
  offset: number,
  limit: number,
  to: number = layers.length,
): Promise<ChainRun> {
  let most = limit;
  for (let depth = from; depth < to; depth++) {
    const { layer, image, empty } = layers[depth]!;
    if (offset >= layer.size) return { kind: "zero", length: most, host: 0, packed: 0, depth };
    most = Math.min(most, layer.size - offset);
    if (image === undefined) {
      return { kind: empty ? "zero" : "data", length: most, host: offset, packed: 0, depth };
    }
    const run = await image.run(offset, most);
    if (run.kind !== "hole") return { ...run, depth };
    most = run.length;
  }
  return { kind: "hole", length: most, host: 0, packed: 0, depth: to };
}

/** Unpacked clusters kept for reads that take less than one at a time. */
const UNPACKED_CACHE = 4;

/** Reads the content of a chain, as an image at layer `from` shows it. */
export class ChainContent {
  readonly layers: readonly OpenLayer[];
  readonly #unpacked = new Map<string, Uint8Array>();

  constructor(layers: readonly OpenLayer[]) {
    this.layers = layers;
  }

  /** Fills `into`. What lies beyond the end of the disk reads as zeroes. */
  async read(from: number, offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    let done = 0;
    while (done < into.byteLength) {
      signal?.throwIfAborted();
      const at = offset + done;
      const run = await chainRun(this.layers, from, at, into.byteLength - done);
      const part = into.subarray(done, done + run.length);
      if (run.kind === "zero" || run.kind === "hole") part.fill(0);
      else if (run.kind === "compressed") await this.#readCompressed(run, at, part);
      else await this.#readPlain(run, part);
      done += run.length;
    }
  }

  async #readPlain(run: ChainRun, into: Uint8Array): Promise<void> {
    const { image, file } = this.layers[run.depth]!;
    if (image !== undefined) return image.readData(into, run.host);
    const count = await file.read(into, run.host);
    if (count < into.byteLength) {
      throw localError("CORRUPT", `${file.path} has become shorter while it was read`, { operation: "read" });
    }
  }

  async #readCompressed(run: ChainRun, offset: number, into: Uint8Array): Promise<void> {
    const image = this.layers[run.depth]!.image!;
    const { clusterSize } = image.header;
    const within = offset % clusterSize;
    if (within === 0 && into.byteLength === clusterSize) return image.readCompressed(into, run.host, run.packed);
    const key = `${run.depth}:${run.host}`;
    let cluster = this.#unpacked.get(key);
    if (cluster === undefined) {
      cluster = new Uint8Array(clusterSize);
      await image.readCompressed(cluster, run.host, run.packed);
      if (this.#unpacked.size >= UNPACKED_CACHE) {
        for (const oldest of this.#unpacked.keys()) {
          this.#unpacked.delete(oldest);
          break;
        }
      }
      this.#unpacked.set(key, cluster);
    }
    into.set(cluster.subarray(within, within + into.byteLength));
  }
}
