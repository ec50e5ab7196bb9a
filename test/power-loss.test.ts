import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type JobOptions,
  type MemoryPlace,
  type RunReport,
  type Snapshot,
  memoryPlace,
  openDirectoryState,
  replicate,
} from "@diskferry/core";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { LosingFiles } from "../packages/core/test/state/losing-files.ts";
import { type LosingTarget, losingTargets } from "./power/losing-targets.ts";
import { randomBytes, randomFrom, seedOf } from "./seed.ts";

// The power goes at any step: of the machine that runs the job with its state directory and its target, of that machine
// alone while the target goes on elsewhere, or of the target alone while the job goes on. Whatever was not flushed is at
// stake, in any part. The source stands somewhere else.

const KIB = 1 << 10;
const MIB = 1 << 20;
const diskSize = 8 * MIB;
const lossesPerTarget = 60;
const kinds = ["machine", "state", "target"] as const;
const modes = ["auto", "auto", "rescan", "auto", "full"] as const;

const counts: Record<
  string,
  Record<(typeof kinds)[number], number> & { resumed: number; vanished: number; runs: number }
> = {};
let home = "";

beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "diskferry-power-"));
  vi.stubEnv("XDG_STATE_HOME", home);
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true, force: true });
});

class Life {
  readonly #random: () => number;
  readonly #target: LosingTarget;
  readonly #count: (typeof counts)[string];
  readonly #source: MemoryPlace = memoryPlace({ source: { concurrency: 4 } });
  readonly #about: string;
  #files: LosingFiles;
  /** What the disk held at the last record. */
  #recorded: Uint8Array | undefined;

  constructor(name: string, target: LosingTarget, seed: number) {
    this.#random = randomFrom(seed);
    this.#target = target;
    this.#count = counts[name] ??= { machine: 0, state: 0, target: 0, resumed: 0, vanished: 0, runs: 0 };
    this.#about = `${name}, seed ${seed}`;
    this.#files = new LosingFiles(this.#random);
    this.#source.addMachine({ id: "vm", name: "vm", disks: [{ key: "disk", size: diskSize }] });
    this.#source.write("vm", "disk", 0, randomBytes(6 * MIB, seed));
  }

  get losses(): number {
    return this.#count.machine + this.#count.state + this.#count.target;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #guestWrites(): void {
    for (let time = 0; time < 30; time++) {
      const length = 512 * (1 + this.#below(200));
      const offset = 512 * this.#below((diskSize - length) / 512);
      if (this.#random() < 0.2) this.#source.trim("vm", "disk", offset, length);
      else this.#source.write("vm", "disk", offset, randomBytes(length, this.#below(1e9)));
    }
  }

  /** One run, whatever power it takes. */
  async run(mode: (typeof modes)[number]): Promise<void> {
    let attempts = 0;
    for (;;) {
      const kind = attempts++ < 6 ? kinds[this.#below(3)]! : undefined;
      const report = await this.#attempt(mode, kind);
      if (report === undefined) {
        if (this.#random() < 0.25) await this.#loseSnapshot();
        continue;
      }
      this.#count.runs++;
      if (report.resumed) this.#count.resumed++;
      const { volume } = report.disks[0]!;
      const actual = await this.#target.bytes(volume!, diskSize);
      const expected = this.#source.read("vm", "disk");
      if (Buffer.compare(actual, expected) !== 0) {
        const at = actual.findIndex((byte, index) => byte !== expected[index]);
        throw new Error(`${report.disks[0]!.mode} differs from its snapshot, first at ${at}; ${this.#about}`);
      }
      this.#recorded = Uint8Array.from(expected);
      this.#guestWrites();
      return;
    }
  }

  /** Somebody removes the snapshot of the interrupted run, and the guest goes on: another run takes over. */
  async #loseSnapshot(): Promise<void> {
    const store = await openDirectoryState("/srv/state", { files: this.#files, identity: this.#files.identity });
    const state = await store.get("jobs/job/state");
    const { run } = (state?.value ?? {}) as { run?: { snapshot?: Snapshot } };
    if (run?.snapshot === undefined) return;
    await this.#source.source.release(run.snapshot);
    // Half of the time the guest takes back all since the last record, which the lost run may have copied already.
    if (this.#random() < 0.5 && this.#recorded !== undefined) this.#source.write("vm", "disk", 0, this.#recorded);
    else this.#guestWrites();
    this.#count.vanished++;
  }

  /** Runs until the power goes, or to the end. */
  async #attempt(
    mode: (typeof modes)[number],
    kind: (typeof kinds)[number] | undefined,
  ): Promise<RunReport | undefined> {
    const { power } = this.#target;
    let lost = false;
    if (kind === "target") {
      power.callsLeft = this.#below(60);
      power.gone = async () => {
        lost = true;
        await this.#target.lose(this.#random);
      };
    } else if (kind !== undefined) {
      if (this.#random() < 0.5) this.#files.cutAfter(this.#below(300));
      else power.callsLeft = this.#below(60);
      power.gone = () => this.#files.cutAfter(0);
    }
    const options: JobOptions = {
      mode,
      leaf: 64 * KIB,
      journal: { bytes: 256 * KIB },
      verify: this.#random() < 0.5 ? "written" : "full",
      workers: 0,
      memory: 2 * MIB,
      attempts: { attempts: 3, baseMs: 0, maxMs: 1, perAttemptMs: 5_000 },
    };
    try {
      const store = await openDirectoryState("/srv/state", { files: this.#files, identity: this.#files.identity });
      const target = await this.#target.open();
      return await replicate({ id: "job", source: this.#source.source, machine: "vm", target, store, options });
    } catch (error) {
      const isOurs = lost || this.#files.isCut || power.isOff;
      if (!isOurs) throw new Error(`a run failed by itself; ${this.#about}`, { cause: error });
      return undefined;
    } finally {
      power.callsLeft = Infinity;
      if (kind === "target" && lost) this.#count.target++;
      if (kind !== undefined && kind !== "target" && this.#files.isCut) {
        this.#count[kind]++;
        // The process is gone with its machine; of a target elsewhere only its connections are.
        await this.#target.lose(kind === "machine" ? this.#random : undefined);
        this.#files = this.#files.restart();
      }
      this.#files.cutAfter(Infinity);
    }
  }
}

describe("a job whose power goes", () => {
  test.for(Object.entries(losingTargets))(
    "ends with the bytes of its snapshot on the target %s",
    { timeout: 300_000 },
    async ([name, make]) => {
      const first = seedOf(7_001);
      for (let seed = first; (counts[name]?.runs ?? 0) === 0 || lossesOf(name) < lossesPerTarget; seed++) {
        await using target = await make(diskSize);
        const life = new Life(name, target, seed);
        for (const mode of modes) await life.run(mode);
      }
      const { machine, state, target, resumed, vanished, runs } = counts[name]!;
      console.log(
        `${name}: ${machine + state + target} power losses (${machine} of machine and target, ${state} of the state's ` +
          `machine, ${target} of the target alone) in ${runs} runs, ${resumed} of them resumed at their end, ${vanished} begun anew for want of their snapshot; seed ${first}`,
      );
      expect(Math.min(machine, state, target)).toBeGreaterThan(5);
    },
  );

  test("lost its power 200 times and more", () => {
    expect(Object.keys(counts).reduce((sum, name) => sum + lossesOf(name), 0)).toBeGreaterThanOrEqual(200);
  });
});

function lossesOf(name: string): number {
  const { machine, state, target } = counts[name] ?? { machine: 0, state: 0, target: 0 };
  return machine + state + target;
}
