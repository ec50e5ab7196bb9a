import { type DefinitionWorld, definitionClauses } from "./definition-clauses.ts";
import { fenceClauses } from "./fence-clauses.ts";
import type { ConformanceHarness } from "./harness.ts";
import { type Clause, ConformanceError, describeError, Judge } from "./judge.ts";
import { launchClauses } from "./launch-clauses.ts";
import { sourcePreflightClauses, targetPreflightClauses } from "./preflight-clauses.ts";
import { readerClauses } from "./reader-clauses.ts";
import { sourceClauses } from "./source-clauses.ts";
import { SourceWorld } from "./source-world.ts";
import { targetClauses } from "./target-clauses.ts";
import { TargetWorld } from "./target-world.ts";
import { trackerClauses } from "./tracker-clauses.ts";
import { writerClauses } from "./writer-clauses.ts";

/** What a test runner gives a case. */
export interface ConformanceContext {
  /** Ends the case as skipped; throws. Vitest's `context.skip` and `node:test`'s way both fit. */
  skip(reason: string): never;
}

/** One clause of the contract, ready for any test runner. */
export interface ConformanceCase {
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
export interface ConformanceReport {
  name: string;
  /** Ids of the clauses that hold, in the suite's order. */
  judged: string[];
  /**
   * Clauses that were NOT JUDGED, and why: an absent member, a back door that the harness does not have, or something that
   * the platform cannot do, which the harness says. None of them counts as one that holds.
   */
  skipped: { id: string; reason: string }[];
  failed: { id: string; clause: string; error: unknown }[];
}

/**
 * The clauses of the contract as cases for any test runner. Run them one after another: they share the machine and
 * the target of the harness. Each makes its own volumes and snapshots and cleans up after itself.
 */
export function conformance(harness: ConformanceHarness): ConformanceCase[] {
  const cases = <World>(clauses: readonly Clause<World>[], open: (judge: Judge) => Promise<World>): ConformanceCase[] =>
    clauses.map(({ id, clause, excuse, run }) => ({
      id,
      clause,
      title: `${id}: ${clause}`,
      async run(context) {
        const judge = new Judge(id, clause, harness, (reason) => context.skip(reason));
        await judge.conclude(async () => {
          const world = await open(judge);
          const reason = excuse === undefined ? undefined : harness.source?.[excuse];
          return reason === undefined ? run(world) : judge.skip(reason);
        });
      },
    }));
  return [
    ...cases(definitionClauses, async (judge): Promise<DefinitionWorld> => ({
      judge,
      harness: judge.needs(harness.definition, "definition"),
    })),
    ...cases([...sourceClauses, ...sourcePreflightClauses, ...readerClauses], SourceWorld.open),
    ...cases(trackerClauses, async (judge) => {
      const world = await SourceWorld.open(judge);
      judge.needs(world.source.tracker, "source.tracker");
      return world;
    }),
    ...cases(
      [...targetClauses, ...targetPreflightClauses, ...fenceClauses, ...writerClauses, ...launchClauses],
      TargetWorld.open,
    ),
  ];
}

/** Runs the whole suite, one clause after another, and tells of each whether it holds. */
export async function runConformance(harness: ConformanceHarness): Promise<ConformanceReport> {
  const report: ConformanceReport = { name: harness.name, judged: [], skipped: [], failed: [] };
  for (const { id, clause, run } of conformance(harness)) {
    let reason: string | undefined;
    const skipping = new Error("skipped");
    const skip = (why: string): never => {
      reason = why;
      throw skipping;
    };
    try {
      await run({ skip });
      report.judged.push(id);
    } catch (error) {
      if (error === skipping) report.skipped.push({ id, reason: reason ?? "" });
      else report.failed.push({ id, clause, error });
    }
  }
  return report;
}

/**
 * The clauses of a report as stable text, one line each: `judged ID`, `NOT JUDGED ID: REASON` or `FAILED ID: ERROR`.
 * Commit it and compare it in a test: then a member that goes missing cannot hide as a clause that is not judged.
 */
export function formatConformance({ name, judged, skipped, failed }: ConformanceReport): string {
  const lines = [
    ...judged.map((id) => `judged ${id}`),
    ...skipped.map(({ id, reason }) => `NOT JUDGED ${id}: ${reason}`),
    ...failed.map(
      ({ id, error }) => `FAILED ${id}: ${error instanceof ConformanceError ? error.message : describeError(error)}`,
    ),
  ];
  const counts = `${judged.length} judged, ${skipped.length} not judged, ${failed.length} failed`;
  return [`# ${name}: ${counts}`, ...lines.sort(), ""].join("\n");
}
