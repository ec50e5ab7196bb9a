/** What a finished run tells about itself. */
export interface RunFacts {
  /** ISO 8601, all of them. */
  startedAt: string;
  endedAt: string;
  /** When the snapshot of this run was fixed. */
  takenAt: string;
  /** The same of the last run that was recorded; absent: this is the first. */
  previousTakenAt?: string | undefined;
  /** When this run's record was durable: from then on its recovery point can be used. */
  durableAt: string;
  /** Bytes read from the source. */
  readBytes: number;
  /** Bytes sent to the target. */
  movedBytes: number;
  /** Bytes that the tracker called changed; of a disk of which it could not tell, all. */
  changedBytes: number;
  /** Bytes of the disks. */
  fullBytes: number;
}

/** Throughput, lag and efficiency of one run. Plain JSON. */
export interface RunMetrics {
  throughput: { elapsedMs: number; readGibPerSecond: number; movedGibPerSecond: number };
  /**
   * From a change at the source to the moment it is durable at the target. `leastMs`: of a change made just before the
   * snapshot. `mostMs`: of one made just after the previous snapshot, so that it had to wait for this one; absent in a
   * first run. `mostMs` is also the worst-case recovery point objective of the interval that this run ended: just
   * before its record was written, the newest recovery point was the previous snapshot, so a source lost at that
   * moment would have lost all changes since `previousTakenAt`.
   */
  lag: { leastMs: number; mostMs?: number | undefined };
  /**
   * In bytes. `changed`: what the tracker called changed, the whole disk where it could not tell. `ratio`: moved ÷ full; what
   * this run sent of what a full copy would have sent. 0 for disks of no size.
   */
  efficiency: { moved: number; changed: number; full: number; ratio: number };
}

const gib = 2 ** 30;

/** Works out a run's metrics. @throws RangeError when a time is no ISO 8601 time. */
export function measureRun(facts: RunFacts): RunMetrics {
  const elapsedMs = Math.max(0, timeOf(facts.endedAt) - timeOf(facts.startedAt));
  const durableAt = timeOf(facts.durableAt);
  const perSecond = (bytes: number): number => (elapsedMs === 0 ? 0 : bytes / gib / (elapsedMs / 1000));
  return {
    throughput: {
      elapsedMs,
      readGibPerSecond: perSecond(facts.readBytes),
      movedGibPerSecond: perSecond(facts.movedBytes),
    },
    lag: {
      leastMs: Math.max(0, durableAt - timeOf(facts.takenAt)),
      mostMs: facts.previousTakenAt === undefined ? undefined : Math.max(0, durableAt - timeOf(facts.previousTakenAt)),
    },
    efficiency: {
      moved: facts.movedBytes,
      changed: facts.changedBytes,
      full: facts.fullBytes,
      ratio: facts.fullBytes === 0 ? 0 : facts.movedBytes / facts.fullBytes,
    },
  };
}

function timeOf(text: string): number {
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw new RangeError(`"${text}" is no ISO 8601 time`);
  return time;
}
