import { createReadStream, createWriteStream, readdirSync, readFileSync } from "node:fs";
import { randomFillSync } from "node:crypto";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { join } from "node:path";

const MIB = 1 << 20;

/** Fills a file with bytes that do not compress and hold no zero block. */
export async function makeDenseDisk(path: string, size: number): Promise<void> {
  const file = await open(path, "w");
  try {
    const block = new Uint8Array(4 * MIB);
    for (let offset = 0; offset < size; offset += block.length) {
      randomFillSync(block);
      await file.write(block, 0, Math.min(block.length, size - offset), offset);
    }
  } finally {
    await file.close();
  }
}

/** A sparse file with `share` of its MiB filled, evenly spread, the rest holes. */
export async function makeSparseDisk(path: string, size: number, share: number): Promise<void> {
  const file = await open(path, "w");
  try {
    await file.truncate(size);
    await spread(size, share, async (offset, block) => {
      await file.write(block, 0, block.length, offset);
    });
  } finally {
    await file.close();
  }
}

/** Calls `put` with random MiB that make up `share` of a disk, evenly spread. */
export async function spread(
  size: number,
  share: number,
  put: (offset: number, block: Uint8Array) => Promise<void>,
): Promise<void> {
  const places = Math.max(1, Math.floor((size / MIB) * share));
  const block = new Uint8Array(MIB);
  for (let place = 0; place < places; place++) {
    randomFillSync(block);
    await put(Math.floor(((place + 0.5) * (size / MIB)) / places) * MIB, block);
  }
}

/** Fills a file with what servers hold: programs and texts of this machine, one after the other, again and again. */
export async function makeCompressibleDisk(path: string, size: number): Promise<void> {
  const file = await open(path, "w");
  try {
    let offset = 0;
    while (offset < size) {
      const before = offset;
      for (const content of filesOf(["/usr/bin", "/usr/lib", "/usr/share/doc"])) {
        const length = Math.min(content.length, size - offset);
        await file.write(content, 0, length, offset);
        offset = Math.ceil((offset + length) / 4096) * 4096;
        if (offset >= size) break;
      }
      if (offset === before) throw new Error("no files were found to fill a disk with");
    }
    await file.truncate(size);
  } finally {
    await file.close();
  }
}

/** Copies a file as it is, holes filled. */
export async function copyFileWhole(from: string, to: string): Promise<void> {
  await pipeline(createReadStream(from, { highWaterMark: 4 * MIB }), createWriteStream(to));
}

function* filesOf(folders: readonly string[]): Generator<Buffer, void> {
  for (const folder of folders) {
    for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
      if (!entry.isFile()) continue;
      try {
        yield readFileSync(join(entry.parentPath, entry.name));
      } catch (error) {
        // Some files are for other users alone.
        if ((error as { code?: unknown }).code !== "EACCES") throw error;
      }
    }
  }
}
