import { existsSync, globSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of the whole workspace, with a slash at its end. */
export const root: string = fileURLToPath(new URL("..", import.meta.url));

/** The fields of a package.json that the scripts and the workspace's own tests look at. */
export interface Manifest {
  name: string;
  version: string;
  private?: boolean;
  files?: string[];
  bin?: Record<string, string>;
  exports?: Record<string, Record<string, string>>;
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
}

/** One package of the workspace. */
export interface WorkspacePackage {
  /** The folder under `packages/`. */
  folder: string;
  /** Absolute path of that folder. */
  path: string;
  manifest: Manifest;
}

/** Every package of the workspace, those first that others depend on. */
export function workspacePackages(): WorkspacePackage[] {
  const waiting = globSync("packages/*/package.json", { cwd: root })
    .sort()
    .map((file): WorkspacePackage => {
      const path = join(root, file, "..");
      return { folder: basename(path), path, manifest: JSON.parse(readFileSync(join(root, file), "utf8")) as Manifest };
    });
  const ordered: WorkspacePackage[] = [];
  while (waiting.length > 0) {
    const names = new Set(waiting.map(({ manifest }) => manifest.name));
    const next = waiting.findIndex(({ manifest }) => !runtimeDependencies(manifest).some((name) => names.has(name)));
    if (next === -1) throw new Error(`packages depend on each other in a circle: ${[...names].join(", ")}`);
    ordered.push(...waiting.splice(next, 1));
  }
  return ordered;
}

/** What a user of the package gets installed with it. */
export function runtimeDependencies(manifest: Manifest): string[] {
  const { dependencies, optionalDependencies, peerDependencies } = manifest;
  return Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies });
}

/** What is built of one package: names in `dist/` without extension, and the source of each. */
export interface Entries {
  /** Have declarations: what `exports` names. */
  doors: Record<string, string>;
  /** Run on their own: commands, worker threads and lanes. */
  programs: Record<string, string>;
}

const distName = /^\.\/dist\/([^/]+)\.js$/;

/** Reads from a package's manifest and sources what has to be built. */
export function entriesOf({ path, manifest }: WorkspacePackage): Entries {
  const doors: Record<string, string> = {};
  const programs: Record<string, string> = {};
  for (const [door, conditions] of Object.entries(manifest.exports ?? {})) {
    const name = distName.exec(conditions["default"] ?? "")?.[1];
    const source = conditions["diskferry-source"];
    if (source === undefined) continue;
    if (name === undefined) throw new Error(`${manifest.name}: "default" of ${door} has to be ./dist/<name>.js`);
    doors[name] = source;
  }
  for (const target of Object.values(manifest.bin ?? {})) {
    const name = distName.exec(target)?.[1];
    if (name === undefined) throw new Error(`${manifest.name}: ${target} has to be ./dist/<name>.js`);
    if (existsSync(join(path, "src", `${name}.ts`))) programs[name] = `./src/${name}.ts`;
  }
  for (const file of globSync("src/**/*-{worker,lane}.ts", { cwd: path }).sort()) {
    const name = basename(file, ".ts");
    if (programs[name] !== undefined || doors[name] !== undefined) {
      throw new Error(`${manifest.name}: two sources want dist/${name}.js, one of them ${file}; rename one`);
    }
    programs[name] = `./${file}`;
  }
  return { doors, programs };
}
