import type { Checkpoint } from "./tracker.ts";
import type { MachineSpec } from "./source.ts";
import type { Volume } from "./target.ts";
import type { Wait } from "./wait.ts";

/** A number and how good it is: counted, a limit that is not exceeded, or a guess. */
export interface Figure {
  value: number;
  kind: "exact" | "bound" | "estimate";
}

/** Something to know or to mend before a run. Plain JSON. */
export interface Finding {
  /** `blocker`: a run would fail. `warning`: it works, but not as one might expect. `info`: worth knowing. */
  severity: "info" | "warning" | "blocker";
  /** What it is about: a disk, a privilege, a host and port, a version. */
  subject: string;
  /** What was found. Never a secret. */
  message: string;
  /** What to do about it. */
  remedy?: string;
}

/** What a run would do with one disk, as far as core knows before there is a snapshot. */
export interface PlannedDisk {
  /** The disk's key at the source. */
  disk: string;
  /** Bytes. */
  size: number;
  mode: "full" | "incremental" | "rescan";
  /** Bytes read from the source. */
  read: Figure;
  /** Bytes sent to the target. */
  write: Figure;
  /** The checkpoint of the last record, where the mode is incremental. */
  since?: Checkpoint;
  /** The volume of the last record. */
  base?: Volume;
}

export interface PreflightRequest extends Wait {
  /** Empty when only the place itself is asked about. */
  disks: readonly PlannedDisk[];
  job?: string | undefined;
}

/** What the other end has to say to a target before a run. */
export interface TargetPreflightRequest extends PreflightRequest {
  /** The machine the disks belong to, for a launch. */
  machine?: MachineSpec | undefined;
}

/** Money. */
export interface Cost {
  /** What is paid for: "GetSnapshotBlock requests", "storage of the replica for a month". */
  item: string;
  amount: Figure;
  currency: "USD";
  /** The day the prices were read, ISO 8601. */
  pricesOf: string;
}

/** What one end says before anything is touched. Absent members are unknown. Plain JSON. */
export interface Preflight {
  /** Calls of the platform's API, by name. */
  calls?: { operation: string; count: Figure }[];
  costs?: Cost[];
  /** How long this end takes at its quotas, at least. */
  minutes?: Figure;
  /** By the platform's names. `missing` absent: could not be asked. */
  privileges?: { needed: string[]; missing?: string[] };
  findings: Finding[];
}
