import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { conditions: ["diskferry-source"] },
  ssr: { resolve: { conditions: ["diskferry-source"], externalConditions: ["diskferry-source"] } },
  test: {
    include: ["packages/*/test/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks",
    execArgv: ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning"],
    testTimeout: 60_000,
    maxWorkers: 2,
  },
});
