import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isProviderError } from "@diskferry/core";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { Bounds } from "../../../test/bounds.ts";
import { seedOf } from "../../../test/seed.ts";
import { readConfig } from "../src/config/read-config.ts";
import { goodConfig } from "./good-config.ts";

const folder = mkdtempSync(join(tmpdir(), "diskferry-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, "jobs.yaml");

/** Read, or refused by name: how it ended. Anything else fails. */
async function outcomeOf(text: string | Uint8Array): Promise<"read" | "refused"> {
  writeFileSync(path, text);
  try {
    await readConfig(path, { io: { env: { DISKS: "/srv" } } });
    return "read";
  } catch (error) {
    if (!isProviderError(error)) throw error;
    expect(error.message).toContain("jobs.yaml");
    expect(error.message.length).toBeLessThan(200_000);
    return "refused";
  }
}

const names = [
  ...[
    "jobs",
    "defaults",
    "state",
    "concurrency",
    "receipts",
    "source",
    "target",
    "provider",
    "path",
    "uri",
    "directory",
  ],
  ...[
    "verify",
    "window",
    "timeZone",
    "bandwidth",
    "retention",
    "count",
    "mode",
    "disks",
    "machine",
    "web",
    "tls",
    "format",
  ],
  ...["__proto__", "constructor", "toString", "", "<<", "${DISKS}", "${NONE}"],
];
const values = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 5, depthSize: "small" },
    fc.oneof(fc.string(), fc.integer(), fc.double(), fc.boolean(), fc.constant(null), fc.constantFrom(...names)),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom(...names), tie("value"), { maxKeys: 6 }),
  ),
})).value;
/** The good file with some of its bytes exchanged, taken out or put in. */
const damaged = fc
  .array(fc.tuple(fc.nat(goodConfig.length), fc.nat(3), fc.string({ unit: "binary-ascii", maxLength: 4 })), {
    minLength: 1,
    maxLength: 6,
  })
  .map((edits) => edits.reduce((text, [at, cut, put]) => text.slice(0, at) + put + text.slice(at + cut), goodConfig));

describe.each([seedOf(77), Math.floor(Math.random() * 2 ** 31)])("a configuration file, seed %i", (seed) => {
  test.each([
    ["of a good file's damage", damaged],
    ["of any structure", values.map((value) => JSON.stringify(value))],
    ["of any text", fc.string({ unit: "binary", maxLength: 400 })],
    ["of any bytes", fc.uint8Array({ maxLength: 400 })],
  ])("%s is read or refused by name", async (_, input: fc.Arbitrary<string | Uint8Array>) => {
    const counts = { read: 0, refused: 0 };
    await using bounds = new Bounds(`configuration files, seed ${seed}`);
    const judged = fc.asyncProperty(input, (text) => bounds.run(async () => void counts[await outcomeOf(text)]++));
    await fc.assert(judged, { seed, numRuns: 150 });
    expect(counts.refused).toBeGreaterThan(0);
  });
});

describe("a configuration file that would take all memory or the stack", () => {
  const laughs = Array.from(
    { length: 9 },
    (_, at) => `a${at + 1}: &a${at + 1} [${Array(9).fill(`*a${at}`).join(", ")}]`,
  );
  test.each([
    ["aliases of aliases", ["a0: &a0 [lol]", ...laughs, "jobs: *a9"].join("\n")],
    ["a list that holds itself", "jobs: &a [*a]"],
    ["a map that holds itself", "jobs: &a { web: *a }"],
    ["maps merged into themselves", "jobs: &a { web: { <<: *a } }"],
    ["lists in lists", `jobs: ${"[".repeat(200_000)}`],
    ["closed lists in lists", `jobs: ${"[".repeat(20_000)}${"]".repeat(20_000)}`],
    ["maps in maps", `jobs: ${"{ a: ".repeat(20_000)}`],
    ["a map below a map, on and on", Array.from({ length: 1200 }, (_, at) => `${" ".repeat(at)}a:`).join("\n")],
    ["a text without end", `jobs: "${"x".repeat(900_000)}`],
    ["more than a configuration holds", "#".repeat((1 << 20) + 1)],
  ])("by %s is refused by name", async (_, text) => {
    expect(await outcomeOf(text)).toBe("refused");
  });
});
