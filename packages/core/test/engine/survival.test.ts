import { describe, expect, it } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import type { Job, JobOptions } from "../../src/engine/job.ts";
import { replicate, type RunReport } from "../../src/engine/replicate.ts";
import { memoryPlace, type MemoryPlace, type MemoryPlaceOptions } from "../../src/memory/memory-place.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";

const MIB = 1 << 20;
const KILLED = new Error("the process was killed here");

/** One life of a job on a memory place whose shape, faults and guest all follow from a seed. */
class Life {
  readonly random: () => number;
  readonly place: MemoryPlace;
  readonly store = new MemoryStateStore();
  readonly shape: MemoryPlaceOptions;
  readonly options: JobOptions;
  readonly sizes: Record<string, number>;
  kills = 0;
  crashes = 0;
  resumed = 0;
  vanished = 0;

  constructor(seed: number) {
    this.random = randomFrom(seed);
    const maybe = <T>(value: T): T | undefined => (this.random() < 0.3 ? value : undefined);
    this.shape = {
      source: {
        tracker:
          this.random() < 0.25
            ? false
            : {
                granularity: this.pick([512, 4096, 65536, 262144]),
                tileLength: this.pick([65536, MIB, 64 * MIB]),
                hints: maybe(true),
                keepsBase: this.random() < 0.3,
              },
        blockSize: this.pick([512, 512, 4096]),
        concurrency: this.pick([1, 4, 8]),
        order: this.pick(["any", "any", "ascending"] as const),
        digests: maybe(true),
      },
      target: {
        style: this.pick(["in-place", "versioned"] as const),
        blockSize: this.pick([512, 4096, 65536, 524288]),
        concurrency: this.pick([1, 4]),
        blank: maybe(false),
        zero: maybe(false),
        writerRead: maybe(false),
        read: maybe(false),
        digest: this.random() < 0.2 ? "sha256" : undefined,
        sizeUnit: this.pick([512, MIB]),
        removal: "merge",
      },
    };
    // Hints belong to tiles, so tiles that carry them lie on the reader's blocks.
    const { tracker } = this.shape.source!;
    if (tracker !== false && tracker?.hints === true) this.shape.source!.blockSize = 512;
    if (this.shape.target!.digest !== undefined) this.shape.target!.blockSize = 524288;
    // Only a target that is told digests is written in whole blocks, so only there the list of them can be exact.
    this.shape.target!.written = this.shape.target!.digest === undefined ? "covers" : "exact";
    this.options = {
      leaf: 64 << 10,
      memory: 4 * MIB,
      journal: { bytes: this.pick([256 << 10, MIB, 16 * MIB]) },
      verify: this.pick(["written", "written", "full", "none"] as const),
      attempts: { baseMs: 0, maxMs: 1, perAttemptMs: 5_000, attempts: 3 },
    };
    this.sizes = { root: 6 * MIB, data: 2 * MIB + 4096 };
    this.place = memoryPlace(this.shape);
    const disks = Object.entries(this.sizes).map(([key, size]) => ({ key, size }));
    this.place.addMachine({ id: "vm", name: "vm", disks });
  }

  /** What the disks held at the last record. */
  readonly #past = new Map<string, Uint8Array>();

  remember(): void {
    for (const disk of Object.keys(this.sizes)) this.#past.set(disk, this.place.read("vm", disk));
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.random() * from.length)]!;
  }

  job(): Job {
    return {
      id: "job",
      source: this.place.source,
      machine: "vm",
      target: this.place.target,
      store: this.store,
      options: this.options,
    };
  }

  /** The guest writes and trims here and there. */
  write(times: number): void {
    for (let time = 0; time < times; time++) {
      const disk = this.pick(Object.keys(this.sizes));
      const size = this.sizes[disk]!;
      const length = 512 * (1 + Math.floor(this.random() ** 3 * Math.min(1000, size / 512 - 1)));
      const offset = 512 * Math.floor(this.random() * ((size - length) / 512));
      if (this.random() < 0.25) this.place.trim("vm", disk, offset, length);
      else this.place.write("vm", disk, offset, randomBytes(length, Math.floor(this.random() * 1e9)));
    }
  }

  /** Runs the job to its end, killed at random calls on the way. */
  async runToEnd(): Promise<RunReport> {
    for (let attempt = 0; attempt < 12; attempt++) {
      const deadly = attempt < 10 && this.random() < 0.75;
      let callsLeft = deadly ? Math.floor(this.random() ** 2 * 400) : Infinity;
      let dead = false;
      const strike = (): void => {
        if (dead || callsLeft-- <= 0) {
          dead = true;
          throw KILLED;
        }
        if (deadly && this.random() < 0.01) throw new ProviderError("UNAVAILABLE", "a passing failure");
      };
      // Half of the kills hit before a call takes effect, half lose its answer.
      if (this.random() < 0.5) this.place.fault = strike;
      else this.place.answer = strike;
      try {
        const report = await replicate(this.job());
        this.place.fault = this.place.answer = undefined;
        if (report.resumed) this.resumed++;
        return report;
      } catch (error) {
        this.place.fault = this.place.answer = undefined;
        if (
          !dead &&
          !(error instanceof Error && /passing failure|lost with|write of run|connection/.test(error.message))
        )
          throw error;
        this.kills++;
        if (this.random() < 0.6) {
          this.crashes++;
          this.place.crash({ seed: Math.floor(this.random() * 1e9), writers: "dead" });
        }
        if (this.random() < 0.5) this.write(5);
        if (this.random() < 0.2) await this.loseSnapshot();
        if (this.random() < 0.1 && this.shape.source?.tracker !== false) this.place.breakTracking("lost");
      }
    }
    throw new Error("the job did not end within 12 attempts, of which the last two were left alone");
  }

  /** Somebody removes the snapshot of the run under way. */
  async loseSnapshot(): Promise<void> {
    const found = (await this.store.get("jobs/job/state"))?.value as { run?: { snapshot?: never } } | undefined;
    if (found?.run?.snapshot === undefined) return;
    await this.place.source.release(found.run.snapshot);
    this.vanished++;
    // The guest takes back what it wrote: the source holds again what the last record says, and the target does not.
    if (this.random() < 0.7) for (const [disk, past] of this.#past) this.place.write("vm", disk, 0, past);
  }

  check(report: RunReport): void {
    for (const disk of report.disks) {
      const actual = this.place.volumeBytes(disk.volume!.id, 0, disk.size);
      const expected = this.place.read("vm", disk.disk);
      if (Buffer.compare(actual, expected) === 0) continue;
      const first = actual.findIndex((byte, at) => byte !== expected[at]);
      throw new Error(`disk ${disk.disk} (${disk.mode}) differs from its snapshot, first at ${first}`);
    }
  }
}

describe("a job that is killed again and again", () => {
  const first = seedOf(20261);
  const lives = Number(process.env["DISKFERRY_LIVES"] ?? 60);

  it(`ends with the bytes of its snapshot in each of ${lives} lives from seed ${first}`, async () => {
    const totals = { runs: 0, kills: 0, crashes: 0, resumed: 0, vanished: 0, modes: {} as Record<string, number> };
    for (let seed = first; seed < first + lives; seed++) {
      const life = new Life(seed);
      try {
        life.write(30);
        for (let run = 0; run < 4; run++) {
          // What the guest writes while a run is under way belongs to the next one, so the check runs on a quiet disk.
          const report = await life.runToEnd();
          const again = await replicate(life.job());
          life.check(again);
          life.remember();
          totals.runs += 2;
          for (const disk of [...report.disks, ...again.disks])
            totals.modes[disk.mode] = (totals.modes[disk.mode] ?? 0) + 1;
          life.write(12);
        }
      } catch (error) {
        throw new Error(
          `seed ${seed}: ${(error as Error).message}\n${JSON.stringify(life.shape)} ${JSON.stringify(life.options)}`,
          {
            cause: error,
          },
        );
      }
      for (const key of ["kills", "crashes", "resumed", "vanished"] as const) totals[key] += life[key];
    }
    console.log(`lives ${lives}: ${JSON.stringify(totals)}`);
    expect(totals.kills).toBeGreaterThan(lives);
    expect(totals.resumed).toBeGreaterThan(0);
    expect(totals.vanished).toBeGreaterThan(0);
    for (const mode of ["full", "incremental", "rescan"]) expect(totals.modes[mode]).toBeGreaterThan(0);
  }, 300_000);
});
