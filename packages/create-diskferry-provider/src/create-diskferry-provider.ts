#!/usr/bin/env node
import { relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { generate, problemOf } from "./generate.ts";

const usage = `Starts a diskferry provider: a small one that works, with its tests, to be changed into yours.

usage: npm create diskferry-provider <name> [-- --package <package>] [-- --folder <folder>]

  <name>                the product, in lower case: acme-disks; also the scheme of its URIs
  --package <package>   the npm package; default diskferry-provider-<name>
  --folder <folder>     where to write it; default the package's name
`;

/** Beside dist/ in the package; in the workspace the example itself. */
function templateFolder(): string {
  const isSource = import.meta.url.endsWith(".ts");
  return fileURLToPath(new URL(isSource ? "../../../examples/provider-template" : "../template", import.meta.url));
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { package: { type: "string" }, folder: { type: "string" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  const [provider, ...more] = positionals;
  if (provider === undefined || more.length > 0) throw new Error(`one name is needed; see: --help`);
  const names = { provider, package: values.package ?? `diskferry-provider-${provider}` };
  const problem = problemOf(names);
  if (problem !== undefined) throw new Error(problem);
  const folder = resolve(values.folder ?? names.package.replace(/^@[^/]*\//, ""));
  const files = await generate(templateFolder(), folder, names);
  const place = relative(process.cwd(), folder) || ".";
  process.stdout.write(`${files.map((file) => `${place}/${file}\n`).join("")}
next: cd ${place} && npm install && npm test
then: put your platform's client in the place of src/platform.ts
`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`create-diskferry-provider: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
