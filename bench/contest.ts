import type { Arena } from "./arena.ts";
import type { Command, Measured } from "./measure.ts";
import { measure } from "./measure.ts";

/** One run that is ready to be timed; disposing it takes down what it needed. */
export interface Prepared extends AsyncDisposable {
  command: Command;
  /** Proves, once per row and outside of the timing, that the run did its work. */
  check?(): Promise<void>;
  /** What others saw of a run that took so long, for aims that judge it. */
  told?(seconds: number): Promise<Readonly<Record<string, unknown>>>;
}

/** Who runs in a row: this project, or a peer with some flags. */
export interface Contestant {
  name: string;
  prepare(): Promise<Prepared>;
}

/** What a row wants to be true. Ratios are ours by theirs, in the direction in which more is better for us. */
export type Aim =
  /** Their time by ours, at least. */
  | { kind: "speed"; peers: readonly string[]; atLeast: number; label: string }
  /** Our processor time by theirs, at most. */
  | { kind: "cpu"; peers: readonly string[]; atMost: number; label: string }
  /** Our time minus the best peer's, in seconds, at most. */
  | { kind: "extra"; peers: readonly string[]; atMost: number; label: string }
  /** Our peak resident set in bytes, at most. */
  | { kind: "peak"; atMost: number; label: string }
  /** The median of a number told of our runs, at least. */
  | { kind: "told"; field: string; atLeast: number; label: string }
  /** The median of a number told of our runs is below theirs, or both are nothing. */
  | { kind: "fewer"; field: string; peers: readonly string[]; label: string }
  /** The bytes of our image by theirs, at most; told by `bytes` in the output of both. */
  | { kind: "size"; peers: readonly string[]; atMost: number; label: string };

/** A row of the table. */
export interface Row {
  name: string;
  title: string;
  /** Bytes that throughput and processor time are told by; 0: they are not told. */
  bytes: number;
  /** Bytes of new memory that a run fills, with files on tmpfs or in the page cache. Default: `bytes`. */
  newBytes?: number;
  aims: readonly Aim[];
  /** Fewer rounds than asked for, where one takes long. */
  mostRounds?: number;
  /** Makes what the row needs and says who runs. The first contestant is ours. */
  open(): Promise<{ contestants: readonly Contestant[] } & AsyncDisposable>;
}

/** All that was measured of a row. Plain JSON. */
export interface RowResult {
  name: string;
  title: string;
  bytes: number;
  /** One list per contestant, in the order of rounds; the first contestant is ours. */
  contestants: { name: string; runs: Measured[] }[];
}

/** Bytes of memory that are used and given back before a run, at most. */
const MOST_WARMED = 2 * 2 ** 30;

/**
 * Runs a row in alternating rounds, each beginning with another contestant and every other one backwards, so that nobody
 * always follows the same one; after one round that is not counted and in which every contestant proves its result.
 */
export async function contest(
  row: Row,
  rounds: number,
  arena: Arena,
  tell: (line: string) => void,
): Promise<RowResult> {
  await using opened = await row.open();
  const results = opened.contestants.map(({ name }): RowResult["contestants"][number] => ({ name, runs: [] }));
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < results.length; turn++) {
      const index = ((round % 2 === 0 ? turn : results.length - 1 - turn) + round) % results.length;
      const contestant = opened.contestants[index]!;
      await using prepared = await contestant.prepare();
      await arena.warm(Math.min(row.newBytes ?? row.bytes, MOST_WARMED));
      const run = await measure(prepared.command, arena.folder("memory"));
      const measured = { ...run, told: { ...run.told, ...(await prepared.told?.(run.work.seconds)) } };
      if (round === 0) await prepared.check?.();
      else results[index]!.runs.push(measured);
      tell(`${row.name}: round ${round} of ${rounds}, ${contestant.name}: ${measured.seconds.toFixed(2)} s`);
    }
  }
  return { name: row.name, title: row.title, bytes: row.bytes, contestants: results };
}
