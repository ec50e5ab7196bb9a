import { execFile } from "node:child_process";
import { Worker } from "node:worker_threads";
import { promisify } from "node:util";
import { expect, test } from "vitest";

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
