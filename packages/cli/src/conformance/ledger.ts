import { appendFile, readFile, rm } from "node:fs/promises";
import type {
  LaunchedMachine,
  Snapshot,
  SourceConnector,
  TargetProvider,
  Volume,
  Wait,
} from "@diskferry/core/provider";
import { isProviderError } from "@diskferry/core";

/** One thing that was made, or a job under whose name something was about to be made. */
type Entry = { job: string } | { snapshot: Snapshot } | { volume: Volume } | { machine: LaunchedMachine };

/** Something that could not be removed, and why. */
export interface Leftover {
  kind: string;
  id: string;
  reason: string;
}

/**
 * Writes down in a file what the suite makes at a place, each thing before or as soon as it is known, so that it can be
 * removed at the end, and by the next run when this one is killed.
 */
export class Ledger {
  readonly #file: string;
  readonly #job: string;
  readonly #jobs: Set<string> = new Set();
  readonly #snapshots: Map<string, Snapshot> = new Map();
  readonly #volumes: Map<string, Volume> = new Map();
  readonly #machines: Map<string, LaunchedMachine> = new Map();

  private constructor(file: string, job: string) {
    this.#file = file;
    this.#job = job;
  }

  /** Opens the ledger of a file, with what an earlier run wrote into it. `job`: for what the suite gives none. */
  static async open(file: string, job: string): Promise<Ledger> {
    const ledger = new Ledger(file, job);
    const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
    // A line that a kill cut short names nothing that could be removed by it; its job was written before.
    for (const line of text.split("\n").slice(0, -1)) ledger.#take(JSON.parse(line) as Entry);
    return ledger;
  }

  get isEmpty(): boolean {
    return this.#jobs.size + this.#snapshots.size + this.#volumes.size + this.#machines.size === 0;
  }

  /** The source, with every snapshot it takes written down. */
  source(source: SourceConnector): SourceConnector {
    return withMembers(source, {
      snapshot: async (machine, request) => {
        const job = await this.#begin(request.job);
        return this.#note("snapshot", await source.snapshot(machine, { ...request, job }));
      },
    });
  }

  /** The target, with every volume, commit and machine written down. */
  target(target: TargetProvider): TargetProvider {
    const launch = target.launch?.bind(target);
    return withMembers(target, {
      create: async (request) => {
        const job = await this.#begin(request.job);
        return this.#note("volume", await target.create({ ...request, job }));
      },
      open: async (volume, request) => {
        const job = await this.#begin(request.job);
        const writer = await target.open(volume, { ...request, job });
        return withMembers(writer, {
          commit: async (wanted) => this.#note("volume", await writer.commit(wanted)),
        });
      },
      ...(launch === undefined
        ? {}
        : {
            launch: async (machine, disks, request) => {
              const job = await this.#begin(request.job);
              return this.#note("machine", await launch(machine, disks, { ...request, job }));
            },
          }),
    });
  }

  /** Removes everything that is written down, in whatever order the place allows; gives back what is left. */
  async clear(
    source: SourceConnector | undefined,
    target: TargetProvider | undefined,
    wait: Wait,
  ): Promise<Leftover[]> {
    const left: Leftover[] = [];
    const attempt = async (kind: string, id: string, act: () => Promise<void> | undefined): Promise<boolean> => {
      try {
        await act();
        return true;
      } catch (error) {
        if (isProviderError(error) && error.code === "IN_USE") return false;
        left.push({ kind, id, reason: error instanceof Error ? error.message : String(error) });
        return true;
      }
    };
    for (const machine of this.#machines.values())
      await attempt("machine", machine.id, () => target?.terminate?.(machine, wait));
    for (const job of this.#jobs) {
      await attempt("job", job, async () => {
        for await (const { snapshot } of source?.owned(job, wait) ?? [])
          if (snapshot !== undefined) this.#snapshots.set(snapshot.id, snapshot);
        for await (const { volume } of target?.owned(job, wait) ?? [])
          if (volume !== undefined) this.#volumes.set(volume.id, volume);
      });
    }
    for (const snapshot of this.#snapshots.values())
      await attempt("snapshot", snapshot.id, () => source?.release(snapshot, wait));
    // The newest first; one that others stand on is tried again once those are gone.
    let volumes = [...this.#volumes.values()].reverse();
    for (let before = Infinity; volumes.length > 0 && volumes.length < before;) {
      before = volumes.length;
      const refused: Volume[] = [];
      for (const volume of volumes)
        if (!(await attempt("volume", volume.id, () => target?.remove(volume, wait)))) refused.push(volume);
      volumes = refused;
    }
    left.push(...volumes.map(({ id }) => ({ kind: "volume", id, reason: "something stands on it or uses it" })));
    if (left.length === 0) {
      await rm(this.#file, { force: true });
      for (const each of [this.#jobs, this.#snapshots, this.#volumes, this.#machines]) each.clear();
    }
    return left;
  }

  async #begin(given: string | undefined): Promise<string> {
    const job = given ?? this.#job;
    if (!this.#jobs.has(job)) await this.#write({ job });
    return job;
  }

  async #note<Kind extends "snapshot" | "volume" | "machine", Made>(kind: Kind, made: Made): Promise<Made> {
    await this.#write({ [kind]: made } as unknown as Entry);
    return made;
  }

  async #write(entry: Entry): Promise<void> {
    this.#take(entry);
    await appendFile(this.#file, `${JSON.stringify(entry)}\n`, { mode: 0o600, flush: true });
  }

  #take(entry: Entry): void {
    if ("job" in entry) this.#jobs.add(entry.job);
    if ("snapshot" in entry) this.#snapshots.set(entry.snapshot.id, entry.snapshot);
    if ("volume" in entry) this.#volumes.set(entry.volume.id, entry.volume);
    if ("machine" in entry) this.#machines.set(entry.machine.id, entry.machine);
  }
}

/** The same object with other members; its own keep their `this`, private members included. */
function withMembers<Members extends object>(original: Members, members: Partial<Members>): Members {
  return new Proxy(original, {
    get(on, name) {
      if (Object.hasOwn(members, name)) return Reflect.get(members, name) as unknown;
      const value: unknown = Reflect.get(on, name, on);
      return typeof value === "function" ? (value.bind(on) as unknown) : value;
    },
  });
}
