import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { ProviderDefinition } from "../provider/definition.ts";
import { ProviderError } from "../provider/error.ts";
import { checkDefinition } from "./definition.ts";
import { knownProviders } from "./known-providers.ts";
import { findPackage, isPath, projectFolder, providerKeyword } from "./package.ts";
import type { ProviderPackage } from "./package.ts";
import { specMismatch, supportedSpecs } from "./specs.ts";

export interface LoadOptions {
  /** The user's project: a folder, or `import.meta.url` of one of its modules. Default: the working folder. */
  from?: string | URL | undefined;
}

/**
 * Loads a provider: a package by its name, by the name of a provider of this project (`aws-ebs`) or by a path; or checks
 * a definition that is at hand. What the package says of itself is judged before any of its code runs.
 * @throws ProviderError NOT_FOUND when it is not installed, UNSUPPORTED when it is written for another spec,
 * CONFIG_INVALID when it is no provider; each with the command that helps.
 */
export async function loadProvider(
  provider: string | ProviderDefinition,
  options: LoadOptions = {},
): Promise<ProviderDefinition> {
  if (typeof provider !== "string") return checkDefinition(provider);
  const name = knownProviders.find((known) => known.name === provider)?.package ?? provider;
  const folder = projectFolder(options.from);
  const found = await findPackage(name, folder);
  if (found === undefined && isPath(name)) {
    const message = `there is no provider package in ${resolve(folder, name)}; name the folder that holds its package.json`;
    throw failed("NOT_FOUND", message);
  }
  if (found === undefined) {
    throw failed("NOT_FOUND", `provider package ${name} is not installed in ${folder}; run: npm install ${name}`);
  }
  checkPackage(found);
  const definition = checkDefinition(await importProvider(found), found);
  if (definition.name !== found.field?.name || definition.spec !== found.field.spec) {
    const message = `${found.package} exports provider "${definition.name}" of spec ${definition.spec}, but its package.json says "${String(found.field?.name)}" of spec ${String(found.field?.spec)}`;
    throw failed("CONFIG_INVALID", `${message}; run: npm install ${found.package}@latest, or tell its author`);
  }
  return definition;
}

/** Judges a package by its package.json. @throws ProviderError UNSUPPORTED for another spec, CONFIG_INVALID else. */
export function checkPackage(found: ProviderPackage): void {
  const { field, hasKeyword } = found;
  const name = found.package;
  if (field === undefined) {
    const message = `package ${name} is no diskferry provider: its package.json has no field "diskferry"`;
    const remedy = `run: npm install ${name}@latest; its author adds it by: npm pkg set diskferry.spec=${supportedSpecs.at(-1)} diskferry.name=…`;
    throw failed("CONFIG_INVALID", `${message}; ${remedy}`);
  }
  if (typeof field.spec !== "string" || !supportedSpecs.includes(field.spec)) {
    throw specMismatch({ package: name, name: typeof field.name === "string" ? field.name : undefined }, field.spec);
  }
  if (typeof field.name !== "string") {
    const message = `package ${name} does not name its provider`;
    throw failed("CONFIG_INVALID", `${message}; its author adds it by: npm pkg set diskferry.name=…`);
  }
  if (!hasKeyword) {
    const message = `package ${name} lacks the keyword "${providerKeyword}"`;
    const remedy = `run: npm install ${name}@latest; its author adds it by: npm pkg set "keywords[]=${providerKeyword}"`;
    throw failed("CONFIG_INVALID", `${message}; ${remedy}`);
  }
}

async function importProvider(found: ProviderPackage): Promise<unknown> {
  const name = found.package;
  const again = `run: npm install ${name}@latest`;
  if (found.entry === undefined) {
    throw failed("CONFIG_INVALID", `package ${name} exports nothing that can be imported; ${again}`);
  }
  let module: { readonly provider?: unknown };
  try {
    module = await import(/* @vite-ignore */ pathToFileURL(found.entry).href);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw failed("CONFIG_INVALID", `package ${name} could not be loaded: ${reason}; ${again}`, cause);
  }
  if (module.provider === undefined) {
    throw failed("CONFIG_INVALID", `package ${name} has no export named "provider"; ${again}, or tell its author`);
  }
  return module.provider;
}

function failed(code: "CONFIG_INVALID" | "NOT_FOUND", message: string, cause?: unknown): ProviderError {
  return new ProviderError(code, message, { operation: "load provider", cause });
}
