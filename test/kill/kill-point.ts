import { closeSync, openSync, writeSync } from "node:fs";

/** The steps of a run, in their order; a kill strikes before or after one takes effect. */
export const steps = [
  "snapshot",
  "tiles",
  "intent",
  "read",
  "write",
  "flush",
  "journal",
  "verify",
  "committing",
  "commit",
  "record",
  "release",
] as const;

export type Step = (typeof steps)[number];

/** The very moment at which a process kills itself: the `nth` time it comes to this side of this step. */
export interface KillPoint {
  step: Step;
  side: "before" | "after";
  nth: number;
}

/** What threads of one process share of a kill point and of the log of what they read and wrote. Crosses threads. */
export interface Doom {
  kill: KillPoint | undefined;
  /** How often the kill's moment came. */
  times: SharedArrayBuffer;
  /** Where every read and write is noted before it begins, and every write once more when it is done. */
  log: string;
}

const kinds = ["read", "write", "zero", "lane", "full", "incremental", "rescan", "wrote"] as const;

/** One noted read, write or zero, a write that was done, a worker thread that began, or the mode in which a disk is copied. */
export interface Noted {
  kind: (typeof kinds)[number];
  offset: number;
  length: number;
}

const noteLength = 24;

/** One thread's part in a process that is doomed to die at a chosen moment, or at none. */
export class Executioner implements Disposable {
  readonly doom: Doom;
  readonly #fd: number;
  readonly #times: Int32Array;

  constructor(doom: Doom) {
    this.doom = doom;
    this.#times = new Int32Array(doom.times);
    this.#fd = openSync(doom.log, "a");
  }

  /** Runs a step, and does not come back from it if it is the one to die at. */
  async at<Result>(step: Step, act: () => Promise<Result>): Promise<Result> {
    this.pass(step, "before");
    const result = await act();
    this.pass(step, "after");
    return result;
  }

  pass(step: Step, side: KillPoint["side"]): void {
    const { kill } = this.doom;
    if (kill?.step !== step || kill.side !== side) return;
    if (Atomics.add(this.#times, 0, 1) + 1 !== kill.nth) return;
    process.kill(process.pid, "SIGKILL");
    // The signal takes the whole process; this thread does nothing more until then.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }

  /** Notes what is about to begin; a note outlives the process. */
  note(kind: Noted["kind"], offset = 0, length = 0): void {
    const note = Buffer.alloc(noteLength);
    note.writeDoubleLE(kinds.indexOf(kind), 0);
    note.writeDoubleLE(offset, 8);
    note.writeDoubleLE(length, 16);
    writeSync(this.#fd, note);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/** The notes of a log. */
export function notesOf(log: Buffer): Noted[] {
  const notes: Noted[] = [];
  for (let at = 0; at + noteLength <= log.length; at += noteLength) {
    notes.push({
      kind: kinds[log.readDoubleLE(at)]!,
      offset: log.readDoubleLE(at + 8),
      length: log.readDoubleLE(at + 16),
    });
  }
  return notes;
}
