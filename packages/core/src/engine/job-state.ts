import type { Json } from "../provider/extents.ts";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import type { DiskSnapshot, Machine, Snapshot } from "../provider/source.ts";
import type { LaunchedMachine, Volume } from "../provider/target.ts";
import type { Checkpoint } from "../provider/tracker.ts";
import type { Wait } from "../provider/wait.ts";
import type { ManifestJson } from "../manifest/manifest.ts";
import { stateKey } from "../state/state-key.ts";
import type { Lease, StateStore } from "../state/state-store.ts";
import type { Fallback, RunMode } from "./job.ts";

/** What one run made of one disk: written down once everything it names is durable and verified. */
export interface DiskRecord {
  disk: string;
  /** Bytes at the source; the volume may be larger. */
  size: number;
  volume: Volume;
  /** The commit made this volume anew, so that no later run writes to it. */
  apart?: true;
  snapshot: DiskSnapshot;
  mode: RunMode;
  leaf: number;
  /** Absent where no digest is kept. */
  manifest?: ManifestJson;
  /** Absent: the next run of this disk has to rescan. */
  checkpoint?: Checkpoint;
  /** The tracker was found to miss writes; it is begun anew before the next run. */
  distrusted?: true;
}

/** The last good replica of a machine: one point in time, all disks. */
export interface RunRecord {
  run: string;
  /** ISO 8601. */
  at: string;
  machine: Machine;
  snapshot: Snapshot;
  disks: DiskRecord[];
}

/** One disk of a run under way. */
export interface DiskRun {
  size: number;
  volume: Volume;
  mode: RunMode;
  /** The checkpoint an incremental run starts from. */
  since?: Checkpoint;
  leaf: number;
  digest: DigestAlgorithm | "none";
  generation: string;
  fallbacks: Fallback[];
  /** The tracker called unchanged what had changed: nothing that it said of this disk counts. */
  distrusted?: true;
  /** Everything is copied and flushed; the manifest is final. */
  copied?: { manifest?: ManifestJson; changed?: number };
  verified?: boolean;
  /** Bytes that were read back for that. */
  verifiedBytes?: number;
  committed?: Volume;
}

/** A run that has no record yet. */
export interface RunState {
  id: string;
  startedAt: string;
  /** The source was asked for a snapshot with this key. */
  snapshotKey: string;
  machine: Machine;
  snapshot?: Snapshot;
  disks: Record<string, DiskRun>;
  phase: "copying" | "committing";
  /** It was committed in place and failed its verification: it cannot be written on, so a new run has to mend it. */
  spent?: true;
}

/** Journals of runs that ended without a record: what they may have written is in no manifest. */
export interface TornJournal {
  run: string;
  disk: string;
  /** Id of the volume it wrote. */
  volume: string;
}

export interface CutoverState {
  id: string;
  step: "begun" | "stopped" | "replicated" | "launched" | "finalized" | "reverting" | "reverted";
  /** Whether the source ran when the cutover began, so that going back starts it again. */
  wasRunning: boolean;
  /** A run that had begun before the source stopped: its point in time is too old to be the last one. */
  stale?: string;
  /** The target was told to launch, and whether it did is not known yet. */
  launching?: true;
  machine?: LaunchedMachine;
}

/** All that is known of a job, in one document: it changes by compare-and-set or not at all. */
export interface JobState {
  version: 1;
  job: string;
  epoch: number;
  record?: RunRecord;
  run?: RunState;
  torn: TornJournal[];
  /** Snapshots that no checkpoint needs any more; released before the next one is taken. */
  toRelease: Snapshot[];
  /** Ids of volumes that earlier records named and that stand apart from the last one's: recovery points. */
  earlier?: string[];
  cutover?: CutoverState;
  /** How many runs this job began, so that names never repeat. */
  runs: number;
}

/** Where the pieces of a job's state live. */
export const keyOf: {
  state(job: string): string;
  journals(job: string, run: string, disk: string): string;
  pages(job: string, disk: string): string;
} = {
  state: (job) => stateKey("jobs", job, "state"),
  journals: (job, run, disk) => stateKey("jobs", job, "journals", run, disk),
  pages: (job, disk) => stateKey("jobs", job, "pages", disk),
};

/** A job's document, read once and changed by compare-and-set under one lease. */
export class JobDocument {
  readonly #store: StateStore;
  readonly #lease: Lease | undefined;
  #revision: string | null;
  #state: JobState;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(store: StateStore, state: JobState, revision: string | null, lease: Lease | undefined) {
    this.#store = store;
    this.#state = state;
    this.#revision = revision;
    this.#lease = lease;
  }

  /** Reads the document. Without a lease it cannot be updated. @throws ProviderError CORRUPT when it is not ours. */
  static async read(store: StateStore, job: string, lease?: Lease, wait?: Wait): Promise<JobDocument> {
    const found = await store.get(keyOf.state(job), wait);
    if (found === undefined) {
      const fresh: JobState = {
        version: 1,
        job,
        epoch: lease?.epoch ?? 0,
        torn: [],
        toRelease: [],
        runs: 0,
      };
      return new JobDocument(store, fresh, null, lease);
    }
    const state = found.value as unknown as JobState;
    if (typeof state !== "object" || state === null || state.version !== 1 || state.job !== job) {
      throw new ProviderError(
        "CORRUPT",
        `The state of job ${job} is not a document this version understands. Restore the state directory from a ` +
          `backup, or use another job id to begin anew; the target was not touched.`,
        { operation: "read state" },
      );
    }
    return new JobDocument(store, state, found.revision, lease);
  }

  /** Whether it was read under a lease. */
  get writable(): boolean {
    return this.#lease !== undefined;
  }

  get state(): Readonly<JobState> {
    return this.#state;
  }

  /**
   * Changes the document, durably and as one. `change` gets a copy to alter.
   * @throws ProviderError FENCED when another worker changed it since.
   */
  update(change: (state: JobState) => void, wait?: Wait): Promise<void> {
    const mine = this.#turn.then(() => this.#update(change, wait));
    this.#turn = mine.catch(() => {});
    return mine;
  }

  async #update(change: (state: JobState) => void, wait?: Wait): Promise<void> {
    if (this.#lease === undefined) throw new TypeError("this document was read without a lease");
    await this.#lease.check(wait);
    const next = structuredClone(this.#state);
    next.epoch = this.#lease.epoch;
    change(next);
    try {
      this.#revision = await this.#store.set(keyOf.state(next.job), next as unknown as Json, {
        revision: this.#revision,
        signal: wait?.signal,
      });
    } catch (error) {
      if (!isProviderError(error) || error.code !== "IN_USE") throw error;
      throw new ProviderError("FENCED", `Job ${next.job} was taken over by another worker; this one stops.`, {
        operation: "update state",
        cause: error,
      });
    }
    this.#state = next;
  }
}
