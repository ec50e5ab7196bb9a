/**
 * The first copy: makes a real disk, serves it over NBD with change tracking, copies it to a chain of qcow2 recovery
 * points, changes it and copies what changed, loses the tracker and compares instead, and proves all three.
 *
 *   npm start
 */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDirectoryState, openSource, openTarget, replicate, type Job, type RunReport } from "@diskferry/core";
import { connectNbd, fileBackend, serveNbd, trackChanges } from "@diskferry/nbd";
import { provider as local } from "@diskferry/provider-local";

const MIB = 1 << 20;
const DISK_SIZE = 1024 * MIB;

const folder = mkdtempSync(join(tmpdir(), "diskferry-first-copy-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));

const disk = join(folder, "server.raw");
const what = await makeDisk(disk);
console.log(`Made ${disk}: ${DISK_SIZE / MIB} MiB, ${what}.\n`);

await using backend = await fileBackend(disk);
const tracking = trackChanges({ name: "replica", size: DISK_SIZE });
const socket = join(folder, "server.sock");
await using server = await serveNbd({
  listen: { path: socket },
  exports: { server: { backend, tracking: [tracking] } },
});
const uri = server.uri("server");

const points = join(folder, "recovery-points");
mkdirSync(points);
await using target = await openTarget(local, { directory: points, format: "qcow2-chain" });
await using store = await openDirectoryState(join(folder, "state"));
const rows: string[][] = [["copy", "read", "moved", "of the disk", "MiB/s", "verified", "Merkle root"]];

await copy("full", { bitmap: "diskferry:changes:replica" });
await change(24);
await copy("incremental", { bitmap: "diskferry:changes:replica" });
await change(24);
console.log("The tracker is thrown away: digests decide what is sent.");
await copy("rescan", {});

console.log(`\n${table(rows)}\n`);
const made = (await readdir(points, { recursive: true })).filter((name) => name.endsWith(".qcow2")).sort();
console.log(`${made.length} recovery points: ${made.join(", ")}`);
/** Copies the server's disk once more and adds a row to the table. */
async function copy(title: string, tracker: { bitmap?: string }): Promise<void> {
  await using source = await openSource(local, { uri, key: "root", machine: "server", frozen: true, ...tracker });
  const job: Job = { id: "first-copy", source, machine: "server", target, store };
  const report = await replicate(job, {
    onProgress: ({ phase, doneBytes, totalBytes, mibPerSecond }) =>
      bar(title, phase, doneBytes, totalBytes, mibPerSecond),
  });
  process.stderr.write("\n");
  rows.push(rowOf(title, report));
  await prove(title, report);
}

/** Reads server and copy whole, from beginning to end, and compares them. */
async function prove(title: string, { disks: [copied] }: RunReport): Promise<void> {
  if (copied?.volume === undefined || copied.verifiedBytes === 0) throw new Error(`the ${title} copy verified nothing`);
  await using origin = await connectNbd(uri);
  await using replica = await target.read!(copied.volume);
  const [here, there] = [new Uint8Array(4 * MIB), new Uint8Array(4 * MIB)];
  for (let offset = 0; offset < DISK_SIZE; offset += here.length) {
    await Promise.all([origin.read(offset, here), replica.read(offset, there)]);
    if (Buffer.compare(here, there) !== 0) throw new Error(`the ${title} copy differs from the disk after ${offset}`);
  }
}

function rowOf(title: string, report: RunReport): string[] {
  const [copied] = report.disks;
  if (copied === undefined || copied.mode !== title) throw new Error(`the ${title} copy came out as ${copied?.mode}`);
  const seconds = (Date.parse(report.endedAt) - Date.parse(report.startedAt)) / 1000;
  return [
    title,
    `${(copied.read / MIB).toFixed(1)} MiB`,
    `${(copied.moved / MIB).toFixed(1)} MiB`,
    `${((copied.moved / copied.size) * 100).toFixed(2)} %`,
    (copied.read / MIB / seconds).toFixed(0),
    `${(copied.verifiedBytes / MIB).toFixed(1)} MiB`,
    `${copied.root?.slice(0, 16)}…`,
  ];
}

/** The guest writes here and there. */
async function change(places: number): Promise<void> {
  await using guest = await connectNbd(uri);
  for (let place = 0; place < places; place++) {
    const bytes = crypto.getRandomValues(new Uint8Array(64 << 10));
    await guest.write(Math.floor((place + 0.5) * (DISK_SIZE / places / 65536)) * 65536, bytes);
  }
  await guest.flush();
}

/** A disk with real files in it: an ext4 file system where mke2fs is installed, else files one after the other. */
async function makeDisk(path: string): Promise<string> {
  closeSync(openSync(path, "wx"));
  truncateSync(path, DISK_SIZE);
  const files = join(folder, "files");
  mkdirSync(files);
  let bytes = 0;
  for (const [index, file] of [process.execPath, ...readdirOf("packages")].entries()) {
    const content = readFileSync(file);
    bytes += content.length;
    writeFileSync(join(files, String(index)), content);
    if (bytes > 256 * MIB) break;
  }
  try {
    execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", files, path], {
      stdio: "ignore",
      env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` },
    });
    return `a bare ext4 file system with ${(bytes / MIB).toFixed(0)} MiB of files`;
  } catch {
    const disk = openSync(path, "r+");
    let offset = MIB;
    for (const name of await readdir(files)) {
      offset += writeSync(disk, readFileSync(join(files, name)), 0, undefined, offset);
      offset = Math.ceil(offset / 4096) * 4096;
    }
    closeSync(disk);
    return `${(bytes / MIB).toFixed(0)} MiB of files one after the other, for want of mke2fs`;
  }
}

function readdirOf(directory: string): string[] {
  return execFileSync(
    process.execPath,
    ["-p", `require("fs").readdirSync(${JSON.stringify(directory)},{recursive:true}).join("\\n")`],
    { encoding: "utf8" },
  )
    .split("\n")
    .map((name) => join(directory, name))
    .filter((path) => /\.(ts|js|md|json)$/.test(path) && statSync(path).isFile());
}

function bar(title: string, phase: string, done: number, total: number, speed: number): void {
  const share = total === 0 ? 0 : Math.min(1, done / total);
  const filled = "█".repeat(Math.round(share * 30)).padEnd(30, "░");
  process.stderr.write(
    `\r${title.padEnd(12)}${filled} ${(share * 100).toFixed(0).padStart(3)} % ${speed.toFixed(0).padStart(5)} MiB/s ${phase.padEnd(10)}`,
  );
}

function table(cells: readonly string[][]): string {
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  return cells
    .map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("   "),
    )
    .join("\n");
}
