import type { BlockReader, DigestAlgorithm } from "./reader.ts";
import type { Extent, JsonObject } from "./extents.ts";
import type { Geometry } from "./geometry.ts";
import type { MachineSpec, OwnedResource } from "./source.ts";
import type { Preflight, TargetPreflightRequest } from "./preflight.ts";
import type { Wait } from "./wait.ts";
import type { WriterLane } from "./lane.ts";

/** A disk at the target: created by key, or the result of a commit. Plain JSON; survives a restart. */
export interface Volume {
  id: string;
  /** Bytes; may be larger than the disk that was asked for. */
  size: number;
  data?: JsonObject;
}

export interface CreateRequest extends Wait {
  /** Idempotence: the same key gives the same volume. */
  key: string;
  /** Bytes. The same key with a larger size grows the volume or rejects with UNSUPPORTED. */
  size: number;
  /** For people. */
  name?: string | undefined;
  job?: string | undefined;
}

export interface OpenRequest extends Wait {
  /** The run that writes. The same run opens the same write again, also after its commit. */
  run: string;
  /** The volume of the last record, whose content the run starts from; absent: the first run, nothing is known. */
  base?: Volume | undefined;
  /** Granted by whoever assigns the work; a writer with a lower epoch is cut off before this call resolves. */
  epoch: number;
  job?: string | undefined;
}

export interface WriteOptions extends Wait {
  /** The digests of the writer's blocks in `data`, concatenated, where the writer asked for an algorithm. */
  digest?: Uint8Array | undefined;
  /** How many bytes before `data` in the same buffer may be overwritten during the call (a place for a header). */
  headroom?: number | undefined;
}

export interface WrittenExtent extends Extent {
  /** The digests of the leaves in this extent, concatenated, where the writer asked for an algorithm. */
  digests?: Uint8Array;
}

/** Writes one run of one disk. */
export interface BlockWriter extends Geometry {
  /** Changes when the platform's half-written state is not the one an earlier opening of this run left. */
  readonly generation: string;
  /**
   * True only where every byte that this generation did not write is proven to read as zeroes, bytes that another run left
   * included. Absent: core clears the gaps.
   */
  readonly blank?: boolean;
  /** The digest this target demands of every leaf. Absent: core chooses. */
  readonly digest?: DigestAlgorithm;
  /**
   * Idempotent. Keeps no reference to `data` after it settled. A request that may work if sent again rejects with a
   * retryable error; a session that is lost rejects with UNAVAILABLE and `retryable: false`, upon which core opens the
   * writer again and repeats all that was not flushed.
   */
  write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void>;
  /** Makes a range read as zeroes. Absent: core writes zeroes. */
  zero?(offset: number, length: number, wait?: Wait): Promise<void>;
  /** Reads back what this run would commit. Absent: verification reads the target after the commit. */
  read?(offset: number, into: Uint8Array, wait?: Wait): Promise<void>;
  /**
   * A durable barrier over every write that settled before, in this very session with the server, including all that
   * reopening needs; other writes may be under way. Never retried: after a reconnect it rejects, and core writes the group again.
   */
  flush(wait?: Wait): Promise<void>;
  /**
   * Makes the run's result a volume. Idempotent per run. `written`: ascending, every leaf in which this generation wrote
   * something, zeroes included; where the writer asked for digests, exactly the blocks it was given, with them.
   */
  commit(request: { written: AsyncIterable<WrittenExtent> } & Wait): Promise<Volume>;
  /**
   * Discards what this run wrote and has not committed, where the platform can; else leaves it for the next run. Opened
   * again, the run then has a new generation. Harmless twice or after the commit.
   */
  abandon(wait?: Wait): Promise<void>;
  /** How worker threads write too. Absent: writes happen on the calling thread. */
  readonly lane?: WriterLane;
  /** Closes, and keeps whatever is durable. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface LaunchRequest extends Wait {
  /** Idempotence: the same key gives the same machine. */
  key: string;
  /** A test boots a clone and leaves the replica as it is; a cutover may consume it, and says so. */
  purpose: "test" | "cutover";
  job?: string | undefined;
}

/** A disk to launch with: the volume and the key the source knew it by. */
export interface LaunchDisk {
  disk: string;
  boot?: boolean;
  volume: Volume;
}

/** What a launch made. Plain JSON; survives a restart. */
export interface LaunchedMachine {
  id: string;
  name: string;
  purpose: "test" | "cutover";
  /** Whether the replica itself was taken for it. */
  consumed: boolean;
  /** For people: addresses, console, warnings. */
  notes?: string[];
  data?: JsonObject;
}

/** The place disks are copied to. */
export interface TargetProvider {
  /**
   * `open` cuts every writer of an older epoch off before it resolves. Absent: where an older worker may still be alive,
   * core waits out its longest request before it writes.
   */
  readonly fences?: true;
  /** Finds or makes the volume of this key. Allocates nothing that depends on a base. */
  create(request: CreateRequest): Promise<Volume>;
  /** Takes an existing disk as a volume that is never cleaned up (failback). */
  adopt?(disk: string, wait?: Wait): Promise<Volume>;
  /**
   * Opens a volume for a run. In place, a new run ends the writers of earlier ones. @throws ProviderError FENCED when a
   * newer epoch was seen; NOT_FOUND when the volume or the base is gone; UNSUPPORTED when the base is another volume, in place.
   */
  open(volume: Volume, request: OpenRequest): Promise<BlockWriter>;
  /** Opens a committed volume for reading: verification, audit, rescan without a manifest, and use as a source. */
  read?(volume: Volume, wait?: Wait): Promise<BlockReader>;
  /**
   * Removes a volume, merging what others stand on; one that is gone already is removed. The bytes of an adopted disk stay.
   * @throws ProviderError IN_USE rather than break a chain.
   */
  remove(volume: Volume, wait?: Wait): Promise<void>;
  /** What the job made on this place. */
  owned(job: string, wait?: Wait): AsyncIterable<OwnedResource & { volume?: Volume }>;
  /** Says before a run, or a launch, what it would take and what stands in the way. Changes nothing. */
  preflight?(request: TargetPreflightRequest): Promise<Preflight>;
  /** Starts a machine from committed volumes; idempotent by key. */
  launch?(machine: MachineSpec, disks: readonly LaunchDisk[], request: LaunchRequest): Promise<LaunchedMachine>;
  /** Ends a launched machine; idempotent. A volume that the launch did not make is left. */
  terminate?(machine: LaunchedMachine, wait?: Wait): Promise<void>;
  /** Closes connections. Removes nothing. */
  [Symbol.asyncDispose](): Promise<void>;
}
