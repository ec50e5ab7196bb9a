import type { Reporter, TestModule, TestRunEndReason } from "vitest/node";

/** How a run of tests ended. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * Counts a run. A test file that could not be loaded and an error outside any test are failures; a test that never ran
 * to its end (the run was stopped) is one too, unless it was skipped on purpose.
 */
export function countTests(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): Counts {
  const counts: Counts = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
  for (const module of modules) {
    let tests = 0;
    for (const test of module.children.allTests()) {
      tests++;
      const { state } = test.result();
      counts[state === "pending" ? "failed" : state]++;
    }
    for (const suite of module.children.allSuites()) if (suite.errors().length > 0) counts.failed++;
    if (module.errors().length > 0 || (tests === 0 && module.state() === "failed")) counts.failed++;
  }
  return counts;
}

/** Why these counts are no success although no test failed; undefined when they are one. */
export function verdict(counts: Counts, requirePeers: boolean): string | undefined {
  if (counts.passed === 0) return "No test passed: a run without tests proves nothing.";
  if (requirePeers && counts.skipped > 0) return "DISKFERRY_REQUIRE_PEERS=1 allows no skipped test.";
  return undefined;
}

/**
 * Ends every run with `N passed, N failed, N skipped` on a line of its own, the form that CI reads, and fails a run
 * that tested nothing or, with `DISKFERRY_REQUIRE_PEERS=1`, skipped anything.
 */
export class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[], _reason: TestRunEndReason): void {
    const counts = countTests(modules, errors);
    const problem = verdict(counts, process.env["DISKFERRY_REQUIRE_PEERS"] === "1");
    if (problem !== undefined) process.exitCode = 1;
    // The summary of vitest is written through its own stream; the line has to come after it.
    process.once("exit", () => {
      if (problem !== undefined) process.stderr.write(`${problem}\n`);
      process.stdout.write(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
    });
  }
}
