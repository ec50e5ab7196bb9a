import type { Aim, Row, RowResult } from "./contest.ts";
import type { Measured } from "./measure.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** The middle of some numbers. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** How one aim of a row came out. */
export interface Verdict {
  label: string;
  pass: boolean;
  /** The figure in words, with what it was compared to. */
  figure: string;
}

/** A row as Markdown: a table of its contestants, then its aims. */
export function rowReport(row: Row, result: RowResult): string {
  const [ours, ...peers] = result.contestants;
  const lines = [`### ${row.name}: ${row.title}`, ""];
  lines.push(
    "| who | s: median (min–max) | MiB/s | CPU s/GiB | peak MiB | ratio | per round | with start: s, CPU s/GiB |",
  );
  lines.push("|---|---|---|---|---|---|---|---|");
  for (const contestant of [ours!, ...peers]) {
    const { runs } = contestant;
    const times = runs.map(({ work }) => work.seconds);
    const perGib = (cpu: number): string => (row.bytes === 0 ? cpu.toFixed(2) : (cpu / (row.bytes / GIB)).toFixed(2));
    const cells = [
      contestant.name,
      `${median(times).toFixed(2)} (${Math.min(...times).toFixed(2)}–${Math.max(...times).toFixed(2)})`,
      row.bytes === 0 ? "" : (row.bytes / MIB / median(times)).toFixed(0),
      perGib(of(runs, "cpuSeconds")),
      (Math.max(...runs.map(({ peakBytes }) => peakBytes)) / MIB).toFixed(0),
      contestant === ours ? "" : ratioOf(ours!.runs, runs, "seconds").toFixed(2),
      contestant === ours ? "" : perRound(ours!.runs, runs).toFixed(2),
      `${median(runs.map(({ seconds }) => seconds)).toFixed(2)}, ${perGib(median(runs.map(({ cpuSeconds }) => cpuSeconds)))}`,
    ];
    lines.push(`| ${cells.join(" | ")} |`);
  }
  if (row.aims.length > 0) lines.push("");
  for (const { label, pass, figure } of verdictsOf(row, result)) {
    lines.push(`- ${pass ? "met" : "**missed**"}: ${label}: ${figure}`);
  }
  return lines.join("\n");
}

/** Judges a row's aims. */
export function verdictsOf(row: Row, result: RowResult): Verdict[] {
  return row.aims.map((aim) => judge(aim, result));
}

/** All aims in one table. */
export function summary(judged: readonly { row: Row; result: RowResult }[]): string {
  const lines = ["| row | aim | measured | |", "|---|---|---|---|"];
  for (const { row, result } of judged) {
    for (const { label, pass, figure } of verdictsOf(row, result)) {
      lines.push(`| ${row.name} | ${label} | ${figure} | ${pass ? "met" : "**missed**"} |`);
    }
  }
  return lines.join("\n");
}

function judge(aim: Aim, { contestants }: RowResult): Verdict {
  const [ours, ...others] = contestants;
  const { label } = aim;
  if (aim.kind === "peak") {
    const peak = Math.max(...ours!.runs.map(({ peakBytes }) => peakBytes));
    return { label, pass: peak <= aim.atMost, figure: `${(peak / MIB).toFixed(0)} MiB` };
  }
  if (aim.kind === "told") {
    const value = toldOf(ours!.runs, aim.field);
    return { label, pass: value >= aim.atLeast, figure: value.toFixed(3) };
  }
  const peers = others.filter(({ name }) => aim.peers.includes(name));
  if (peers.length === 0) return { label, pass: false, figure: `not judged: ${aim.peers.join(", ")} did not run` };
  if (aim.kind === "size") {
    const theirs = Math.min(...peers.map(({ runs }) => bytesIn(runs[0]!)));
    const ratio = bytesIn(ours!.runs[0]!) / theirs;
    return { label, pass: ratio <= aim.atMost, figure: ratio.toFixed(3) };
  }
  if (aim.kind === "fewer") {
    const [mine, theirs] = [
      toldOf(ours!.runs, aim.field),
      Math.min(...peers.map(({ runs }) => toldOf(runs, aim.field))),
    ];
    return { label, pass: mine < theirs || mine === 0, figure: `${mine} beside ${theirs}` };
  }
  // The best of the peers that an aim names is the one to be compared with.
  const measure = aim.kind === "cpu" ? "cpuSeconds" : "seconds";
  const best = peers.reduce((left, right) => (of(right.runs, measure) < of(left.runs, measure) ? right : left));
  if (aim.kind === "extra") {
    const extra = of(ours!.runs, "seconds") - of(best.runs, "seconds");
    return { label, pass: extra <= aim.atMost, figure: `${extra >= 0 ? "+" : ""}${extra.toFixed(2)} s (${best.name})` };
  }
  const ratio = ratioOf(ours!.runs, best.runs, measure);
  if (aim.kind === "cpu") {
    return { label, pass: 1 / ratio <= aim.atMost, figure: `${(1 / ratio).toFixed(2)} (${best.name})` };
  }
  return { label, pass: ratio >= aim.atLeast, figure: `${ratio.toFixed(2)} (${best.name})` };
}

type Measure = "seconds" | "cpuSeconds";

function of(runs: readonly Measured[], measure: Measure): number {
  return median(runs.map(({ work }) => work[measure]));
}

/** Theirs by ours, of the medians. */
function ratioOf(ours: readonly Measured[], theirs: readonly Measured[], measure: Measure): number {
  return of(theirs, measure) / of(ours, measure);
}

/** The median over rounds of their time by ours. */
function perRound(ours: readonly Measured[], theirs: readonly Measured[]): number {
  return median(ours.map(({ work }, round) => theirs[round]!.work.seconds / work.seconds));
}

function toldOf(runs: readonly Measured[], field: string): number {
  return median(runs.map(({ told }) => (typeof told[field] === "number" ? told[field] : NaN)));
}

function bytesIn({ told }: Measured): number {
  return typeof told["bytes"] === "number" ? told["bytes"] : NaN;
}
