import { spawnSync } from "node:child_process";
import { relative } from "node:path";
import { root, workspacePackages } from "./workspace.ts";

/**
 * `npm run check`: builds the packages and judges them as a user gets them: publint, arethetypeswrong, unused code and
 * dependencies (knip), and the committed copies of the public surface in `api/`. Runs all of it, then fails on any.
 */
const failed: string[] = [];

function run(title: string, command: string, ...args: string[]): void {
  const { status, error, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
  const ok = status === 0;
  console.log(`${ok ? "ok" : "FAILED"}  ${title}`);
  if (ok) return;
  failed.push(title);
  console.log([error?.message, stdout, stderr].filter((text) => text !== undefined && text !== "").join("\n"));
}

run("build", "node", "scripts/build.ts");
for (const { manifest, path } of workspacePackages()) {
  if (manifest.private === true) continue;
  run(`publint ${manifest.name}`, "publint", "--strict", path);
  if (manifest.exports !== undefined) {
    run(`attw ${manifest.name}`, "attw", "--pack", relative(root, path), "--profile", "esm-only");
  }
}
run("knip", "knip", "--no-config-hints");
run("api", "node", "scripts/api.ts", "--check");
if (failed.length > 0) {
  console.error(`Failed: ${failed.join(", ")}`);
  process.exit(1);
}
