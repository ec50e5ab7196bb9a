import { ProviderDefinition, Snapshot, SourceConnector, TargetProvider, Volume } from "@diskferry/core/provider";
type Eventually<Result> = Promise<Result> | Result;
/** The definition under test, with options that its schema takes and refuses. */
interface DefinitionHarness {
  provider: ProviderDefinition;
  /** Options that are good and complete enough to open the provider. */
  config: unknown;
  /** Options that the schema has to refuse. */
  badConfig: unknown;
  /** A URI of one of the provider's schemes. */
  uri?: string;
}
/** Another disk of the machine under test. */
interface SecondDisk {
  key: string;
  write(offset: number, bytes: Uint8Array): Eventually<void>;
}
/**
 * What a back door throws where it cannot do what is asked of it, such as writing into a guest that nobody may log in to:
 * the clause is left unjudged, for this reason, and never counts as one that holds.
 */
declare class NotJudged extends Error {
  constructor(reason: string);
}
/**
 * A source under test, and the back door through which the suite plays the guest. Offsets are bytes of the disk,
 * multiples of 512. An absent member leaves the clauses that need it unjudged, and the run says so.
 */
interface SourceHarness {
  /** Makes a new connection; another one each time, as after a restart. The suite disposes it. */
  open(): Promise<SourceConnector>;
  /** Id of a machine with a disk that the suite may fill: at least 2 MiB, better no multiple of the reader's block. */
  machine: string;
  /** Key of that disk. */
  disk: string;
  /** The guest writes the disk, and what it wrote is in the next snapshot. */
  writeGuest(offset: number, bytes: Uint8Array): Eventually<void>;
  /** The guest gives a range back, which reads as zeroes from then on. */
  trimGuest?(offset: number, length: number): Eventually<void>;
  /** Another disk of the same machine: for clauses about several disks. */
  second?: SecondDisk;
  /** Makes the disk larger, by 1 MiB or what the platform likes. Called last: the disk stays larger. */
  grow?(): Eventually<void>;
  /** Takes the disk back to a snapshot. */
  revert?(snapshot: Snapshot): Eventually<void>;
  /** Makes every checkpoint worthless, as the platform's tracker would when it loses its memory. */
  breakTracking?(): Eventually<void>;
  /** A snapshot that somebody else made of the machine. */
  foreignSnapshot?(): Eventually<Snapshot>;
  /**
   * Why `snapshot` makes nothing on this platform, so that there is nothing to own, to release or to ask for again by its
   * key; absent: that is judged.
   */
  snapshotless?: string;
  /**
   * Why a snapshot does not keep what the disk held once the guest writes on. Such a snapshot has to promise nothing, which
   * is judged then; absent: that it keeps it is judged.
   */
  unfixed?: string;
  /** Whether the suite may shut the machine down, power it off and on. */
  mayPower?: boolean;
}
/** A target under test, and the back door through which the suite judges it. */
interface TargetHarness {
  /** Makes a new connection; another one each time, as after a restart. The suite disposes it. */
  open(): Promise<TargetProvider>;
  /**
   * Bytes of the volumes that the suite makes; a multiple of 512 and at least 24 blocks of the writer and 128 KiB.
   * Better no multiple of the writer's block, so that the short final block is judged.
   */
  size: number;
  /** What a committed volume holds. */
  readVolume(volume: Volume, offset: number, length: number): Eventually<Uint8Array>;
  /** The target's power goes: what was written and not flushed may be lost, what was flushed may not. */
  crash?(): Eventually<void>;
  /** A disk that exists already, for `adopt`, with bytes in its first 4096 that are not all zero. */
  existingDisk?: string;
  /** A launched machine writes its disk. */
  writeLaunched?(machine: string, disk: string, offset: number, bytes: Uint8Array): Eventually<void>;
  /** What a launched machine finds on its disk. */
  readLaunched?(machine: string, disk: string, offset: number, length: number): Eventually<Uint8Array>;
  /** Why nothing cuts an older writer off on this platform; absent: fencing is judged. A target that says `fences` has none. */
  unfenced?: string;
}
/** Everything the suite needs to judge a provider. */
interface ConformanceHarness {
  /** Names the provider in the listing. */
  name: string;
  definition?: DefinitionHarness;
  source?: SourceHarness;
  target?: TargetHarness;
  /** Strings that may appear in no handle, checkpoint or message: passwords, tokens, signed URLs. */
  secrets?: readonly string[];
  /** How long one clause may take before it counts as hanging, in milliseconds. Default 60 000. */
  patienceMs?: number;
}
/** What a test runner gives a case. */
interface ConformanceContext {
  /** Ends the case as skipped; throws. Vitest's `context.skip` and `node:test`'s way both fit. */
  skip(reason: string): never;
}
/** One clause of the contract, ready for any test runner. */
interface ConformanceCase {
  /** Names the clause for good: `tracker.never-too-few`. */
  id: string;
  /** What the contract demands, as one sentence. */
  clause: string;
  /** For the test runner: the id and the clause. */
  title: string;
  /** Judges the provider. @throws ConformanceError naming the clause, what it demands and what was found instead. */
  run(context: ConformanceContext): Promise<void>;
}
/** What a run of the whole suite found. */
interface ConformanceReport {
  name: string;
  /** Ids of the clauses that hold, in the suite's order. */
  judged: string[];
  /**
   * Clauses that were NOT JUDGED, and why: an absent member, a back door that the harness does not have, or something that
   * the platform cannot do, which the harness says. None of them counts as one that holds.
   */
  skipped: {
    id: string;
    reason: string;
  }[];
  failed: {
    id: string;
    clause: string;
    error: unknown;
  }[];
}
/**
 * The clauses of the contract as cases for any test runner. Run them one after another: they share the machine and
 * the target of the harness. Each makes its own volumes and snapshots and cleans up after itself.
 */
declare function conformance(harness: ConformanceHarness): ConformanceCase[];
/** Runs the whole suite, one clause after another, and tells of each whether it holds. */
declare function runConformance(harness: ConformanceHarness): Promise<ConformanceReport>;
/**
 * The clauses of a report as stable text, one line each: `judged ID`, `NOT JUDGED ID: REASON` or `FAILED ID: ERROR`.
 * Commit it and compare it in a test: then a member that goes missing cannot hide as a clause that is not judged.
 */
declare function formatConformance({ name, judged, skipped, failed }: ConformanceReport): string;
/** A clause of the contract that a provider breaks. */
declare class ConformanceError extends Error {
  readonly id: string;
  readonly clause: string;
  constructor(id: string, clause: string, found: string, cause?: unknown);
}
export { type ConformanceCase, type ConformanceContext, ConformanceError, type ConformanceHarness, type ConformanceReport, type DefinitionHarness, NotJudged, type SecondDisk, type SourceHarness, type TargetHarness, conformance, formatConformance, runConformance };