import { expect, it } from "vitest";
import { conformance, ConformanceError, type ConformanceHarness } from "../src/index.ts";
import { memoryHarness } from "./memory-harness.ts";
import { type Planted, planted } from "./planted.ts";

/** What the clause of a planted violation says about a harness: nothing, or why it fails. */
async function verdict({ clause }: Planted, harness: ConformanceHarness): Promise<unknown> {
  const found = conformance({ ...harness, patienceMs: 2000 }).find(({ id }) => id === clause);
  if (found === undefined) throw new TypeError(`the suite has no clause ${clause}`);
  const skip = (reason: string): never => {
    throw new TypeError(`${clause} was skipped: ${reason}`);
  };
  return found.run({ skip }).then(
    () => undefined,
    (error: unknown) => error,
  );
}

it("catches every planted violation by the clause that it breaks, and finds the same provider right without it", async () => {
  const missed: string[] = [];
  const table: string[] = [];
  for (const mutation of planted) {
    const { what, clause, options = {}, plant } = mutation;
    // The target looks at nothing it is given: the suite has to see for itself what is wrong.
    const lenient = { ...options, target: { ...options.target, written: "unchecked" as const } };
    const sound = await verdict(mutation, memoryHarness("memory", lenient).harness);
    const { harness, place } = memoryHarness("memory", lenient);
    const error = await verdict(mutation, plant(harness, place));
    const caught = sound === undefined && error instanceof ConformanceError && error.id === clause;
    table.push(`${caught ? "caught" : "MISSED"}  ${clause.padEnd(34)} ${what}`);
    if (!caught) missed.push(`${clause}: ${what}: without it ${String(sound)}, with it ${String(error)}`);
  }
  console.log(`${table.join("\n")}\n${planted.length} planted, ${planted.length - missed.length} caught`);
  expect(missed).toEqual([]);
  expect(planted.length).toBeGreaterThanOrEqual(40);
});
