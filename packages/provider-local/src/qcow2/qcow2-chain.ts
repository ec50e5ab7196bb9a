import * as path from "node:path";
import { type Wait, isProviderError } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { type ChainLayer, closeLayers, openChain, resolveBacking } from "./backing-chain.ts";
import { createQcow2, isUnfinished } from "./create-qcow2.ts";
import { type ImageFile, type ImageFiles, localFiles } from "./image-file.ts";
import { refuseLocked } from "./image-locks.ts";
import { type Qcow2Header, type RunMark, changeHeader, looksLikeQcow2, readHeader } from "./qcow2-header.ts";
import { openQcow2Reader } from "./qcow2-reader.ts";
import { openQcow2Writer } from "./qcow2-writer.ts";

export interface ChainOptions extends Wait {
  files?: ImageFiles | undefined;
}

/** The files an image stands on, itself first. @throws ProviderError as the reader does. */
export async function listChain(file: string, options: ChainOptions = {}): Promise<ChainLayer[]> {
  const layers = await openChain(file, { files: options.files ?? localFiles(), signal: options.signal });
  await closeLayers(layers);
  return layers.map(({ layer }) => layer);
}

/**
 * The images that stand directly on `file`: those in its own folder, and `among` others.
 * @throws ProviderError IN_USE when an image there cannot be read well enough to tell.
 */
export async function findChildren(
  file: string,
  options: { among?: readonly string[] | undefined } & ChainOptions = {},
): Promise<string[]> {
  const files = options.files ?? localFiles();
  const identity = await identityOf(files, file);
  const folder = path.dirname(path.resolve(file));
  const candidates = new Set((await files.list(folder)).map((name) => path.join(folder, name)));
  for (const other of options.among ?? []) candidates.add(path.resolve(other));
  candidates.delete(path.resolve(file));
  const children: string[] = [];
  for (const candidate of candidates) {
    options.signal?.throwIfAborted();
    if (isUnfinished(candidate)) continue;
    const backing = await backingOf(files, candidate, file);
    if (backing !== undefined && (await identityOf(files, backing)) === identity) children.push(candidate);
  }
  return children.toSorted();
}

async function identityOf(files: ImageFiles, file: string): Promise<string | undefined> {
  try {
    const opened = await files.open(file, "read");
    try {
      return await opened.identity();
    } finally {
      await opened.close();
    }
  } catch (error) {
    if (isProviderError(error) && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

async function backingOf(files: ImageFiles, candidate: string, wanted: string): Promise<string | undefined> {
  let file: ImageFile;
  try {
    file = await files.open(candidate, "read");
  } catch (error) {
    // Folders, sockets and what vanished meanwhile are no images.
    if (isProviderError(error) && (error.code === "UNSUPPORTED" || error.code === "NOT_FOUND")) return undefined;
    throw error;
  }
  try {
    const start = new Uint8Array(4);
    await file.read(start, 0);
    if (!looksLikeQcow2(start)) return undefined;
    const { backing } = await readHeader(file);
    return backing === undefined ? undefined : resolveBacking(candidate, backing.name);
  } catch (error) {
    if (!isProviderError(error)) throw error;
    throw localError(
      "IN_USE",
      `whether ${candidate} stands on ${wanted} cannot be told, so that one stays: ${error.message}`,
      {
        operation: "remove",
        cause: error,
      },
    );
  } finally {
    await file.close();
  }
}

/**
 * Points an image at another backing file of the same content, in one atomic change of its header; `null` makes it stand
 * alone. Nothing is copied. @throws ProviderError UNSUPPORTED for version 2 or a name without room.
 */
export async function repointQcow2(
  file: string,
  backing: { path: string; format: "qcow2" | "raw" } | null,
  options: ChainOptions = {},
): Promise<void> {
  const opened = await (options.files ?? localFiles()).open(file, "write");
  try {
    refuseLocked(file, await opened.identity());
    const change = backing === null ? null : { name: backing.path, format: backing.format };
    await changeHeader(opened, await readHeader(opened), { backing: change });
  } finally {
    await opened.close();
  }
}

/** What {@link removeFromChain} did. */
export interface ChainRemoval {
  /** `removed`: nothing stood on it. `copied`: its content went into the child. `committed`: the child's into it. */
  readonly how: "removed" | "copied" | "committed";
  /** The image that stood on it and now stands on what it stood on. */
  readonly child?: string;
}

export interface RemoveOptions extends ChainOptions {
  /** Images outside of its folder that may stand on it. */
  among?: readonly string[] | undefined;
  /** Compress what is copied. */
  compress?: boolean | undefined;
}

/**
 * Removes an image from its chain; what stands on it reads the same before, after and at every moment between. With one
 * child, the smaller of the two is merged into the other. Interrupted, the same call does it again; from its first
 * moment on the image itself is no longer good for anything but this.
 * @throws ProviderError IN_USE when several images stand on it, when that cannot be told, or when one is locked by
 * another program; NOT_FOUND.
 */
export async function removeFromChain(file: string, options: RemoveOptions = {}): Promise<ChainRemoval> {
  const files = options.files ?? localFiles();
  await refuseHeld(files, file);
  const children = await findChildren(file, options);
  const child = children[0];
  if (child === undefined) {
    await files.remove(file);
    await files.syncFolder(path.dirname(file));
    return { how: "removed" };
  }
  if (children.length > 1) {
    throw localError(
      "IN_USE",
      `${file} cannot be removed: ${children.join(", ")} stand on it; remove all but one of them first`,
      {
        operation: "remove",
      },
    );
  }
  await refuseHeld(files, child);
  if (await maySwallow(files, file, child, options)) {
    await commitInto(files, file, child, options);
    return { how: "committed", child };
  }
  await copyInto(files, file, child, options);
  return { how: "copied", child };
}

async function refuseHeld(files: ImageFiles, file: string): Promise<void> {
  const identity = await identityOf(files, file);
  if (identity === undefined) {
    throw localError("NOT_FOUND", `${file} does not exist: nothing to remove`, { operation: "remove" });
  }
  refuseLocked(file, identity);
}

/** Whether writing the child into its backing file is possible and the lesser work. */
async function maySwallow(files: ImageFiles, file: string, child: string, options: Wait): Promise<boolean> {
  if (path.dirname(path.resolve(file)) !== path.dirname(path.resolve(child))) return false;
  const layers = await openChain(child, { files, signal: options.signal });
  try {
    const [above, below] = layers;
    if (below?.image === undefined || above?.image === undefined) return false;
    const { version, snapshots, bitmaps, extendedL2 } = below.image.header;
    if (version !== 3 || snapshots > 0 || bitmaps !== undefined || extendedL2 || above.layer.size !== below.layer.size)
      return false;
    return below.image.fileSize > above.image.fileSize;
  } finally {
    await closeLayers(layers);
  }
}

const COPY_LENGTH = 1024 * 1024;

/** Copies what the layers of `from` above depth `depth` hold into a writer, and commits it. */
async function copyAbove(
  from: string,
  depth: number,
  to: string,
  options: { files: ImageFiles; compress?: boolean | undefined } & Wait,
): Promise<void> {
  await using reader = await openQcow2Reader(from, options);
  await using writer = await openQcow2Writer(to, { ...options, run: `merge ${path.basename(from)}` });
  const buffer = new Uint8Array(COPY_LENGTH);
  const tiles = depth >= reader.chain.length ? reader.tiles(options) : reader.tilesAbove(depth, options);
  for await (const tile of tiles) {
    if (tile.kind === "zero") await writer.zero(tile.offset, tile.length, options);
    if (tile.kind !== "changed") continue;
    for (let done = 0; done < tile.length; done += COPY_LENGTH) {
      const part = buffer.subarray(0, Math.min(COPY_LENGTH, tile.length - done));
      await reader.read(tile.offset + done, part, options);
      await writer.write(tile.offset + done, part, options);
    }
  }
  await writer.commit({ written: none(), signal: options.signal });
}

async function* none(): AsyncGenerator<never> {}

async function headerOf(files: ImageFiles, file: string): Promise<Qcow2Header> {
  const opened = await files.open(file, "read");
  try {
    return await readHeader(opened);
  } finally {
    await opened.close();
  }
}

/** Whose image it is goes with the name, not with the file that ends up under it. */
async function carryMark(files: ImageFiles, mark: RunMark | undefined, to: string): Promise<void> {
  if (mark === undefined) return;
  const opened = await files.open(to, "write");
  try {
    await changeHeader(opened, await readHeader(opened), { mark });
  } finally {
    await opened.close();
  }
}

/**
 * The child's clusters go into its backing file, which then takes the child's name. What is written is hidden by the
 * child until that rename, so the child reads the same throughout.
 */
async function commitInto(files: ImageFiles, file: string, child: string, options: RemoveOptions): Promise<void> {
  const { mark } = await headerOf(files, child);
  await copyAbove(child, 1, file, { files, compress: options.compress, signal: options.signal });
  await carryMark(files, mark, file);
  await files.rename(file, child);
  await files.syncFolder(path.dirname(child));
}

/** A new image with what both hold takes the child's name, and stands on what the removed one stood on. */
async function copyInto(files: ImageFiles, file: string, child: string, options: RemoveOptions): Promise<void> {
  const chain = await listChain(child, { files, signal: options.signal });
  const [top, , base] = chain;
  const temporary = `${child}.merging`;
  await files.remove(temporary);
  const below = base === undefined ? undefined : backingName(chain, child, base);
  const { mark, compression } = await headerOf(files, child);
  try {
    await createQcow2({
      path: temporary,
      size: top!.size,
      clusterSize: top!.clusterSize,
      backing: below,
      compression,
      files,
    });
    await copyAbove(child, 2, temporary, { files, compress: options.compress, signal: options.signal });
    await carryMark(files, mark, temporary);
    await files.rename(temporary, child);
  } catch (error) {
    await files.remove(temporary);
    throw error;
  }
  await files.syncFolder(path.dirname(child));
  await files.remove(file);
  await files.syncFolder(path.dirname(file));
}

function backingName(
  chain: readonly ChainLayer[],
  child: string,
  base: ChainLayer,
): { path: string; format: "qcow2" | "raw" } {
  const name = chain[1]!.backing!.name;
  const plain = name.startsWith("file:") ? name.slice("file:".length) : name;
  const relative = path.isAbsolute(plain) ? plain : path.relative(path.dirname(path.resolve(child)), base.path);
  // A colon early in a relative name would be taken for a protocol.
  const safe = !path.isAbsolute(relative) && relative.includes(":") ? `./${relative}` : relative;
  return { path: safe, format: base.format };
}
