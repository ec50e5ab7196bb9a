import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** What a new provider is called. */
export interface Names {
  /** The product's name, unique among providers, and the URI scheme: `acme-disks`. */
  provider: string;
  /** The package's name: `diskferry-provider-acme-disks`. */
  package: string;
}

/** Names that providers of the project and its tests have already. */
const taken = [
  "local",
  "file",
  "raw",
  "qcow2",
  "nbd",
  "nbds",
  "aws-ebs",
  "vsphere",
  "cloudstack",
  "memory",
  "template",
];

/** What is wrong with names, in words; undefined where nothing is. */
export function problemOf({ provider, package: name }: Names): string | undefined {
  if (!/^[a-z][a-z0-9]+(?:-[a-z0-9]+)*$/.test(provider))
    return `${JSON.stringify(provider)} is no provider's name; it has to be like acme-disks: the product, in lower case`;
  if (taken.includes(provider)) return `there is a provider ${provider} already; choose another name`;
  if (!/^(?:@[a-z0-9][\w.~-]*\/)?[a-z0-9][\w.~-]*$/.test(name) || name.length > 214)
    return `${JSON.stringify(name)} is no name of an npm package`;
  return undefined;
}

/**
 * Writes a new provider into a folder, which must be empty or not there yet, and gives the paths of its files.
 * `template` is the folder of the template.
 */
export async function generate(template: string, folder: string, names: Names): Promise<string[]> {
  if (existsSync(folder) && (await readdir(folder)).length > 0) throw new Error(`${folder} is not empty`);
  const written: string[] = [];
  for (const file of await readdir(template, { recursive: true, withFileTypes: true })) {
    if (!file.isFile()) continue;
    const from = join(file.parentPath, file.name);
    // npm leaves .gitignore out of packages, and a tsconfig.json or package.json would claim the template where it lies.
    const path = join(file.parentPath.slice(template.length), file.name.replace(/^_git/, ".git").replace(/^_/, ""));
    const text = await readFile(from, "utf8");
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), filledIn(text, names));
    written.push(path.replace(/^[/\\]/, ""));
  }
  return written.sort();
}

function filledIn(text: string, names: Names): string {
  // In one go: a package may have the word in its own name.
  return text.replaceAll(/\b(?:diskferry-provider-)?template\b/g, (word) =>
    word === "template" ? names.provider : names.package,
  );
}
