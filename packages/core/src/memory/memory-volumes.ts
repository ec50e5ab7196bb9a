import type { LaunchedMachine } from "../provider/target.ts";
import { ExtentSet } from "./extent-set.ts";
import type { SparseBytes } from "./sparse-bytes.ts";

/** Bytes of a target: what is written and, apart from it, what would survive a power cut. */
export class StoredDisk {
  live: SparseBytes;
  #durable: SparseBytes;
  readonly #pending: ExtentSet = new ExtentSet();

  constructor(content: SparseBytes) {
    this.live = content;
    this.#durable = content.fork();
  }

  get hasPending(): boolean {
    return !this.#pending.isEmpty;
  }

  write(offset: number, data: Uint8Array): void {
    this.live.write(offset, data);
    this.#pending.add(offset, data.byteLength);
  }

  zero(offset: number, length: number): void {
    this.live.zero(offset, length);
    this.#pending.add(offset, length);
  }

  /** Growing is durable at once; what was not flushed stays so. */
  grow(size: number): void {
    this.live.resize(size);
    this.#durable.resize(size);
  }

  flush(): void {
    if (!this.hasPending) return;
    this.#durable = this.live.fork();
    this.#pending.remove(0, Number.MAX_SAFE_INTEGER);
  }

  /** Forgets what was not flushed but for a random part of it, in pieces of `unit` bytes or 1/1024 of an extent. */
  crash(random: () => number, unit: number): void {
    const stored = this.live.allocated();
    for (const { offset, length } of this.#pending) {
      const piece = Math.max(unit, Math.ceil(length / 1024 / unit) * unit);
      for (let at = offset; at < offset + length; at += piece) {
        if (random() < 0.5) continue;
        this.#keep(stored, at, Math.min(piece, offset + length - at));
      }
    }
    this.#pending.remove(0, Number.MAX_SAFE_INTEGER);
    this.live = this.#durable.fork();
  }

  #keep(stored: ExtentSet, offset: number, length: number): void {
    this.#durable.zero(offset, length);
    for (const part of stored.within(offset, offset + length)) {
      const bytes = new Uint8Array(part.length);
      this.live.read(part.offset, bytes);
      this.#durable.write(part.offset, bytes);
    }
  }
}

/** The half-written, or committed, state of one run. */
export interface StoredRun {
  run: string;
  generation: string;
  disk: StoredDisk;
  size: number;
  blank: boolean;
  /** The id of the version it stands on. */
  base: string | undefined;
  job: string | undefined;
  /** What was written or zeroed and flushed. */
  written: ExtentSet;
  zeroed: ExtentSet;
  /** What was written or zeroed since the last flush. */
  pendingWritten: ExtentSet;
  pendingZeroed: ExtentSet;
  /** The id of the volume that its commit made. */
  committed: string | undefined;
  /** Openings that were not disposed. */
  openings: Set<object>;
}

/** What `create` or `adopt` made: one disk in place, or the root of versions. */
export interface StoredLine {
  id: string;
  key: string | undefined;
  job: string | undefined;
  size: number;
  adopted: boolean;
  /** The newest epoch that opened it. */
  epoch: number;
  runs: Map<string, StoredRun>;
  /** In place alone. */
  disk: StoredDisk | undefined;
  /** In place alone: written since the last commit. */
  torn: boolean;
  /** The id of the launched machine that took it. */
  consumedBy: string | undefined;
}

/** One commit of a versioned target. */
export interface StoredVersion {
  id: string;
  line: StoredLine;
  run: string;
  parent: string | undefined;
  job: string | undefined;
  disk: StoredDisk;
  size: number;
  consumedBy: string | undefined;
}

/** A machine that a launch made, with the disks it runs on. */
export interface StoredLaunch {
  key: string;
  job: string | undefined;
  machine: LaunchedMachine;
  /** What it was asked for, to tell a repetition from another request under the same key. */
  request: string;
  disks: Map<string, StoredDisk>;
}

/** Everything a memory target holds: what would be the platform behind it. It outlives every connection. */
export class MemoryVolumes {
  readonly lines: Map<string, StoredLine> = new Map();
  readonly versions: Map<string, StoredVersion> = new Map();
  readonly launches: Map<string, StoredLaunch> = new Map();
  /** Disks that exist before any job, by id: for `adopt`. */
  readonly existing: Map<string, SparseBytes> = new Map();
  /** Counts the restarts of the server: an opening of an earlier session is dead. */
  session = 0;
  /** Counts the lost connections after which writers go on, but owe an error to their next flush. */
  connection = 0;
  #counter = 0;

  nextId(prefix: string): string {
    return `${prefix}-${++this.#counter}`;
  }

  /** The bytes of a volume, version, half-written run or launched disk, as they are now. */
  content(id: string): SparseBytes | undefined {
    const version = this.versions.get(id);
    if (version !== undefined) return version.disk.live;
    for (const line of this.lines.values()) {
      if (line.id === id) return line.disk?.live;
      for (const run of line.runs.values()) if (run.generation === id) return run.disk.live;
    }
    for (const { machine, disks } of this.launches.values()) {
      for (const [key, disk] of disks) if (id === `${machine.id}/${key}`) return disk.live;
    }
    return undefined;
  }

  /** The power goes: what was flushed stays, of the rest a random part. */
  crash(random: () => number, unit: number): void {
    const disks = new Set<StoredDisk>();
    for (const line of this.lines.values()) {
      if (line.disk !== undefined) disks.add(line.disk);
      for (const run of line.runs.values()) {
        disks.add(run.disk);
        run.pendingWritten.remove(0, Number.MAX_SAFE_INTEGER);
        run.pendingZeroed.remove(0, Number.MAX_SAFE_INTEGER);
      }
    }
    for (const disk of disks) disk.crash(random, unit);
  }

  /** The server restarts: every opening is dead, and what it had open is open no longer. */
  dropSession(): void {
    this.session++;
    for (const line of this.lines.values()) for (const run of line.runs.values()) run.openings.clear();
  }

  /** What stands on a version: versions, half-written runs with an opening, and machines. */
  standingOn(id: string): string[] {
    const found: string[] = [];
    for (const version of this.versions.values()) if (version.parent === id) found.push(version.id);
    for (const line of this.lines.values()) {
      for (const run of line.runs.values()) {
        if (run.base === id && run.committed === undefined && run.openings.size > 0) found.push(run.generation);
      }
    }
    return found;
  }
}
