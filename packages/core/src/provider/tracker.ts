import type { Tile } from "./extents.ts";
import type { DiskSnapshot, Machine, PowerState } from "./source.ts";
import type { Wait } from "./wait.ts";

/** An opaque token of at most 4096 characters, from which a later listing is incremental. */
export type Checkpoint = string;

export interface TrackerStatus {
  supported: boolean;
  enabled: boolean;
  /** For people: why it is off, what would turn it on, known bugs of this version. */
  detail?: string;
  /** The machine's name, as the platform has it now. */
  machine?: string;
  power?: PowerState;
  /** The newest point that the tracker knows of this disk, as the platform writes it; absent: none is known. */
  changeId?: string;
}

export interface ChangesOptions extends Wait {
  /** Absent: tiles tell what may be non-zero. */
  since?: Checkpoint | undefined;
  /** Bytes; default 0. */
  from?: number | undefined;
  /** Bytes; default the disk's size. */
  to?: number | undefined;
}

/** Knows what changed between two points in time. */
export interface ChangeTracker {
  /** Turns tracking on; idempotent. Absent: it is always on or cannot be turned on by us. */
  enable?(machine: Machine, wait?: Wait): Promise<void>;
  /** Discards tracking that is not to be trusted and begins anew. */
  reset?(machine: Machine, wait?: Wait): Promise<void>;
  status?(machine: Machine, disk: string, wait?: Wait): Promise<TrackerStatus>;
  /** The token of this point in time; undefined: the next run of this disk has to rescan. */
  checkpoint(disk: DiskSnapshot, wait?: Wait): Promise<Checkpoint | undefined>;
  /**
   * Tiles from `from` to `to`: ascending, contiguous, covering all of it, never too little `changed`.
   * @throws ProviderError TRACKING_LOST, at any tile, when the answer cannot be trusted from there on.
   */
  changes(disk: DiskSnapshot, options?: ChangesOptions): AsyncIterable<Tile>;
  /** The snapshot behind a checkpoint must outlive it (EBS). Absent: it is released once the record is written. */
  readonly keepsBase?: true;
}
