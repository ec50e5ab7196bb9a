import type { OwnedResource } from "../provider/source.ts";
import type {
  CreateRequest,
  LaunchDisk,
  LaunchedMachine,
  LaunchRequest,
  OpenRequest,
  TargetProvider,
  Volume,
} from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { ExtentSet } from "./extent-set.ts";
import { memoryError, type MemoryGate } from "./memory-gate.ts";
import { openMemoryReader } from "./memory-reader.ts";
import {
  type MemoryVolumes,
  StoredDisk,
  type StoredLine,
  type StoredRun,
  type StoredVersion,
} from "./memory-volumes.ts";
import { type MemoryWriterOptions, openMemoryWriter } from "./memory-writer.ts";
import { SparseBytes } from "./sparse-bytes.ts";

/** Shapes the target of a memory place; `false` leaves the member off. */
export interface MemoryTargetOptions extends MemoryWriterOptions {
  /**
   * `in-place`: a volume is one disk that every run writes. `versioned`: each commit is a new volume that stands on
   * the one it began from, and what a run does not write holds its base's bytes (as EBS snapshots do). Default
   * `in-place`.
   */
  style?: "in-place" | "versioned" | undefined;
  /** Only in place: a disk that exists cannot become a root of versions. */
  adopt?: false | undefined;
  /** Whether the target opens committed volumes for reading. */
  read?: false | undefined;
  launch?: false | undefined;
  /** Whether a volume can grow; `false` rejects with UNSUPPORTED. */
  growth?: false | undefined;
  /** Volumes are rounded up to multiples of this, in bytes. Default: they are as large as asked for. */
  sizeUnit?: number | undefined;
  /** What `remove` does with a version that others stand on. Default `refuse`. */
  removal?: "refuse" | "merge" | undefined;
  /** Whether writers of an older epoch are cut off, and the target says so. */
  fences?: false | undefined;
  /** Whether a cutover takes the replica itself. Default `consume`. */
  cutover?: "consume" | "clone" | undefined;
}

interface TargetParts {
  gate: MemoryGate;
  volumes: MemoryVolumes;
  options: MemoryTargetOptions;
}

/** Opens a target over the volumes of a memory place. Two openings see the same volumes. */
export function openMemoryTarget({ gate, volumes, options }: TargetParts): TargetProvider {
  let closed = false;

  const pass = <Result>(method: string, on: string, wait: Wait | undefined, act: () => Result): Promise<Result> =>
    gate.pass({ side: "target", method, on }, wait?.signal, () => {
      if (closed) throw new TypeError("this target was disposed: open the provider again");
      return act();
    });

  return {
    ...(options.fences === false ? {} : { fences: true as const }),
    create: (request: CreateRequest) => pass("create", request.key, request, () => create(volumes, options, request)),

    ...(options.adopt === false || options.style === "versioned"
      ? {}
      : { adopt: (disk: string, wait?: Wait) => pass("adopt", disk, wait, () => adopt(volumes, disk)) }),

    open: (volume: Volume, request: OpenRequest) =>
      pass("open", volume.id, request, () => {
        const line = lineOf(volumes, volume.id, "open");
        const run = openRun(volumes, line, request, options);
        return openMemoryWriter({
          gate,
          volumes,
          line,
          run,
          epoch: options.fences === false ? Infinity : request.epoch,
          options,
          publish: () => publish(volumes, line, run),
          published: () => describe(volumes, run.committed ?? line.id, "commit"),
          discard: () => {
            if (line.disk === undefined) line.runs.delete(run.run);
            // Bytes that were overwritten in place cannot come back: only the claim to know them is given up.
            else line.runs.clear();
          },
        });
      }),

    ...(options.read === false
      ? {}
      : {
          read: (volume: Volume, wait?: Wait) =>
            pass("read", volume.id, wait, () => {
              const { session } = volumes;
              const content = (): SparseBytes => {
                const bytes = volumes.content(volume.id);
                if (bytes === undefined)
                  throw memoryError("NOT_FOUND", "read", `volume ${volume.id} is gone or holds nothing committed`);
                if (session !== volumes.session)
                  throw memoryError(
                    "UNAVAILABLE",
                    "read",
                    `the target restarted while ${volume.id} was read: open it again`,
                  );
                return bytes;
              };
              const { size } = content();
              const { blockSize, concurrency, preferredLength } = options;
              return openMemoryReader({
                gate,
                side: "target",
                id: volume.id,
                content,
                size,
                options: { blockSize, concurrency, preferredLength },
              });
            }),
        }),

    remove: (volume: Volume, wait?: Wait) => pass("remove", volume.id, wait, () => remove(volumes, options, volume.id)),

    async *owned(job: string, wait?: Wait) {
      for (const resource of await pass("owned", job, wait, () => ownedBy(volumes, job))) {
        wait?.signal?.throwIfAborted();
        yield resource;
      }
    },

    ...(options.launch === false
      ? {}
      : ({
          launch: (machine, disks, request) =>
            pass("launch", request.key, request, () => launch(volumes, options, machine.name, disks, request)),
          terminate: (machine, wait) => pass("terminate", machine.id, wait, () => terminate(volumes, machine.id)),
        } satisfies Pick<TargetProvider, "launch" | "terminate">)),

    async [Symbol.asyncDispose]() {
      closed = true;
    },
  };
}

function create(volumes: MemoryVolumes, options: MemoryTargetOptions, { key, size, job }: CreateRequest): Volume {
  if (!Number.isSafeInteger(size) || size <= 0 || size % 512 !== 0) {
    throw new RangeError(`volume ${key}: ${size} bytes is no positive multiple of 512`);
  }
  const unit = options.sizeUnit ?? 512;
  const rounded = Math.ceil(size / unit) * unit;
  const found = [...volumes.lines.values()].find((line) => line.key === key);
  if (found === undefined) {
    const disk = options.style === "versioned" ? undefined : new StoredDisk(new SparseBytes(rounded));
    const id = volumes.nextId("volume");
    volumes.lines.set(id, newLine({ id, key, job, size: rounded, disk }));
    return describe(volumes, id, "create");
  }
  if (rounded > found.size) {
    if (options.growth === false) {
      throw memoryError(
        "UNSUPPORTED",
        "create",
        `volume ${found.id} has ${found.size} bytes and cannot grow to ${rounded}: use another key`,
      );
    }
    if (found.consumedBy !== undefined)
      throw memoryError(
        "IN_USE",
        "create",
        `volume ${found.id} belongs to machine ${found.consumedBy}: use another key`,
      );
    found.size = rounded;
    found.disk?.grow(rounded);
  }
  return describe(volumes, found.id, "create");
}

function adopt(volumes: MemoryVolumes, id: string): Volume {
  const content = volumes.existing.get(id);
  if (content === undefined)
    throw memoryError("NOT_FOUND", "adopt", `disk ${id} does not exist here: create a volume instead`);
  if (!volumes.lines.has(id)) {
    volumes.lines.set(id, {
      ...newLine({ id, key: undefined, job: undefined, size: content.size, disk: new StoredDisk(content) }),
      adopted: true,
    });
  }
  return describe(volumes, id, "adopt");
}

function newLine(made: Pick<StoredLine, "id" | "key" | "job" | "size" | "disk">): StoredLine {
  return { ...made, adopted: false, epoch: -1, runs: new Map(), torn: false, consumedBy: undefined };
}

/** The handle of a volume, version or half-written run. @throws ProviderError NOT_FOUND */
function describe(volumes: MemoryVolumes, id: string, operation: string): Volume {
  const version = volumes.versions.get(id);
  if (version !== undefined)
    return { id, size: version.size, data: { line: version.line.id, parent: version.parent ?? null } };
  return { id, size: lineOf(volumes, id, operation).size, data: { line: id } };
}

/** @throws ProviderError NOT_FOUND */
function lineOf(volumes: MemoryVolumes, id: string, operation: string): StoredLine {
  const found = volumes.lines.get(id) ?? volumes.versions.get(id)?.line;
  if (found === undefined) throw memoryError("NOT_FOUND", operation, `volume ${id} is gone: create it`);
  return found;
}

function openRun(
  volumes: MemoryVolumes,
  line: StoredLine,
  { run, base, epoch, job }: OpenRequest,
  options: MemoryTargetOptions,
): StoredRun {
  if (epoch < line.epoch && options.fences !== false) {
    throw memoryError(
      "FENCED",
      "open",
      `volume ${line.id} was opened by epoch ${line.epoch}, newer than ${epoch}: leave it to the newer worker`,
    );
  }
  if (line.consumedBy !== undefined) {
    throw memoryError(
      "IN_USE",
      "open",
      `volume ${line.id} belongs to machine ${line.consumedBy}: terminate that first`,
    );
  }
  const known = line.runs.get(run);
  if (known === undefined) checkBase(volumes, line, base, options);
  if (epoch > line.epoch) for (const { openings } of line.runs.values()) openings.clear();
  line.epoch = epoch;
  if (known !== undefined) return known;
  const stored =
    line.disk === undefined ? versionedRun(volumes, line, base) : { disk: line.disk, blank: line.disk.live.isEmpty };
  const fresh: StoredRun = {
    ...stored,
    run,
    generation: volumes.nextId("run"),
    size: line.size,
    base: line.disk === undefined ? base?.id : undefined,
    job: job ?? line.job,
    written: new ExtentSet(),
    zeroed: new ExtentSet(),
    pendingWritten: new ExtentSet(),
    pendingZeroed: new ExtentSet(),
    committed: undefined,
    openings: new Set(),
  };
  // In place there is one state: a new run ends the claims of every run before it.
  if (line.disk !== undefined) line.runs.clear();
  line.runs.set(run, fresh);
  return fresh;
}

function checkBase(
  volumes: MemoryVolumes,
  line: StoredLine,
  base: Volume | undefined,
  options: MemoryTargetOptions,
): void {
  if (base === undefined) return;
  if (options.style !== "versioned") {
    if (base.id === line.id) return;
    throw memoryError(
      "UNSUPPORTED",
      "open",
      `volume ${line.id} is written in place and cannot start from ${base.id}: copy in full`,
    );
  }
  const version = volumes.versions.get(base.id);
  if (version === undefined)
    throw memoryError("NOT_FOUND", "open", `version ${base.id}, the base of the run, is gone: copy in full`);
  if (version.line !== line)
    throw memoryError(
      "UNSUPPORTED",
      "open",
      `version ${base.id} belongs to volume ${version.line.id}, not to ${line.id}`,
    );
}

function versionedRun(
  volumes: MemoryVolumes,
  line: StoredLine,
  base: Volume | undefined,
): { disk: StoredDisk; blank: boolean } {
  const parent = base === undefined ? undefined : volumes.versions.get(base.id);
  const content = parent?.disk.live.fork() ?? new SparseBytes(line.size);
  if (content.size < line.size) content.resize(line.size);
  return { disk: new StoredDisk(content), blank: parent === undefined };
}

function publish(volumes: MemoryVolumes, line: StoredLine, run: StoredRun): Volume {
  if (line.disk !== undefined) {
    line.torn = false;
    run.committed = line.id;
    return describe(volumes, line.id, "commit");
  }
  const id = volumes.nextId("version");
  volumes.versions.set(id, {
    id,
    line,
    run: run.run,
    parent: run.base,
    job: run.job,
    disk: run.disk,
    size: run.size,
    consumedBy: undefined,
  });
  run.committed = id;
  return describe(volumes, id, "commit");
}

function remove(volumes: MemoryVolumes, options: MemoryTargetOptions, id: string): void {
  const version = volumes.versions.get(id);
  if (version !== undefined) return removeVersion(volumes, options, version);
  for (const line of volumes.lines.values()) {
    if (line.id === id) return removeLine(volumes, line);
    for (const run of line.runs.values()) {
      if (run.generation !== id || run.committed !== undefined || line.disk !== undefined) continue;
      if (run.openings.size > 0)
        throw memoryError("IN_USE", "remove", `run ${run.run} of ${line.id} is being written: close its writer first`);
      line.runs.delete(run.run);
      return;
    }
  }
}

function removeVersion(volumes: MemoryVolumes, options: MemoryTargetOptions, version: StoredVersion): void {
  if (version.consumedBy !== undefined) {
    throw memoryError(
      "IN_USE",
      "remove",
      `version ${version.id} belongs to machine ${version.consumedBy}: terminate that first`,
    );
  }
  const standing = volumes.standingOn(version.id);
  if (standing.length > 0 && options.removal !== "merge") {
    throw memoryError(
      "IN_USE",
      "remove",
      `version ${version.id} has ${standing.join(", ")} standing on it: remove those first`,
    );
  }
  for (const other of volumes.versions.values()) if (other.parent === version.id) other.parent = version.parent;
  for (const run of version.line.runs.values()) if (run.base === version.id) run.base = version.parent;
  volumes.versions.delete(version.id);
  if (version.line.runs.get(version.run)?.committed === version.id) version.line.runs.delete(version.run);
}

function removeLine(volumes: MemoryVolumes, line: StoredLine): void {
  if (line.adopted)
    throw memoryError("DENIED", "remove", `disk ${line.id} was there before us and was adopted: remove it by hand`);
  const users = [
    ...(line.consumedBy === undefined ? [] : [line.consumedBy]),
    ...[...volumes.versions.values()].filter((version) => version.line === line).map(({ id }) => id),
    ...[...line.runs.values()].filter(({ openings }) => openings.size > 0).map(({ generation }) => generation),
  ];
  if (users.length > 0)
    throw memoryError(
      "IN_USE",
      "remove",
      `volume ${line.id} is used by ${users.join(", ")}: remove or close those first`,
    );
  volumes.lines.delete(line.id);
}

function ownedBy(volumes: MemoryVolumes, job: string): (OwnedResource & { volume?: Volume })[] {
  const found: (OwnedResource & { volume?: Volume })[] = [];
  const add = (kind: string, id: string, size: number, description: string): void => {
    found.push({ kind, id, description, volume: { id, size } });
  };
  for (const { machine, job: of } of volumes.launches.values()) {
    if (of === job)
      found.push({
        kind: "machine",
        id: machine.id,
        description: `machine ${machine.name}, launched for a ${machine.purpose}`,
      });
  }
  for (const line of volumes.lines.values()) {
    for (const run of line.runs.values()) {
      if (line.disk !== undefined || run.job !== job || run.committed !== undefined) continue;
      add("run", run.generation, run.size, `half-written run ${run.run} of volume ${line.id}`);
    }
  }
  for (const version of [...volumes.versions.values()].reverse()) {
    if (version.job === job)
      add("version", version.id, version.size, `version of volume ${version.line.id}, written by run ${version.run}`);
  }
  for (const line of volumes.lines.values()) {
    if (line.job === job && !line.adopted) add("volume", line.id, line.size, `volume made for key ${line.key ?? ""}`);
  }
  return found;
}

function launch(
  volumes: MemoryVolumes,
  options: MemoryTargetOptions,
  name: string | undefined,
  disks: readonly LaunchDisk[],
  { key, purpose, job }: LaunchRequest,
): LaunchedMachine {
  const request = JSON.stringify([purpose, disks.map(({ disk, volume }) => [disk, volume.id])]);
  const known = [...volumes.launches.values()].find((launched) => launched.key === key);
  if (known !== undefined) {
    if (known.request === request) return structuredClone(known.machine);
    throw memoryError(
      "EXISTS",
      "launch",
      `key ${key} launched ${known.machine.id} from other disks or for another purpose: use another key`,
    );
  }
  const taken = disks.map(({ disk, volume }) => ({ disk, stored: launchable(volumes, volume.id) }));
  const id = volumes.nextId("machine");
  const consumed = purpose === "cutover" && options.cutover !== "clone";
  const machine: LaunchedMachine = { id, name: name ?? id, purpose, consumed };
  if (consumed) machine.notes = ["the replica itself runs: it takes no further increments"];
  const own = new Map<string, StoredDisk>();
  for (const { disk, stored } of taken) {
    if (consumed) stored.consumedBy = id;
    const bytes = storedDisk(stored);
    own.set(disk, consumed ? bytes : new StoredDisk(bytes.live.fork()));
  }
  volumes.launches.set(id, { key, job, machine, request, disks: own });
  return structuredClone(machine);
}

/** @throws ProviderError NOT_FOUND or IN_USE */
function launchable(volumes: MemoryVolumes, id: string): StoredLine | StoredVersion {
  const stored = volumes.versions.get(id) ?? lineOf(volumes, id, "launch");
  if (stored.consumedBy !== undefined)
    throw memoryError("IN_USE", "launch", `volume ${id} belongs to machine ${stored.consumedBy}: terminate that first`);
  if ("torn" in stored && stored.torn)
    throw memoryError("IN_USE", "launch", `volume ${id} is half written: finish its run first`);
  if (stored.disk === undefined)
    throw memoryError("NOT_FOUND", "launch", `volume ${id} holds no commit: launch from a version of it`);
  return stored;
}

function storedDisk(stored: StoredLine | StoredVersion): StoredDisk {
  if (stored.disk === undefined) throw new TypeError(`${stored.id} has no bytes of its own`);
  return stored.disk;
}

function terminate(volumes: MemoryVolumes, id: string): void {
  volumes.launches.delete(id);
  for (const stored of [...volumes.lines.values(), ...volumes.versions.values()]) {
    if (stored.consumedBy !== id) continue;
    stored.consumedBy = undefined;
    // The machine may have written the volume: no run can be taken up where it was.
    if ("runs" in stored) stored.runs.clear();
  }
}
