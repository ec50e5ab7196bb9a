import { randomBytes as freshBytes } from "node:crypto";
import {
  type Job,
  replicate,
  type RunReport,
  type SourceConnector,
  type TargetProvider,
  type Volume,
} from "@diskferry/core";
import { expect } from "vitest";
import { snapshotIdOf, type World } from "../../packages/provider-vmware/test/world.ts";
import { randomFrom } from "../seed.ts";

/** The simulator's machine whose disks are copied, and what its snapshots held. */
export class ReplicatedMachine {
  readonly world: World;
  readonly name: string;
  /** By snapshot id and disk: the bytes that were frozen. */
  readonly #held = new Map<string, Map<string, Uint8Array>>();
  #writing: Promise<void> | undefined;
  #stop = false;

  constructor(world: World, name = "web") {
    this.world = world;
    this.name = name;
  }

  /** Keeps what every snapshot of a source freezes. */
  watched(source: SourceConnector): SourceConnector {
    const take = source.snapshot.bind(source);
    source.snapshot = async (machine, request) => {
      const snapshot = await take(machine, request);
      const disks = new Map<string, Uint8Array>();
      for (const { disk } of snapshot.disks) {
        disks.set(disk, this.world.simulator.readDisk(this.name, Number(disk), { snapshot: snapshotIdOf(snapshot) }));
      }
      this.#held.set(snapshot.id, disks);
      return snapshot;
    };
    return source;
  }

  /** What a run's snapshot held of a disk. */
  held(report: RunReport, disk: string): Uint8Array {
    const found = this.#held.get(report.snapshot.id)?.get(disk);
    if (found === undefined) throw new Error(`nobody saw ${report.snapshot.id}`);
    return found;
  }

  /** Lets the guest write here and there until {@link rest}. */
  work(seed: number): void {
    const random = randomFrom(seed);
    const { simulator } = this.world;
    this.#stop = false;
    this.#writing = (async () => {
      while (!this.#stop) {
        const machine = simulator.machine(this.name);
        if (machine.power === "poweredOn") {
          const keys = [...machine.disks.keys()];
          const key = keys[Math.floor(random() * keys.length)]!;
          const { capacity } = machine.disks.get(key)!;
          const length = 512 * (1 + Math.floor(random() * 16));
          const offset = 512 * Math.floor(random() * Math.max(1, (capacity - length) / 512));
          if (random() < 0.1) simulator.trim(this.name, key, offset, length);
          else simulator.write(this.name, key, offset, freshBytes(length));
        }
        await new Promise((resolve) => setTimeout(resolve, 3));
      }
    })();
  }

  /** Ends {@link work}. */
  async rest(): Promise<void> {
    this.#stop = true;
    await this.#writing;
  }

  /** Demands that a target's volumes hold, byte for byte, what the run's snapshot held. */
  async demandEqual(report: RunReport, target: TargetProvider): Promise<void> {
    for (const { disk, volume } of report.disks) {
      const held = this.held(report, disk);
      const replica = await readVolume(target, volume!, held.length);
      const at = Buffer.compare(replica, held) === 0 ? -1 : replica.findIndex((byte, index) => byte !== held[index]);
      expect(at, `${report.run}: disk ${disk} differs first at this byte`).toBe(-1);
    }
  }

  /** Demands that nothing of ours is left at vCenter. */
  demandClean(): void {
    const machine = this.world.simulator.machine(this.name);
    expect([...machine.snapshots()].map((each) => each.name).filter((name) => name.startsWith("diskferry"))).toEqual(
      [],
    );
    expect(machine.consolidationNeeded).toBe(false);
    expect(this.world.simulator.alive.leases).toBe(0);
  }
}

/** Reads the first bytes of a volume. */
export async function readVolume(target: TargetProvider, volume: Volume, length: number): Promise<Uint8Array> {
  const reader = await target.read!(volume);
  try {
    const step = Math.max(1 << 20, reader.blockSize);
    const end = Math.ceil(length / reader.blockSize) * reader.blockSize;
    const bytes = new Uint8Array(end);
    for (let at = 0; at < end; at += step) {
      await reader.read(at, bytes.subarray(at, Math.min(end, at + step, reader.size)));
    }
    return bytes.subarray(0, length);
  } finally {
    await reader[Symbol.asyncDispose]();
  }
}

/** Runs a job until it is done, as somebody does who starts it again after a failure; at most so often. */
export async function replicateUntilDone(
  job: () => Job | Promise<Job>,
  tries = 6,
): Promise<{ report: RunReport; failures: Error[] }> {
  const failures: Error[] = [];
  for (let attempt = 0; attempt < tries; attempt++) {
    try {
      return { report: await replicate(await job()), failures };
    } catch (error) {
      failures.push(error as Error);
    }
  }
  throw new AggregateError(failures, `the job was not done after ${tries} tries: ${failures.map(String).join("; ")}`);
}
