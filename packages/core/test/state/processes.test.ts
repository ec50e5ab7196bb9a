import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import { openDirectoryState } from "../../src/state/directory-state-store.ts";
import { FileLocks } from "../../src/state/file-lock.ts";
import { nodeFiles } from "../../src/state/node-files.ts";
import { isAlive, ownIdentity } from "../../src/state/process-identity.ts";

const racer = fileURLToPath(new URL("racing-process.ts", import.meta.url));

let directory: string;
const children: ChildProcess[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "diskferry-race-"));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await rm(directory, { recursive: true });
});

interface Racer {
  child: ChildProcess;
  /** The lines printed so far, the first of which is `ready`. */
  lines(): string[];
  ended: Promise<{ code: number | null; errors: string }>;
  ready: Promise<unknown>;
}

function race(task: "count" | "acquire", rounds: number): Racer {
  const child = spawn(process.execPath, ["--conditions=diskferry-source", racer, directory, task, String(rounds)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let printed = "";
  let errors = "";
  const ready = once(child.stdout, "data");
  child.stdout.on("data", (text: Buffer) => (printed += text.toString()));
  child.stderr.on("data", (text: Buffer) => (errors += text.toString()));
  const ended = once(child, "close").then(([code]) => ({ code: code as number | null, errors }));
  // A racer that was killed before it was ready is no failure of its own.
  ready.catch(() => undefined);
  return { child, ended, ready, lines: () => printed.split("\n").slice(0, -1) };
}

describe("a state directory that processes share", () => {
  it("loses no compare-and-set of three processes at once", async () => {
    const racers = [race("count", 60), race("count", 60), race("count", 60)];
    for (const { ended } of racers) expect(await ended).toEqual({ code: 0, errors: "" });
    const store = await openDirectoryState(directory);
    expect((await store.get("counter"))?.value).toBe(180);
    expect(await readdir(join(directory, "locks"))).toEqual([]);
    expect(await readdir(join(directory, "new"))).toEqual([]);
  });

  it("grants each epoch to one of three processes alone", async () => {
    const racers = [race("acquire", 40), race("acquire", 40), race("acquire", 40)];
    for (const { ended } of racers) expect(await ended).toEqual({ code: 0, errors: "" });
    const epochs = racers.flatMap(({ lines }) => lines().slice(1).map(Number));
    expect(epochs.sort((left, right) => left - right)).toEqual(Array.from({ length: 120 }, (_, index) => index + 1));
    const lease = await (await openDirectoryState(directory)).acquire("job");
    expect(lease.previous).toMatchObject({ epoch: 120, released: false, alive: false });
  });

  it(
    "goes on over the locks of processes that were killed, and counts what they were told",
    { timeout: 120_000 },
    async () => {
      const seed = seedOf(Math.floor(Math.random() * 1e9));
      const random = randomFrom(seed);
      let told = 0;
      let leftLocks = 0;
      const kills = 16;
      const others: Racer[] = [];
      let before = 0;
      const store = await openDirectoryState(directory);
      for (let kill = 0; kill < kills; kill += 2) {
        const pair = [race("count", 100_000), race("count", 100_000)];
        await Promise.all(pair.map(({ ready }) => ready));
        // In the middle of their work, however slowly they began it.
        const done = (): number => pair.reduce((sum, { lines }) => sum + lines().length, 0);
        await vi.waitFor(() => expect(done()).toBeGreaterThan(4), { timeout: 60_000, interval: 2 });
        await new Promise((resolve) => setTimeout(resolve, random() * 60));
        for (const { child } of pair) child.kill("SIGKILL");
        await Promise.all(pair.map(({ ended }) => ended));
        others.push(...pair);
        told = others.reduce((sum, { lines }) => sum + lines().filter((line) => line === "+").length, 0);
        leftLocks += (await readdir(join(directory, "locks"))).length;
        const counter = Number((await store.get("counter"))?.value ?? 0);
        // Each killed process may have been about to be told of one more.
        expect(counter, `seed ${seed}`).toBeGreaterThanOrEqual(told);
        expect(counter, `seed ${seed}`).toBeLessThanOrEqual(told + others.length);
        expect(counter).toBeGreaterThanOrEqual(before);
        before = counter;
      }
      const last = await store.get("counter");
      await store.set("counter", 0, { revision: last?.revision ?? null });
      console.log(
        `${kills} processes killed, ${told} compare-and-sets, ${leftLocks} locks left and broken; seed ${seed}`,
      );
      expect(told).toBeGreaterThan(kills);
    },
  );

  it("keeps a living holder's lock and tells who holds it; the lock of a dead one is broken by one process alone", async () => {
    const dead = race("count", 0);
    await dead.ended;
    const self = ownIdentity();
    const gone = { ...self, pid: dead.child.pid!, started: "1" };
    expect(isAlive(gone, self)).toBe(false);
    const locks = new FileLocks(nodeFiles, directory, directory, self, 200);
    const plant = async (owner: object): Promise<void> =>
      await writeFile(join(directory, "lock"), JSON.stringify({ token: crypto.randomUUID(), owner }));

    await plant(self);
    await expect(locks.hold("lock", async () => 1)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining(`process ${process.pid}`) as string,
    });
    const stop = new AbortController();
    const waiting = new FileLocks(nodeFiles, directory, directory, self).hold("lock", async () => 1, stop);
    stop.abort("enough");
    await expect(waiting).rejects.toBe("enough");
    await plant({ ...self, host: "another" });
    await expect(locks.hold("lock", async () => 1)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await writeFile(join(directory, "lock"), "garbage");
    await expect(locks.hold("lock", async () => 1)).rejects.toThrow(`${join(directory, "lock")}`);

    let inside = 0;
    for (let round = 0; round < 25; round++) {
      await plant(gone);
      await Promise.all(
        Array.from({ length: 6 }, async () => {
          const contender = new FileLocks(nodeFiles, directory, directory, self);
          await contender.hold("lock", async () => {
            expect(++inside).toBe(1);
            await new Promise((resolve) => setTimeout(resolve, 1));
            inside--;
          });
        }),
      );
    }
    // Whoever was breaking the lock died as well.
    const token = crypto.randomUUID();
    await writeFile(join(directory, "lock"), JSON.stringify({ token, owner: gone }));
    const breaker = { token: crypto.randomUUID(), owner: gone };
    await writeFile(join(directory, `break-${token}`), JSON.stringify(breaker));
    expect(await locks.hold("lock", async () => "held")).toBe("held");
    expect((await readdir(directory)).filter((name) => name.includes("lock-") || name.includes("break"))).toEqual([]);
  });

  it("knows a process of another start of this machine, and a reused id, for dead, and does not judge other hosts", () => {
    const self = ownIdentity();
    expect(isAlive(self, self)).toBe(true);
    expect(isAlive({ ...self, boot: "earlier" }, self)).toBe(self.boot === undefined ? undefined : false);
    expect(isAlive({ ...self, host: "elsewhere" }, self)).toBeUndefined();
    expect(isAlive({ ...self, host: "elsewhere", boot: "earlier" }, self)).toBeUndefined();
    expect(isAlive({ ...self, space: "pid:[1]" }, self)).toBeUndefined();
    if (self.started !== undefined) expect(isAlive({ ...self, started: "1" }, self)).toBe(false);
    const { started: _, ...unknownStart } = self;
    expect(isAlive({ ...unknownStart, pid: 1 }, self)).toBe(true);
    expect(isAlive({ ...self, pid: -1 }, self)).toBeUndefined();
  });
});

describe("opening a state directory", () => {
  it("makes it for its user alone, and opens it again", async () => {
    const path = join(directory, "deep", "state");
    const store = await openDirectoryState(path);
    await store.set("record", 1, { revision: null });
    await store.append("log", Buffer.of(1));
    await store.put("blob", Buffer.of(1));
    await store[Symbol.asyncDispose]();
    const again = await openDirectoryState(path);
    expect((await again.get("record"))?.value).toBe(1);
    await again[Symbol.asyncDispose]();
    for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
      const { mode } = await stat(join(entry.parentPath, entry.name));
      expect(mode & 0o777, entry.name).toBe(entry.isDirectory() ? 0o700 : 0o600);
    }
  });

  const refused: [string, string, string][] = [
    ["a newer version", `{"format":"diskferry state","version":2}`, "UNSUPPORTED"],
    ["garbage", "\u0000\u0001garbage", "CORRUPT"],
    ["nothing", "", "CORRUPT"],
    ["JSON of something else", `{"format":"tar","version":1}`, "CORRUPT"],
    ["JSON that is no object", "null", "CORRUPT"],
  ];
  it.each(refused)("refuses a format file that holds %s and touches nothing", async (_, content, code) => {
    await writeFile(join(directory, "diskferry-state.json"), content);
    await expect(openDirectoryState(directory)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(new RegExp(`${directory}.*(restore|use the diskferry|name)`)) as string,
    });
    expect(await readdir(directory)).toEqual(["diskferry-state.json"]);
    expect(await readFile(join(directory, "diskferry-state.json"), "utf8")).toBe(content);
  });

  it("refuses a directory of other files, a file, and one it may not write, naming each", async () => {
    await writeFile(join(directory, "photo.jpg"), "x");
    await expect(openDirectoryState(directory)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("photo.jpg") as string,
    });
    expect(await readdir(directory)).toEqual(["photo.jpg"]);
    const file = join(directory, "photo.jpg");
    await expect(openDirectoryState(file)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining(file) as string,
    });
    await expect(openDirectoryState(join(file, "below"))).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    if (process.getuid?.() === 0) return;
    await rm(file);
    await chmod(directory, 0o500);
    await expect(openDirectoryState(directory)).rejects.toMatchObject({
      code: "DENIED",
      message: expect.stringContaining(directory) as string,
    });
    await chmod(directory, 0o700);
  });

  it("says which record is damaged, whatever became of it", async () => {
    const store = await openDirectoryState(directory);
    await store.set("record", { n: 1 }, { revision: null });
    const path = join(directory, "keys", "record.json");
    const good = await readFile(path, "utf8");
    for (const content of [
      "",
      "{",
      good.replace(`"n":1`, `"n":2`),
      good.slice(0, -3),
      "null",
      "[]",
      `{"revision":1}`,
    ]) {
      await writeFile(path, content);
      const damaged = { code: "CORRUPT", message: expect.stringContaining(path) as string };
      await expect(store.get("record")).rejects.toMatchObject(damaged);
      await expect(store.set("record", 1, { revision: null })).rejects.toMatchObject(damaged);
    }
    await store.acquire("job");
    await writeFile(join(directory, "leases", "job.json"), good);
    await expect(store.acquire("job")).rejects.toMatchObject({ code: "CORRUPT" });
  });
});
