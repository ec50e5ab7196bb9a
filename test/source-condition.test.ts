import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
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

test("copy workers start in a program that was given on the command line", async () => {
  const folder = mkdtempSync(join(tmpdir(), "diskferry-eval-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const [from, to] = [join(folder, "from.raw"), join(folder, "to.raw")];
  const bytes = randomBytes(1 << 20, 1);
  writeFileSync(from, bytes);
  const script = `
    import { MemoryStateStore, openSource, openTarget, replicate } from "@diskferry/core";
    import { provider as local } from "@diskferry/provider-local";
    await using source = await openSource(local, { path: ${JSON.stringify(from)}, machine: "machine" });
    await using target = await openTarget(local, { path: ${JSON.stringify(to)} });
    const job = { id: "eval", source, machine: "machine", target, store: new MemoryStateStore(), options: { workers: 2 } };
    console.log((await replicate(job)).disks[0].threads);`;
  const args = ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning"];
  const program = ["--input-type=module", "--eval", script];
  const { stdout } = await promisify(execFile)(process.execPath, [...args, ...program]);
  expect(Number(stdout)).toBe(2);
  expect(readFileSync(to).equals(bytes)).toBe(true);
});
