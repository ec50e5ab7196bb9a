import type { DiskSnapshot, Machine, Snapshot, SourceConnector, Tile } from "@diskferry/core/provider";
import { provider } from "../../src/index.ts";
import type { AwsOptions } from "../../src/index.ts";
import { type AwsWorld, block } from "../aws-world.ts";

/** A source over the simulator's Linux instance, and its root volume. */
export interface Place extends AsyncDisposable {
  source: SourceConnector;
  machine: Machine;
  root: string;
  notices: string[];
  /** Writes a block of the root volume. */
  write(index: number, bytes: Uint8Array): Promise<void>;
  /** Snapshots the root volume alone. */
  point(): Promise<DiskSnapshot>;
  /** Snapshots the whole machine. */
  snapshot(key?: string): Promise<Snapshot>;
}

let count = 0;

/** Opens a source over the world's Linux instance. */
export async function place(world: AwsWorld, options: Partial<AwsOptions> = {}): Promise<Place> {
  const { simulator } = world;
  const [root] = simulator.volumesOf(simulator.instances.linux);
  const notices: string[] = [];
  const source = await provider.source!(world.options(options), { notice: (message) => notices.push(message) });
  const machine = await source.machine(simulator.instances.linux);
  return {
    source,
    machine,
    root: root!,
    notices,
    write: (index, bytes) => simulator.writeVolume(root!, index * block, bytes),
    point: async () => (await source.snapshot(machine, { key: `point ${++count}`, disks: [root!] })).disks[0]!,
    snapshot: (key) => source.snapshot(machine, { key: key ?? `snapshot ${++count}` }),
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}

/** The tiles of a listing in blocks, as short text: `changed 0+2`. */
export function inBlocks(tiles: readonly Tile[]): string[] {
  const runs: { kind: string; from: number; count: number }[] = [];
  for (const { offset, length, kind } of tiles) {
    const last = runs.at(-1);
    if (last?.kind === kind) last.count += length / block;
    else runs.push({ kind, from: offset / block, count: length / block });
  }
  return runs.map(({ kind, from, count: blocks }) => `${kind} ${from}+${blocks}`);
}
