import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { entriesOf, root, runtimeDependencies, workspacePackages } from "../scripts/workspace.ts";

// What a user gets: packed, installed into an empty project and imported, without the condition that this workspace
// uses for its sources. Third-party packages are packed from node_modules, so that no registry is asked.

const run = promisify(execFile);
const packages = workspacePackages().filter(({ manifest }) => manifest.private !== true);
let folder = "";

function npm(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const environment = { ...process.env, npm_config_cache: join(folder, "cache"), npm_config_loglevel: "error" };
  return run("npm", args, { cwd: join(folder, "project"), env: environment, maxBuffer: 64 << 20 });
}

/** Paths of every third-party package that the packages need at run time and that is installed here. */
function thirdParty(): Set<string> {
  const found = new Set<string>();
  const visit = (from: string): void => {
    const manifest = JSON.parse(readFileSync(join(from, "package.json"), "utf8")) as (typeof packages)[0]["manifest"];
    for (const name of runtimeDependencies(manifest)) {
      if (name.startsWith("@diskferry/")) continue;
      const places = createRequire(join(from, "package.json")).resolve.paths(name) ?? [];
      const place = places.map((each) => join(each, name)).find((each) => isPackage(each));
      // Optional packages of other platforms are not installed here.
      if (place === undefined || found.has(place)) continue;
      found.add(place);
      visit(place);
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

/** The names of the tarballs that `npm pack` made, by name of the package inside. */
async function pack(paths: Iterable<string>): Promise<Map<string, { filename: string; files: string[] }>> {
  const { stdout } = await npm("pack", "--json", "--ignore-scripts", "--pack-destination", folder, ...paths);
  const parsed = JSON.parse(stdout) as unknown;
  // npm 12 gives an object by name where npm 10 and 11 gave an array.
  const entries = Object.values(
    parsed as Record<string, { name: string; filename: string; files: { path: string }[] }>,
  );
  return new Map(
    entries.map(({ name, filename, files }) => [
      name,
      { filename: filename.replace("@", "").replace("/", "-"), files: files.map(({ path }) => path) },
    ]),
  );
}

let packed = new Map<string, { filename: string; files: string[] }>();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-packaging-"));
  await mkdir(join(folder, "project"));
  await run(process.execPath, [join(root, "scripts/build.ts")], { cwd: root });
  packed = await pack([...packages.map(({ path }) => path), ...thirdParty()]);
  const dependencies = Object.fromEntries(
    [...packed].map(([name, { filename }]) => [name, `file:${join(folder, filename)}`]),
  );
  const manifest = { name: "project", private: true, type: "module", dependencies };
  await writeFile(join(folder, "project", "package.json"), JSON.stringify(manifest));
  await npm("install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund");
}, 300_000);

afterAll(async () => {
  if (folder !== "") await rm(folder, { recursive: true, force: true });
});

/** Runs a line of code in the project as a user's module. */
async function inProject(code: string): Promise<string> {
  // No NODE_OPTIONS and no conditions of the process that runs the tests.
  const environment = { ...process.env };
  delete environment["NODE_OPTIONS"];
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", code], {
    cwd: join(folder, "project"),
    env: environment,
  });
  return stdout.trim();
}

test.for(packages.map(({ manifest }) => manifest.name))("%s ships its build, its licence and no sources", (name) => {
  const files = packed.get(name)?.files ?? [];
  expect(files).toContain("package.json");
  expect(files).toContain("LICENSE");
  expect(files.some((file) => file.startsWith("dist/"))).toBe(true);
  expect(files.filter((file) => /^(src|test)\//.test(file) || file.endsWith(".tsbuildinfo"))).toEqual([]);
});

const doors = packages.flatMap(({ manifest }) =>
  Object.keys(manifest.exports ?? {}).map((door) => manifest.name + door.slice(1)),
);

test.for(doors)("%s can be imported after an installation from tarballs", async (specifier) => {
  const code = `import * as it from ${JSON.stringify(specifier)};
    console.log(import.meta.resolve(${JSON.stringify(specifier)}).includes("/dist/") && typeof it);`;
  expect(await inProject(code)).toBe("object");
});

test("core and its author's door share one ProviderError", async () => {
  const code = `import * as core from "@diskferry/core";
    import * as provider from "@diskferry/core/provider";
    console.log(core.ProviderError === provider.ProviderError);`;
  expect(await inProject(code)).toBe("true");
});

test("every worker and lane is a file of its own beside index.js", async () => {
  for (const each of packages) {
    for (const program of Object.keys(entriesOf(each).programs)) {
      expect(packed.get(each.manifest.name)?.files).toContain(`dist/${program}.js`);
    }
    // A folder inside dist/ would break `new URL("./x.js", import.meta.url)` in whatever landed there.
    const nested = packed.get(each.manifest.name)?.files.filter((file) => /^dist\/.*\//.test(file));
    expect(nested).toEqual([]);
  }
});

test("every file that a built module names beside itself is shipped", async () => {
  for (const { manifest } of packages) {
    const files = packed.get(manifest.name)?.files ?? [];
    const scripts = files.filter((file) => /^dist\/[^/]+\.js$/.test(file));
    const missing = scripts.flatMap((file) => {
      const text = readFileSync(join(folder, "project", "node_modules", manifest.name, file), "utf8");
      const named = [...text.matchAll(/"\.\/([\w-]+\.js)"/g)].map((match) => match[1]);
      return named.filter((name) => !files.includes(`dist/${name}`)).map((name) => `${file} names ${name}`);
    });
    expect(missing).toEqual([]);
  }
});

test("every command starts and tells its usage", async () => {
  for (const { manifest } of packages) {
    for (const command of Object.keys(manifest.bin ?? {})) {
      const { stdout } = await run(join(folder, "project", "node_modules", ".bin", command), ["--help"]);
      expect(stdout).toMatch(/\S/);
    }
  }
});

test("a provider made by npm create type-checks, passes its tests, builds, and is found by its keyword", async () => {
  const project = join(folder, "project");
  const modules = join(project, "node_modules");
  const bin = join(modules, ".bin", "create-diskferry-provider");
  await run(bin, ["acme-disks", "--folder", "made"], { cwd: project });
  const made = join(project, "made");
  // The author's tools, which the tarballs of this workspace do not bring.
  await mkdir(join(modules, "@types"), { recursive: true });
  for (const tool of ["vitest", "typescript", "@types/node"])
    await symlink(join(root, "node_modules", tool), join(modules, tool)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  const environment = { ...process.env, NODE_OPTIONS: "", CI: "true" };
  const tool = (path: string, ...args: string[]): Promise<{ stdout: string }> =>
    run(process.execPath, [join(root, "node_modules", path), ...args], { cwd: made, env: environment }).catch(
      (error: { stdout?: string; stderr?: string }) => expect.fail(`${error.stdout}${error.stderr}`),
    );
  await tool("typescript/bin/tsc");
  const { stdout } = await tool("vitest/vitest.mjs", "run", "--no-color");
  expect(stdout).toMatch(/Tests\s+1 passed/);
  await tool("typescript/bin/tsc", "-p", "tsconfig.build.json");
  await symlink(made, join(modules, "diskferry-provider-acme-disks"));
  const code = `import { discoverProviders, loadProvider } from "@diskferry/core";
    const found = (await discoverProviders()).find(({ name }) => name === "acme-disks");
    const { schemes } = await loadProvider("diskferry-provider-acme-disks");
    console.log(JSON.stringify([found.package, found.spec, found.problem ?? null, schemes]));`;
  expect(JSON.parse(await inProject(code))).toEqual(["diskferry-provider-acme-disks", "v1", null, ["acme-disks"]]);
}, 120_000);
