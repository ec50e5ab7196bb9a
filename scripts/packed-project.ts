import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { root, runtimeDependencies, workspacePackages, type Manifest, type WorkspacePackage } from "./workspace.ts";

const run = promisify(execFile);

/** An empty project into which the packages of this workspace are installed as a user gets them. */
export interface PackedProject extends AsyncDisposable {
  /** Where it is, beside the tarballs. */
  folder: string;
  /** Those that are published. */
  packages: WorkspacePackage[];
  /** What each tarball holds, by name of the package. */
  packed: ReadonlyMap<string, { filename: string; files: string[] }>;
}

/**
 * Builds, packs and installs every published package. Third-party packages are packed from node_modules, so that no
 * registry is asked.
 */
export async function packedProject(): Promise<PackedProject> {
  const packages = workspacePackages().filter(({ manifest }) => manifest.private !== true);
  const place = await mkdtemp(join(tmpdir(), "diskferry-packed-"));
  const folder = join(place, "project");
  await mkdir(folder);
  const npm = (...args: string[]): Promise<{ stdout: string }> => {
    const environment = { ...process.env, npm_config_cache: join(place, "cache"), npm_config_loglevel: "error" };
    return run("npm", args, { cwd: folder, env: environment, maxBuffer: 64 << 20 });
  };
  try {
    await run(process.execPath, [join(root, "scripts/build.ts")], { cwd: root });
    const paths = [...packages.map(({ path }) => path), ...thirdParty(packages)];
    const { stdout } = await npm("pack", "--json", "--ignore-scripts", "--pack-destination", place, ...paths);
    const packed = contents(stdout);
    const dependencies = Object.fromEntries(
      [...packed].map(([name, { filename }]) => [name, `file:${join(place, filename)}`]),
    );
    const manifest = { name: "project", private: true, type: "module", dependencies };
    await writeFile(join(folder, "package.json"), JSON.stringify(manifest));
    await npm("install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund");
    return { folder, packages, packed, [Symbol.asyncDispose]: () => rm(place, { recursive: true, force: true }) };
  } catch (error) {
    await rm(place, { recursive: true, force: true });
    throw error;
  }
}

/** The names of the tarballs that `npm pack` made, by name of the package inside. */
function contents(stdout: string): Map<string, { filename: string; files: string[] }> {
  // npm 12 gives an object by name where npm 10 and 11 gave an array.
  const entries = Object.values(
    JSON.parse(stdout) as Record<string, { name: string; filename: string; files: { path: string }[] }>,
  );
  return new Map(
    entries.map(({ name, filename, files }) => [
      name,
      { filename: filename.replace("@", "").replace("/", "-"), files: files.map(({ path }) => path) },
    ]),
  );
}

/** Paths of every third-party package that the packages need at run time and that is installed here. */
function thirdParty(packages: readonly WorkspacePackage[]): Set<string> {
  const found = new Set<string>();
  const visit = (from: string): void => {
    const manifest = JSON.parse(readFileSync(join(from, "package.json"), "utf8")) as Manifest;
    for (const name of runtimeDependencies(manifest)) {
      if (packages.some(({ manifest: own }) => own.name === name)) continue;
      const places = createRequire(join(from, "package.json")).resolve.paths(name) ?? [];
      const path = places.map((each) => join(each, name)).find((each) => isPackage(each));
      // Optional packages of other platforms are not installed here.
      if (path === undefined || found.has(path)) continue;
      found.add(path);
      visit(path);
    }
  };
  for (const { path } of packages) visit(path);
  return found;
}

function isPackage(path: string): boolean {
  try {
    return readFileSync(join(path, "package.json")).length > 0;
  } catch {
    return false;
  }
}
