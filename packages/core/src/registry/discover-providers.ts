import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { isProviderError } from "../provider/error.ts";
import { checkPackage } from "./load-provider.ts";
import type { LoadOptions } from "./load-provider.ts";
import { packageFolders, projectFolder, readPackage } from "./package.ts";
import type { ProviderPackage } from "./package.ts";

/** An installed package that calls itself a provider. */
export interface DiscoveredProvider {
  package: string;
  version: string | undefined;
  directory: string;
  /** The provider's name; absent where the package does not tell. */
  name: string | undefined;
  spec: string | undefined;
  /** Why it cannot be loaded; absent when it can, as far as its package.json tells. */
  problem: string | undefined;
}

/**
 * Lists the installed packages with the keyword `diskferry-provider` that a project can load, sorted by package name.
 * None of their code runs. Of a package that is installed several times, the one that an import finds is listed.
 */
export async function discoverProviders(options: LoadOptions = {}): Promise<DiscoveredProvider[]> {
  const found = new Map<string, DiscoveredProvider>();
  for (const modules of packageFolders(projectFolder(options.from))) {
    for (const name of await packageNames(modules)) {
      if (found.has(name)) continue;
      const installed = await readUnlessBroken(join(modules, name));
      if (installed?.hasKeyword === true) found.set(name, describe(installed));
    }
  }
  return [...found.values()].toSorted((one, other) => one.package.localeCompare(other.package, "en"));
}

async function packageNames(modules: string): Promise<string[]> {
  const names: string[] = [];
  for (const name of await namesIn(modules)) {
    if (name.startsWith("@")) names.push(...(await namesIn(join(modules, name))).map((inner) => `${name}/${inner}`));
    else names.push(name);
  }
  return names;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith("."));
  } catch {
    // Most of the folders that are looked into do not exist.
    return [];
  }
}

/** A package that cannot be read is not shown as a provider: whether it is one cannot be known. */
async function readUnlessBroken(folder: string): Promise<ProviderPackage | undefined> {
  try {
    return await readPackage(folder);
  } catch (error) {
    if (isProviderError(error)) return undefined;
    throw error;
  }
}

function describe(found: ProviderPackage): DiscoveredProvider {
  const { version, directory, field } = found;
  let problem: string | undefined;
  try {
    checkPackage(found);
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  return {
    package: found.package,
    version,
    directory,
    name: typeof field?.name === "string" ? field.name : undefined,
    spec: typeof field?.spec === "string" ? field.spec : undefined,
    problem,
  };
}
