import { existsSync, globSync, readFileSync } from "node:fs";
import { copyFile, cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rolldown } from "rolldown";
import { dts } from "rolldown-plugin-dts";
import { build } from "tsup";
import { entriesOf, root, runtimeDependencies, workspacePackages, type WorkspacePackage } from "./workspace.ts";

// Why two tools: docs/decisions/001-tooling.md.

/**
 * Dependencies of which a package takes so little that its bundle has that little instead: by package. What they import in
 * turn stays outside, and the package declares it.
 */
const inlined: Record<string, string[]> = {
  // 32 of 800 operations: 0.1 of 2.1 MB, which saves every process 60 MiB and a third of a second.
  "@diskferry/provider-aws": ["@aws-sdk/client-ec2"],
};

/** Writes what a package's sources take of a dependency into one module; esbuild would keep tables that nobody uses. */
async function inline(path: string, dependency: string, file: string): Promise<void> {
  const names = new Set<string>();
  const imports = new RegExp(`import \\{([^}]*)\\} from "${dependency}"`, "g");
  for (const source of globSync("src/**/*.ts", { cwd: path }))
    for (const [, list = ""] of readFileSync(join(path, source), "utf8").matchAll(imports))
      for (const name of list.split(",")) {
        const taken = name.trim();
        if (taken !== "" && !taken.startsWith("type ")) names.add(taken.split(" as ")[0]!);
      }
  const entry = join(path, "src", "inlined.js");
  const bundle = await rolldown({
    input: entry,
    platform: "node",
    resolve: { mainFields: ["module", "main"] },
    treeshake: { moduleSideEffects: false },
    external: (id) => /^[^./]/.test(id) && id !== dependency && id !== entry,
    plugins: [
      {
        name: "inlined",
        resolveId: (id) => (id === entry ? id : undefined),
        load: (id) => (id === entry ? `export { ${[...names].join(", ")} } from "${dependency}";` : undefined),
      },
    ],
  });
  await bundle.write({ file, format: "esm" });
  await bundle.close();
}

/** Bundles JavaScript: everything that runs is a file of dist/ itself, so `new URL("./x.js", import.meta.url)` holds. */
async function bundle({ path, manifest }: WorkspacePackage, entry: Record<string, string>): Promise<void> {
  const inside = inlined[manifest.name] ?? [];
  const folder = await mkdtemp(join(tmpdir(), "diskferry-build-"));
  const modules = Object.fromEntries(inside.map((name, number) => [name, join(folder, `${number}.js`)]));
  for (const [name, file] of Object.entries(modules)) await inline(path, name, file);
  const outside = runtimeDependencies(manifest).filter((name) => !inside.includes(name));
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
    noExternal: inside,
    esbuildOptions(options) {
      options.alias = modules;
    },
    external: outside.map((name) => new RegExp(`^${name.replaceAll(".", "\\.")}($|/)`)),
  });
  await rm(folder, { recursive: true, force: true });
  // Who ships somebody's work ships the licence it came under.
  for (const name of inside)
    await copyFile(
      join(root, "node_modules", name, "LICENSE"),
      join(path, "dist", `LICENSE.${name.replace("/", ".")}`),
    );
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
