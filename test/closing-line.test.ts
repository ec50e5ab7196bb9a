import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { root } from "../scripts/workspace.ts";

// A run of vitest inside a run of vitest: only the whole shows what stands last in the output.

let folder = "";

beforeAll(async () => {
  // Inside node_modules, so that the files find vitest.
  folder = await mkdtemp(join(root, "node_modules", ".closing-line-"));
  const config = `
    import { ClosingLine } from ${JSON.stringify(join(root, "scripts/closing-line.ts"))};
    export default { test: { include: ["*.check.ts"], exclude: [], reporters: ["default", new ClosingLine()] } };`;
  await writeFile(join(folder, "vitest.config.ts"), config);
  const files: Record<string, string> = {
    passes: `test("one", () => {}); test("two", () => {});`,
    skips: `test("one", () => {}); test.skip("two", () => {}); test.todo("three");`,
    fails: `test("one", () => {}); test("two", () => { throw new Error("no"); });`,
    "does-not-load": `import "./nowhere.ts"; test("one", () => {});`,
    "a-hook-throws": `import { beforeAll } from "vitest"; beforeAll(() => { throw new Error("no"); }); test("one", () => {});`,
    "rejects-later": `test("one", () => { void Promise.reject(new Error("no")); });`,
  };
  for (const [name, body] of Object.entries(files)) {
    await writeFile(join(folder, `${name}.check.ts`), `import { test } from "vitest"; ${body}`);
  }
});

afterAll(async () => {
  if (folder !== "") await rm(folder, { recursive: true, force: true });
});

async function runVitest(file: string, requirePeers: boolean): Promise<{ code: number | null; last: string }> {
  const environment: NodeJS.ProcessEnv = { ...process.env, DISKFERRY_REQUIRE_PEERS: requirePeers ? "1" : "0" };
  // The variables of the outer run would tell the inner one that it is a worker of it.
  for (const name of Object.keys(environment)) if (/^(VITEST|TEST$|NODE_ENV$)/.test(name)) delete environment[name];
  const args = [join(root, "node_modules/vitest/vitest.mjs"), "run", "--root", folder, file];
  const child = spawn(process.execPath, args, { env: environment, stdio: ["ignore", "pipe", "ignore"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  return { code, last: output.trimEnd().split("\n").at(-1) ?? "" };
}

test.for([
  ["passes", false, 0, "2 passed, 0 failed, 0 skipped"],
  ["skips", false, 0, "1 passed, 0 failed, 2 skipped"],
  ["skips", true, 1, "1 passed, 0 failed, 2 skipped"],
  ["fails", false, 1, "1 passed, 1 failed, 0 skipped"],
  ["does-not-load", false, 1, "0 passed, 1 failed, 0 skipped"],
  ["a-hook-throws", false, 1, "0 passed, 1 failed, 1 skipped"],
  ["rejects-later", false, 1, "1 passed, 1 failed, 0 skipped"],
  ["no-such-file", false, 1, "0 passed, 0 failed, 0 skipped"],
] as const)("a run that %s (peers required: %s) ends with exit code %i and «%s»", async (row) => {
  const [file, requirePeers, code, last] = row;
  expect(await runVitest(file, requirePeers)).toEqual({ code, last });
});
