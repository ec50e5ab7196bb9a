import { execFile, spawn } from "node:child_process";
import { globSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { zstdDecompressSync } from "node:zlib";
import { expect, onTestFinished, test, vi } from "vitest";
import { randomBytes } from "../test/seed.ts";

// Every example runs as a process of its own, as its first lines say.

// Processes start slowly where many do.
vi.setConfig({ testTimeout: 300_000 });
const run = promisify(execFile);
const here = fileURLToPath(new URL(".", import.meta.url));
const flags = ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning"];
const mib = 1 << 20;

interface Scene {
  folder: string;
  path(name: string): string;
  disk: Uint8Array;
}

/** A folder with `server.raw`: 4 MiB, the third of them zero. */
async function scene(): Promise<Scene> {
  const folder = await mkdtemp(join(tmpdir(), "diskferry-examples-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const disk = randomBytes(4 * mib, 21);
  disk.fill(0, 2 * mib, 3 * mib);
  const path = (name: string): string => join(folder, name);
  await writeFile(path("server.raw"), disk);
  await mkdir(path("recovery-points"));
  return { folder, path, disk };
}

async function example(name: string, { folder }: Scene, ...args: string[]): Promise<string> {
  const env = { ...process.env, XDG_STATE_HOME: join(folder, "state-home"), NODE_OPTIONS: "" };
  const { stdout } = await run(process.execPath, [...flags, join(here, `${name}.ts`), ...args], { cwd: folder, env });
  return stdout;
}

/** What an image holds, by the example's own way of checking: a full copy into a raw file. */
async function bytesOf(made: Scene, image: string): Promise<Uint8Array> {
  const code = `import { openSource } from "@diskferry/core";
    import { provider } from "@diskferry/provider-local";
    const source = await openSource(provider, { path: process.argv[1], key: "d", machine: "m", frozen: true });
    const { disks } = await source.snapshot(await source.machine("m"), { key: "k" });
    const reader = await source.open(disks[0]);
    const bytes = new Uint8Array(reader.size);
    await reader.read(0, bytes);
    process.stdout.write(bytes);`;
  const args = [...flags, "--input-type=module", "--eval", code, image];
  const { stdout } = await run(process.execPath, args, { cwd: here, encoding: "buffer", maxBuffer: 64 * mib });
  expect(made.disk.byteLength).toBe(stdout.byteLength);
  return stdout;
}

const same = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

test("full-copy", async () => {
  const made = await scene();
  expect(await example("full-copy", made, "server.raw", "server.qcow2")).toMatch(/moved: 3145728/);
  expect(same(await bytesOf(made, made.path("server.qcow2")), made.disk)).toBe(true);
});

test("incremental", async () => {
  const made = await scene();
  const out = await example("incremental", made, "server.raw", "recovery-points");
  expect(out).toMatch(/round: 1,\s+mode: 'full'/);
  for (const round of [2, 3]) {
    expect(out).toMatch(new RegExp(`round: ${round},\\s+mode: 'incremental'[^}]*read: 65536[^}]*moved: 65536`));
  }
});

test("several-disks", async () => {
  const made = await scene();
  await writeFile(made.path("data.raw"), randomBytes(mib, 22));
  await mkdir(made.path("copies"));
  const out = await example("several-disks", made, "copies", "server.raw", "data.raw");
  expect(out).toMatch(/^crash .*disk: 'disk0'.*disk: 'disk1'/s);
});

test("changed-blocks", async () => {
  const made = await scene();
  const out = await example("changed-blocks", made, "server.raw", "pieces.bin");
  expect(out).toMatch(/bytes: (3145728|4194304)/);
  const pieces = await readFile(made.path("pieces.bin"));
  const rebuilt = new Uint8Array(made.disk.byteLength);
  for (let at = 0; at < pieces.byteLength;) {
    const [offset, length, packed] = [
      Number(pieces.readBigUInt64BE(at)),
      pieces.readUInt32BE(at + 8),
      pieces.readUInt32BE(at + 12),
    ];
    const bytes = zstdDecompressSync(pieces.subarray(at + 16, at + 16 + packed));
    expect(bytes.byteLength).toBe(length);
    rebuilt.set(bytes, offset);
    at += 16 + packed;
  }
  expect(same(rebuilt, made.disk)).toBe(true);
});

test("custom-layer", async () => {
  const made = await scene();
  const out = await example("custom-layer", made, "server.raw", "server.qcow2");
  expect(out).toMatch(/side: 'source', method: 'read', calls: \d+, bytes: \d+, errors: 0/);
  expect(out).toMatch(/side: 'target',\s+method: 'write'/);
  await expect(example("custom-layer", made, "server.raw", "other.qcow2", "50", String(mib))).rejects.toThrow(
    "nothing behind 1048576 is to be touched",
  );
});

test("progress-page", async () => {
  const made = await scene();
  const env = { ...process.env, NODE_OPTIONS: "", LINGER_MS: "2000" };
  const child = spawn(process.execPath, [...flags, join(here, "progress-page.ts"), "server.raw", "server.qcow2"], {
    cwd: made.folder,
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const address = await new Promise<string>((resolve) =>
    child.stdout.once("data", (text: Buffer) => resolve(text.toString().trim())),
  );
  expect(await (await fetch(address)).text()).toContain("<progress");
  const events = await fetch(`${address}events`);
  expect(events.headers.get("content-type")).toBe("text/event-stream");
  let text = "";
  for await (const bytes of events.body!) {
    text += Buffer.from(bytes).toString();
    if (/"final":true/.test(text)) break;
  }
  const last = JSON.parse(text.trim().split("\n\n").at(-1)!.replace("data: ", "")) as {
    doneBytes: number;
    totalBytes: number;
  };
  expect(last.doneBytes).toBe(last.totalBytes);
});

test("opentelemetry", async () => {
  const out = await example("opentelemetry", await scene(), "server.raw", "server.qcow2");
  expect(out).toMatch(/name: 'replicate',\s+attributes: \{[^}]*outcome: 'done'[^}]*\},\s+inside: false/);
  expect(out).toMatch(/name: 'transfer',\s+attributes: \{[^}]*movedBytes: 3145728[^}]*\},\s+inside: true/);
  expect(out).toMatch(/name: 'target commit'|name: 'target flush'/);
});

test("prometheus", async () => {
  const out = await example("prometheus", await scene(), "server.raw", "server.qcow2");
  expect(out).toContain('diskferry_runs_total{job="server",outcome="done"} 2');
  expect(out).toContain('diskferry_moved_bytes_total{job="server",disk="root"} 3145728');
  expect(out).toMatch(/diskferry_lag_seconds\{job="server"\} \d/);
});

test("verify-receipt", async () => {
  expect(await example("verify-receipt", await scene(), "server.raw", "server.qcow2")).toContain(
    "{ signature: 'valid', content: 'equal' }",
  );
});

test("own-state-store", async () => {
  const made = await scene();
  const args = ["server.raw", "recovery-points", "state.sqlite"];
  expect(await example("own-state-store", made, ...args)).toContain("mode: 'full'");
  // Another process finds the record and the manifest of the first in the database.
  expect(await example("own-state-store", made, ...args)).toMatch(/mode: 'rescan', read: \d+, moved: 0/);
});

test("slices", async () => {
  const made = await scene();
  await mkdir(made.path("copies"));
  const out = await example("slices", made, "server.raw", "copies");
  expect(out).toMatch(/workers: 4/);
  const [image] = globSync("copies/**/*.raw", { cwd: made.folder });
  expect(same(await readFile(made.path(image!)), made.disk)).toBe(true);
});

test("every example is run here, or by npm start", async () => {
  const read = (name: string): Promise<string> => readFile(join(here, name), "utf8");
  const own = globSync("*.ts", { cwd: here }).filter((name) => !name.endsWith(".test.ts"));
  expect(own.length).toBeGreaterThan(10);
  const tests = (await Promise.all(globSync("*.test.ts", { cwd: here }).map(read))).join("\n");
  const tried = new Set([...tests.matchAll(/^test\("([\w-]+)"/gm)].map(([, name]) => `${name}.ts`));
  const left: string[] = [];
  for (const name of own) if (!tried.has(name) && !/npm start/.test((await read(name)).slice(0, 600))) left.push(name);
  expect(left).toEqual([]);
});
