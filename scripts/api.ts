import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { entriesOf, root, workspacePackages } from "./workspace.ts";

/**
 * Keeps `api/`, the committed copies of what each package declares, so that a change of the public surface is seen in
 * review. `npm run api` (after a build) writes them; `--check` compares and names each difference.
 */
function declarations(): Map<string, string> {
  const found = new Map<string, string>();
  for (const workspacePackage of workspacePackages()) {
    const { folder, path } = workspacePackage;
    const { doors } = entriesOf(workspacePackage);
    for (const file of globSync("dist/*.d.ts", { cwd: path }).sort()) {
      const door = basename(file, ".d.ts");
      found.set(door === "index" ? `${folder}.d.ts` : `${folder}.${door}.d.ts`, readFileSync(join(path, file), "utf8"));
    }
    for (const door of Object.keys(doors)) {
      if (!existsSync(join(path, "dist", `${door}.d.ts`))) {
        console.error(`${folder}: dist/${door}.d.ts is missing. Run \`npm run build\` first.`);
        process.exit(1);
      }
    }
  }
  return found;
}

/** Lines of `one` that `other` lacks; enough to see what changed without a diff program. */
function missingFrom(one: string, other: string): string[] {
  const have = new Set(other.split("\n"));
  return one.split("\n").filter((line) => line.trim() !== "" && !have.has(line));
}

const folder = join(root, "api");
const built = declarations();
if (!process.argv.includes("--check")) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  for (const [name, text] of built) writeFileSync(join(folder, name), text);
  console.log(`api/: ${built.size} files written.`);
  process.exit();
}

const committed = new Set(globSync("*.d.ts", { cwd: folder }));
let differences = 0;
for (const name of new Set([...built.keys(), ...committed])) {
  const now = built.get(name) ?? "";
  const before = committed.has(name) ? readFileSync(join(folder, name), "utf8") : "";
  if (now === before) continue;
  differences++;
  if (now === "" || before === "") {
    console.error(now === "" ? `api/${name} is of no package any more.` : `api/${name} does not exist yet.`);
    continue;
  }
  console.error(`api/${name} is not what the sources declare now:`);
  const removed = missingFrom(before, now).map((line) => `  - ${line}`);
  const added = missingFrom(now, before).map((line) => `  + ${line}`);
  for (const line of [...removed, ...added].slice(0, 40)) console.error(line);
  if (removed.length + added.length > 40) console.error(`  … ${removed.length + added.length - 40} lines more`);
}
if (differences > 0) {
  console.error("If the change is meant: `npm run build && npm run api`, and commit api/ with a changeset.");
  process.exit(1);
}
console.log(`api/: all ${built.size} files are what the sources declare.`);
