import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { BlockReader, BlockWriter, TargetProvider, Volume } from "@diskferry/core/provider";
import { provider } from "../src/index.ts";
import type { LocalOptions } from "../src/index.ts";

/** A shape of target, with options for a fresh folder. */
export interface Shape {
  name: string;
  options(folder: string): LocalOptions;
}

/** Every shape of target that needs no server. */
export const fileShapes: readonly Shape[] = [
  { name: "raw file", options: (folder) => ({ path: join(folder, "target.raw"), format: "raw" }) },
  { name: "raw directory", options: (folder) => ({ directory: sub(folder, "raw"), format: "raw" }) },
  { name: "qcow2 file", options: (folder) => ({ path: join(folder, "target.qcow2") }) },
  { name: "qcow2 directory", options: (folder) => ({ directory: sub(folder, "qcow2"), format: "qcow2" }) },
  { name: "qcow2 chain", options: (folder) => ({ directory: sub(folder, "chain") }) },
];

function sub(folder: string, name: string): string {
  mkdirSync(join(folder, name), { recursive: true });
  return join(folder, name);
}

/** The target of these options. */
export function targetOf(options: LocalOptions): Promise<TargetProvider> {
  return provider.target!(options);
}

/** Commits what was written; the extents are of no interest here. */
export function commit(writer: BlockWriter): Promise<Volume> {
  return writer.commit({ written: nothing() });
}

async function* nothing(): AsyncGenerator<never> {}

/** All of a disk. */
export async function bytesOf(reader: BlockReader): Promise<Uint8Array> {
  const bytes = new Uint8Array(reader.size);
  for (let offset = 0; offset < reader.size; offset += 1048576) {
    await reader.read(offset, bytes.subarray(offset, Math.min(reader.size, offset + 1048576)));
  }
  return bytes;
}

/** All of a committed volume. */
export async function volumeBytes(target: TargetProvider, volume: Volume): Promise<Uint8Array> {
  await using reader = await target.read!(volume);
  return await bytesOf(reader);
}

/** All that a listing yields. */
export async function listed<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** A member of a volume's data that has to be text. */
export function textOf(volume: Volume, name: string): string {
  const value = volume.data?.[name];
  if (typeof value !== "string") throw new TypeError(`the volume ${volume.id} has no ${name}`);
  return value;
}
