import { readFile, realpath } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ProviderError } from "../provider/error.ts";

/** The keyword by which provider packages are found. */
export const providerKeyword = "diskferry-provider";

/** What is read of a package before any of its code runs. */
export interface ProviderPackage {
  /** Its name; the folder's where it has none. */
  package: string;
  version: string | undefined;
  /** Its real folder, links followed. */
  directory: string;
  /** Whether `keywords` holds {@link providerKeyword}. */
  hasKeyword: boolean;
  /** Its field `diskferry`; absent where that is missing or no object. */
  field: { spec?: unknown; name?: unknown } | undefined;
  /** The module that an import of the package loads; absent where its `exports` lead nowhere. */
  entry: string | undefined;
}

/** A folder from which packages are looked up; a `file:` URL may name the folder or a module in it. */
export function projectFolder(from: string | URL | undefined): string {
  if (from === undefined) return process.cwd();
  if (typeof from === "string" && !from.startsWith("file:")) return resolve(from);
  const path = fileURLToPath(from);
  return /\.[cm]?[jt]s$/.test(path) ? dirname(path) : path;
}

/** The `node_modules` folders in which a module in `folder` finds its packages, the nearest first. */
export function packageFolders(folder: string): string[] {
  return createRequire(join(folder, "index.js")).resolve.paths("a-package") ?? [];
}

/** Whether a provider is named by the folder of its package instead of by the package's name. */
export function isPath(name: string): boolean {
  return /^\.{0,2}[/\\]|^\.{1,2}$|^[a-z]:[/\\]/i.test(name);
}

/**
 * Finds an installed package by name as a module in `folder` would, or by a path that starts with `.` or `/`; a package
 * finds itself too. Undefined when there is none.
 */
export async function findPackage(name: string, folder: string): Promise<ProviderPackage | undefined> {
  if (isPath(name)) return readPackage(resolve(folder, name));
  if (!/^(?:@[\w.~-]+\/)?[\w~-][\w.~-]*$/.test(name)) {
    const message = `"${name}" is no package name; give a name such as @diskferry/provider-local, or a path that starts with ./`;
    throw new ProviderError("CONFIG_INVALID", message, { operation: "load provider" });
  }
  for (let own = folder; ; own = dirname(own)) {
    const found = await readPackage(own);
    if (found?.package === name) return found;
    // Only the nearest package.json says which package a folder belongs to.
    if (found !== undefined || own === dirname(own)) break;
  }
  for (const modules of packageFolders(folder)) {
    const found = await readPackage(join(modules, name));
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * Reads the package.json of a folder; undefined when there is none.
 * @throws ProviderError CONFIG_INVALID when it is not JSON.
 */
export async function readPackage(folder: string): Promise<ProviderPackage | undefined> {
  const path = join(folder, "package.json");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new ProviderError("DENIED", `${path} cannot be read (${code}); check its permissions`, {
      operation: "read package",
      cause: error,
    });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    const message = `${path} is not valid JSON; install the package again`;
    throw new ProviderError("CONFIG_INVALID", message, { operation: "read package", cause });
  }
  const manifest: Record<string, unknown> = isObject(json) ? json : {};
  const directory = await realpath(folder);
  const { name, version, keywords, diskferry } = manifest;
  const entry = entryOf(manifest, directory);
  return {
    package: typeof name === "string" ? name : directory,
    version: typeof version === "string" ? version : undefined,
    directory,
    hasKeyword: Array.isArray(keywords) && keywords.includes(providerKeyword),
    field: isObject(diskferry) ? diskferry : undefined,
    entry,
  };
}

/**
 * The main module as `import` resolves it (Node.js documentation, "Modules: Packages", conditional exports). Written
 * here because Node resolves a bare name only from the importing module, and `require.resolve`, which takes another
 * place, does not see an export that has only an `import` condition.
 */
function entryOf(manifest: Record<string, unknown>, directory: string): string | undefined {
  const { exports } = manifest;
  if (exports === undefined || exports === null) return mainOf(directory);
  const isSubpaths = isObject(exports) && Object.keys(exports).some((key) => key.startsWith("."));
  const target = conditionTarget(isSubpaths ? exports["."] : exports, activeConditions());
  return target?.startsWith("./") === true ? join(directory, target) : undefined;
}

/** Without `exports`, `main` may leave out its extension, which `require` looks for and `import` of a path does not. */
function mainOf(directory: string): string | undefined {
  try {
    return createRequire(join(directory, "package.json")).resolve(directory);
  } catch {
    return undefined;
  }
}

function conditionTarget(target: unknown, conditions: ReadonlySet<string>): string | undefined {
  if (typeof target === "string") return target;
  if (Array.isArray(target)) {
    for (const each of target) {
      const found = conditionTarget(each, conditions);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (!isObject(target)) return undefined;
  for (const [condition, nested] of Object.entries(target)) {
    if (!conditions.has(condition)) continue;
    const found = conditionTarget(nested, conditions);
    if (found !== undefined) return found;
  }
  return undefined;
}

function activeConditions(): ReadonlySet<string> {
  const conditions = new Set(["node", "import", "module-sync", "default"]);
  const words = [...process.execArgv, ...(process.env["NODE_OPTIONS"] ?? "").split(/\s+/)];
  for (const [index, word] of words.entries()) {
    const given = /^(?:--conditions|-C)(?:=(.+))?$/.exec(word);
    const condition = given === null ? undefined : (given[1] ?? words[index + 1]);
    if (condition !== undefined) conditions.add(condition);
  }
  return conditions;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
