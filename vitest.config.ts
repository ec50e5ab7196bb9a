import { defineConfig } from "vitest/config";
import { ClosingLine } from "./scripts/closing-line.ts";

/** Makes workspace packages resolve to their sources; nothing has to be built before the tests. */
const conditions = ["diskferry-source"];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    include: ["packages/*/test/**/*.test.ts", "examples/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks",
    // Worker threads and forked processes inherit these, so that they run from source too.
    execArgv: ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning"],
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ["default", new ClosingLine()],
  },
});
