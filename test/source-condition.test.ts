import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { randomBytes } from "./seed.ts";

const worker = new URL("./source-condition-worker.ts", import.meta.url);
const source = new URL("../packages/core/src/provider/index.ts", import.meta.url).href;

test("a worker thread of a test loads workspace packages from source", async () => {
  const message = await new Promise<unknown>((resolve, reject) => {
    const thread = new Worker(worker);
    thread.once("message", resolve);
    thread.once("error", reject);
  });
  expect(message).toEqual({ resolved: source, loaded: "function" });
});

test("a worker thread of a plain Node process with the condition does so too", async () => {
  const script = `
    const { Worker } = require("node:worker_threads");
    new Worker(new URL(${JSON.stringify(worker.href)})).once("message", (it) => console.log(JSON.stringify(it)));`;
  const args = ["--conditions=diskferry-source", "--eval", script];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  expect(JSON.parse(stdout)).toEqual({ resolved: source, loaded: "function" });
});

describe("copy workers start in a program", () => {
  const v8 = "--max-old-space-size=512";
  const module = "--input-type=module";
  const repository = fileURLToPath(new URL("..", import.meta.url));
  test.each<[string, (script: string, file: string) => string[]]>([
    ["given on the command line", (script) => [module, "--eval", script]],
    ["given on the command line, with flags of V8", (script) => [v8, module, `--eval=${script}`]],
    ["in a file, with flags of V8", (_script, file) => [v8, "--single-threaded-gc", file]],
  ])("%s", async (_how, program) => {
    // The packages are found from here, as they are from a program that has installed them.
    mkdirSync(join(repository, "node_modules", ".cache"), { recursive: true });
    const folder = mkdtempSync(join(repository, "node_modules", ".cache", "diskferry-worker-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const [from, to, file] = [join(folder, "from.raw"), join(folder, "to.raw"), join(folder, "program.mjs")];
    const bytes = randomBytes(1 << 20, 1);
    writeFileSync(from, bytes);
    const script = `
    import { MemoryStateStore, openSource, openTarget, replicate } from "@diskferry/core";
    import { provider as local } from "@diskferry/provider-local";
    await using source = await openSource(local, { path: ${JSON.stringify(from)}, machine: "machine" });
    await using target = await openTarget(local, { path: ${JSON.stringify(to)} });
    const job = { id: "eval", source, machine: "machine", target, store: new MemoryStateStore(), options: { workers: 2 } };
    console.log((await replicate(job)).disks[0].threads);`;
    writeFileSync(file, script);
    const args = ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning", ...program(script, file)];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: repository });
    expect(Number(stdout)).toBe(2);
    expect(readFileSync(to).equals(bytes)).toBe(true);
  });
});
