import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Consistency, SourceConnector } from "../provider/source.ts";
import type { TargetProvider } from "../provider/target.ts";
import type { StateStore } from "../state/state-store.ts";
import type { Layer } from "../layers/layer.ts";
import type { AttemptPolicy } from "./attempts.ts";
import type { Limits } from "./limits.ts";

/** What to do when a tracker cannot say what changed: read all and send what differs, send all, or stop. */
export type TrackingLostPolicy = "rescan" | "full" | "fail";

/**
 * How much of the replica is read back and compared with the digests of what was sent, before the record is written.
 * `written`: all that this run wrote. `full`: the whole disk. `none`: nothing is read back; digests are kept all the same.
 */
export type VerifyMode = "none" | "written" | "full";

/** The replication of one machine from a source to a target: everything a run needs, opened by the caller. */
export interface Job {
  /** Names the job in the state store and on both platforms. Runs of one id continue each other. */
  id: string;
  source: SourceConnector;
  /** Id, name or path of the machine, as the source understands it. */
  machine: string;
  /** Keys of the disks to copy; absent: all eligible ones. */
  disks?: readonly string[];
  target: TargetProvider;
  store: StateStore;
  options?: JobOptions;
}

export interface JobOptions {
  /** The least consistency that is worth copying. Default `none`: whatever the source achieves, reported. */
  consistency?: Consistency;
  /** `auto` is incremental where a record allows it; `full` sends everything again; `rescan` compares everything. */
  mode?: "auto" | "full" | "rescan";
  /** Default `rescan`. */
  onTrackingLost?: TrackingLostPolicy;
  /** Default `written`. */
  verify?: VerifyMode;
  /**
   * So many leaves of each disk that its tracker called unchanged are read and compared with the last record's digests in every
   * incremental run. One that has changed takes the tracker's word away: `onTrackingLost` applies to the whole disk, this run
   * leaves no checkpoint for it, and tracking is begun anew before the next. Default 0: none.
   */
  canary?: number;
  /** Default BLAKE3 where its native module loads, else SHA-256. `none` keeps no manifest: no rescan, audit or proof. */
  digest?: DigestAlgorithm | "none";
  /** Bytes of a leaf for a new replica; a power of two from 64 KiB to 1 MiB. Default: by the disk's size. */
  leaf?: number;
  /** Disks at once. Default 4. */
  parallelDisks?: number;
  /**
   * Worker threads for each disk whose reader and writer have lanes; 0 keeps all on this thread. Default: 2; but 0 on
   * machines of two cores or fewer where nothing is computed (no digest, no compression, no encryption), since a thread
   * then takes time from what serves the disks.
   */
  workers?: number;
  /** The most bytes that one disk's blocks take per worker thread, and twice as many where none copies. Default 32 MiB. */
  memory?: number;
  /** Retries and deadlines of every request. */
  attempts?: Partial<AttemptPolicy>;
  /**
   * Your own layers around every read, write and zero, innermost: metrics, faults, a verification after each write. They
   * run on the calling thread, so with any of them no worker copies.
   */
  layers?: readonly Layer[];
  /** Bandwidth, calls and the backup window; may be changed while a run goes on. */
  limits?: Limits;
  /** How much is written between two durable points of the journal. Default 256 MiB or 5 s. */
  journal?: { bytes?: number; ms?: number };
  /**
   * Milliseconds between two questions to the source how busy the machine's host is, where it can tell: in progress reports, in
   * the run's report and on the channel `diskferry:load-report`. Default 30 000; 0 asks nothing.
   */
  loadIntervalMs?: number;
  /** An Ed25519 private key, PKCS #8 in PEM, that signs receipts. Absent: receipts carry no signature. */
  receiptKey?: string;
  /** For people: lines about what was slow, lost or decided. */
  notice?: (message: string) => void;
}

/** What a run did, step by step decided and reported. */
export type RunMode = "full" | "incremental" | "rescan";

/** Something that was not done as asked, and why. */
export interface Fallback {
  disk: string;
  from: string;
  to: string;
  reason: string;
}
