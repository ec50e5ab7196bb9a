import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { onTestFinished, expect, test, vi } from "vitest";
import { freshFolder } from "../folder.ts";
import { takeFence } from "../../src/fence/fence.ts";
import { checkGate, enterGate, leaveGate } from "../../src/fence/write-gate.ts";

test("an older epoch is refused, also after the newer one has gone", async () => {
  const folder = freshFolder();
  const newer = await takeFence(folder, "disk", 7);
  await expect(takeFence(folder, "disk", 6)).rejects.toMatchObject({ code: "FENCED", retryable: false });
  await newer.release();
  await expect(takeFence(folder, "disk", 6)).rejects.toMatchObject({ code: "FENCED" });
  await (await takeFence(folder, "disk", 7)).release();
});

test("a newer epoch gets in only when the older writer's last write has drained, and lets no other through", async () => {
  const folder = freshFolder();
  const older = await takeFence(folder, "disk", 1);
  enterGate(older.gate, "disk");
  let isIn = false;
  const taking = takeFence(folder, "disk", 2).then((fence) => {
    isIn = true;
    return fence;
  });
  const fenced = expect.objectContaining({ code: "FENCED" }) as Error;
  await vi.waitFor(() => expect(() => checkGate(older.gate, "disk")).toThrow(fenced), { timeout: 30_000 });
  expect(() => enterGate(older.gate, "disk")).toThrow(fenced);
  await delay(100);
  expect(isIn).toBe(false);
  leaveGate(older.gate);
  const newer = await taking;
  await expect(older.check()).rejects.toMatchObject({ code: "FENCED" });
  checkGate(newer.gate, "disk");
  await newer.check();
  await older.release();
  await newer.release();
});

test("the same epoch may be held twice, as a job's slices do", async () => {
  const folder = freshFolder();
  const one = await takeFence(folder, "disk", 3);
  const two = await takeFence(folder, "disk", 3);
  await one.check();
  await two.check();
  await one.release();
  await two.check();
  await two.release();
});

test("the same epoch is held once where writers cannot share: here the later cuts the earlier off, elsewhere it is refused", async () => {
  const folder = freshFolder();
  const one = await takeFence(folder, "image", 3, { exclusive: true });
  const again = await takeFence(folder, "image", 3, { exclusive: true });
  expect(() => enterGate(one.gate, "image")).toThrow(expect.objectContaining({ code: "FENCED" }));
  checkGate(again.gate, "image");
  await again.release();
  const elsewhere = freshFolder();
  const other = await otherHolder(elsewhere);
  await expect(takeFence(elsewhere, "image", 1, { exclusive: true })).rejects.toMatchObject({ code: "IN_USE" });
  process.kill(other.pid, "SIGKILL");
  await expect
    .poll(() => takeFence(elsewhere, "image", 1, { exclusive: true }).then((fence) => fence.release()), {
      timeout: 10_000,
    })
    .toBeUndefined();
});

/** Another process that takes the fence under epoch 1 and reports what its writes get. */
async function otherHolder(
  folder: string,
): Promise<{ pid: number; lines: string[]; waitFor(line: string): Promise<void> }> {
  const fence = new URL("../../src/fence/fence.ts", import.meta.url).href;
  const gate = new URL("../../src/fence/write-gate.ts", import.meta.url).href;
  const program = `
    const { takeFence } = await import(${JSON.stringify(fence)});
    const { enterGate, leaveGate } = await import(${JSON.stringify(gate)});
    const fence = await takeFence(${JSON.stringify(folder)}, "disk", 1);
    console.log("held");
    setInterval(() => {
      try { enterGate(fence.gate, "disk"); leaveGate(fence.gate); } catch (error) { console.log(error.code); process.exit(); }
    }, 5);`;
  const child = spawn(process.execPath, ["--conditions=diskferry-source", "--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  const lines: string[] = [];
  child.stdout.setEncoding("utf8").on("data", (text: string) => lines.push(...text.trim().split("\n")));
  const waitFor = async (line: string): Promise<void> => {
    while (!lines.includes(line)) await delay(10);
  };
  await waitFor("held");
  return { pid: child.pid!, lines, waitFor };
}

test("a writer in another process is cut off", async () => {
  const folder = freshFolder();
  const other = await otherHolder(folder);
  const newer = await takeFence(folder, "disk", 2);
  expect(readdirSync(folder).filter((name) => name.startsWith("holder-")).length).toBe(1);
  await other.waitFor("FENCED");
  await newer.release();
});

test("a writer that was killed holds nobody up", async () => {
  const folder = freshFolder();
  const other = await otherHolder(folder);
  process.kill(other.pid, "SIGKILL");
  await (await takeFence(folder, "disk", 2, { patienceMs: 5000 })).release();
});

test("a writer that lives but does not answer is not run over: the newcomer is told who it is", async () => {
  const folder = freshFolder();
  const other = await otherHolder(folder);
  process.kill(other.pid, "SIGSTOP");
  await expect(takeFence(folder, "disk", 2, { patienceMs: 300 })).rejects.toMatchObject({
    code: "IN_USE",
    message: expect.stringContaining(`process ${other.pid}`),
  });
  expect(readdirSync(folder).filter((name) => name.startsWith("holder-")).length).toBe(1);
  process.kill(other.pid, "SIGCONT");
  await (await takeFence(folder, "disk", 2)).release();
});

test("a folder that cannot be made is an error with its name", async () => {
  const folder = join(freshFolder(), "file");
  writeFileSync(folder, "");
  await expect(takeFence(join(folder, "fence"), "disk", 1)).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: expect.stringContaining(join(folder, "fence")),
  });
});
