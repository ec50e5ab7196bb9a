import { existsSync, readFileSync } from "node:fs";
import { copyFile, cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { rolldown } from "rolldown";
import { dts } from "rolldown-plugin-dts";
import { build } from "tsup";
import { entriesOf, root, runtimeDependencies, workspacePackages, type WorkspacePackage } from "./workspace.ts";

// Why two tools: docs/decisions/001-tooling.md.

/** Bundles JavaScript: everything that runs is a file of dist/ itself, so `new URL("./x.js", import.meta.url)` holds. */
async function bundle({ path, manifest }: WorkspacePackage, entry: Record<string, string>): Promise<void> {
  await build({
    config: false,
    silent: true,
    entry,
    outDir: join(path, "dist"),
    format: ["esm"],
    target: "node22",
    platform: "node",
    splitting: true,
    sourcemap: true,
    clean: false,
    dts: false,
    external: runtimeDependencies(manifest).map((name) => new RegExp(`^${name.replaceAll(".", "\\.")}($|/)`)),
  });
}

/** Rolls the declarations of each door up into one file, without a type checker: the sources declare every export. */
async function declare({ path }: WorkspacePackage, doors: Record<string, string>): Promise<void> {
  const bundle = await rolldown({
    input: doors,
    external: /^[^./]/,
    plugins: [dts({ generator: "oxc", emitDtsOnly: true, tsconfig: false })],
  });
  await bundle.write({ dir: join(path, "dist"), format: "esm" });
  await bundle.close();
}

/** What a package ships besides its build that lies elsewhere in the workspace: by package, from and to. */
const shipped: Record<string, [from: string, to: string]> = {
  "create-diskferry-provider": ["examples/provider-template", "template"],
};

async function buildPackage(workspacePackage: WorkspacePackage): Promise<void> {
  const { path, manifest } = workspacePackage;
  const { doors, programs } = entriesOf(workspacePackage);
  const absolute = (entries: Record<string, string>): Record<string, string> =>
    Object.fromEntries(Object.entries(entries).map(([name, source]) => [name, join(path, source)]));
  await rm(join(path, "dist"), { recursive: true, force: true });
  // npm packs a licence only from the package's own folder.
  await copyFile(join(root, "LICENSE"), join(path, "LICENSE"));
  const [from, to] = shipped[manifest.name] ?? [];
  if (from !== undefined && to !== undefined) {
    await rm(join(path, to), { recursive: true, force: true });
    await cp(join(root, from), join(path, to), { recursive: true });
  }
  if (Object.keys(doors).length > 0) await declare(workspacePackage, absolute(doors));
  await bundle(workspacePackage, absolute({ ...doors, ...programs }));
  for (const target of Object.values(manifest.bin ?? {})) {
    const file = join(path, target);
    if (!existsSync(file)) throw new Error(`${manifest.name}: bin ${target} has no source in src/`);
    if (!readFileSync(file, "utf8").startsWith("#!"))
      throw new Error(`${file} does not begin with #!/usr/bin/env node`);
  }
}

const wanted = process.argv.slice(2);
for (const workspacePackage of workspacePackages()) {
  if (wanted.length > 0 && !wanted.includes(workspacePackage.folder)) continue;
  const began = performance.now();
  await buildPackage(workspacePackage);
  console.log(`${workspacePackage.manifest.name} built in ${((performance.now() - began) / 1000).toFixed(1)} s`);
}
