import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PackedProject, packedProject } from "../scripts/packed-project.ts";
import { entriesOf, root, workspacePackages } from "../scripts/workspace.ts";

// What a user gets: packed, installed into an empty project and imported, without the condition that this workspace
// uses for its sources.

const run = promisify(execFile);
const packages = workspacePackages().filter(({ manifest }) => manifest.private !== true);
let packed: PackedProject["packed"] = new Map();
let made: PackedProject | undefined;
let project = "";

beforeAll(async () => {
  made = await packedProject();
  ({ packed, folder: project } = made);
}, 900_000);
afterAll(() => made?.[Symbol.asyncDispose]());

/** Runs a user's module in the project. */
async function inProject(code: string, cwd: string = project): Promise<string> {
  // No NODE_OPTIONS and no conditions of the process that runs the tests.
  const environment = { ...process.env };
  delete environment["NODE_OPTIONS"];
  await writeFile(join(cwd, "module.mjs"), code);
  const { stdout } = await run(process.execPath, ["module.mjs"], { cwd, env: environment });
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
      const text = readFileSync(join(project, "node_modules", manifest.name, file), "utf8");
      const named = [...text.matchAll(/"\.\/([\w-]+\.js)"/g)].map((match) => match[1]);
      return named.filter((name) => !files.includes(`dist/${name}`)).map((name) => `${file} names ${name}`);
    });
    expect(missing).toEqual([]);
  }
});

test("a package that ships a part of a dependency ships its licence", () => {
  const files = packed.get("@diskferry/provider-aws")?.files ?? [];
  expect(files).toContain("dist/LICENSE.@aws-sdk.client-ec2");
});

test("every command starts and tells its usage", async () => {
  for (const { manifest } of packages) {
    for (const command of Object.keys(manifest.bin ?? {})) {
      const { stdout } = await run(join(project, "node_modules", ".bin", command), ["--help"]);
      expect(stdout).toMatch(/\S/);
    }
  }
});

test("a provider made by npm create type-checks, passes its tests, builds, and is found by its keyword", async () => {
  const modules = join(project, "node_modules");
  const bin = join(modules, ".bin", "create-diskferry-provider");
  await run(bin, ["acme-disks", "--folder", "made"], { cwd: project });
  const author = join(project, "made");
  // The author's tools, which the tarballs of this workspace do not bring.
  await mkdir(join(modules, "@types"), { recursive: true });
  for (const tool of ["vitest", "typescript", "@types/node"])
    await symlink(join(root, "node_modules", tool), join(modules, tool)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  const environment = { ...process.env, NODE_OPTIONS: "", CI: "true" };
  const tool = async (path: string, ...args: string[]): Promise<{ stdout: string }> => {
    try {
      return await run(process.execPath, [join(root, "node_modules", path), ...args], {
        cwd: author,
        env: environment,
      });
    } catch (error) {
      const { stdout, stderr } = error as { stdout?: string; stderr?: string };
      throw new Error(`${path} ${args.join(" ")}: ${stdout}${stderr}`, { cause: error });
    }
  };
  await tool("typescript/bin/tsc");
  const { stdout } = await tool("vitest/vitest.mjs", "run", "--no-color");
  expect(stdout).toMatch(/Tests\s+1 passed/);
  await tool("typescript/bin/tsc", "-p", "tsconfig.build.json");

  // The command copies with it from its own folder: everything, then what changed.
  const disk = join(author, "disks/machines/web/boot");
  await mkdir(join(author, "disks/machines/web"), { recursive: true });
  await writeFile(disk, Buffer.alloc(2 << 20, "diskferry"));
  const copy = async (): Promise<unknown> => {
    const args = ["copy", "acme-disks:disks", "copies/", "--machine", "web", "--provider", "./", "--json"];
    const env = { ...environment, XDG_STATE_HOME: join(author, "state") };
    const { stdout: lines } = await run(join(modules, ".bin", "diskferry"), args, { cwd: author, env });
    const { report } = JSON.parse(lines.trim().split("\n").at(-1)!) as { report: { disks: object[] } };
    return report.disks;
  };
  expect(await copy()).toMatchObject([{ disk: "boot", mode: "full", moved: 2 << 20 }]);
  await writeFile(disk, Buffer.alloc(512, "changed"), { flag: "r+" });
  expect(await copy()).toMatchObject([{ disk: "boot", mode: "incremental", moved: 64 << 10 }]);

  await symlink(author, join(modules, "diskferry-provider-acme-disks"));
  const code = `import { discoverProviders, loadProvider } from "@diskferry/core";
    const found = (await discoverProviders()).find(({ name }) => name === "acme-disks");
    const { schemes } = await loadProvider("diskferry-provider-acme-disks");
    console.log(JSON.stringify([found.package, found.spec, found.problem ?? null, schemes]));`;
  expect(JSON.parse(await inProject(code))).toEqual(["diskferry-provider-acme-disks", "v1", null, ["acme-disks"]]);
}, 600_000);

/** A project with a later core, and a provider that brings the core it was built against. */
async function laterProject(): Promise<string> {
  const from = join(project, "node_modules");
  const later = join(project, "later");
  const modules = join(later, "node_modules");
  const own = join(modules, "@diskferry");
  await mkdir(own, { recursive: true });
  for (const name of ["core", "provider-local", "nbd"])
    await cp(join(from, "@diskferry", name), join(own, name), { recursive: true });
  for (const name of ["provider-local", "nbd"])
    await cp(join(from, "@diskferry/core"), join(own, name, "node_modules/@diskferry/core"), { recursive: true });
  for (const name of ["zod", "@standard-schema"]) await symlink(join(from, name), join(modules, name));
  const manifest = JSON.parse(await readFile(join(own, "core/package.json"), "utf8")) as object;
  await writeFile(join(own, "core/package.json"), JSON.stringify({ ...manifest, version: "7.0.0" }));
  // What a core of spec v2 that still takes v1 would say.
  const [script = ""] = packed
    .get("@diskferry/core")!
    .files.filter((file) => file.endsWith(".js"))
    .filter((file) => /supportedSpecs = \["v1"\]/.test(readFileSync(join(own, "core", file), "utf8")));
  const text = await readFile(join(own, "core", script), "utf8");
  await writeFile(join(own, "core", script), text.replace('supportedSpecs = ["v1"]', 'supportedSpecs = ["v1", "v2"]'));
  return later;
}

test("a provider of spec v1 works with a later core, each with a copy of core of its own", async () => {
  const later = await laterProject();
  const code = `
    import { mkdirSync, writeFileSync } from "node:fs";
    import { createRequire } from "node:module";
    import * as core from "@diskferry/core";
    const ofProvider = createRequire(import.meta.resolve("@diskferry/provider-local")).resolve("@diskferry/core/provider");
    const other = await import(ofProvider);
    writeFileSync("disk.raw", new Uint8Array(1 << 20).fill(7));
    mkdirSync("copies");
    const local = await core.loadProvider("@diskferry/provider-local");
    const source = await core.openSource(local, { path: "disk.raw", machine: "m", key: "d" });
    const target = await core.openTarget(local, { directory: "copies", format: "raw" });
    const job = { id: "j", source, machine: "m", target, store: new core.MemoryStateStore() };
    const report = await core.replicate(job);
    const { equal } = await core.verify(job);
    const error = await source.machine("nobody").catch((failure) => failure);
    console.log(JSON.stringify({
      specs: core.supportedSpecs, twoCopies: other.ProviderError !== core.ProviderError, equal,
      moved: report.disks[0].moved > 0, recognised: core.isProviderError(error), instance: error instanceof core.ProviderError,
      code: error.code,
    }));`;
  expect(JSON.parse(await inProject(code, later))).toEqual({
    specs: ["v1", "v2"],
    twoCopies: true,
    equal: true,
    moved: true,
    recognised: true,
    instance: false,
    code: "NOT_FOUND",
  });
});

test("a provider that asks for an unknown spec is refused before its code runs, with what to install", async () => {
  const odd = join(project, "node_modules/diskferry-provider-odd");
  await mkdir(odd, { recursive: true });
  const manifest = { name: "diskferry-provider-odd", version: "1.0.0", type: "module", exports: "./index.js" };
  const code = `import { loadProvider } from "@diskferry/core";
    const { code, message } = await loadProvider("diskferry-provider-odd").catch((error) => error);
    console.log(JSON.stringify({ code, message, ran: globalThis.ran ?? false }));`;
  await writeFile(join(odd, "index.js"), "globalThis.ran = true;");
  for (const [spec, remedy] of [
    ["v9", "npm install @diskferry/core@latest"],
    ["v0", "npm install diskferry-provider-odd@latest"],
    ["newest", "npm install diskferry-provider-odd@latest"],
  ]) {
    const text = { ...manifest, keywords: ["diskferry-provider"], diskferry: { spec, name: "odd" } };
    await writeFile(join(odd, "package.json"), JSON.stringify(text));
    const found = JSON.parse(await inProject(code)) as { code: string; message: string; ran: boolean };
    expect(found).toMatchObject({ code: "UNSUPPORTED", ran: false });
    expect(found.message).toContain(
      `was written for spec ${spec}, and this @diskferry/core supports v1; run: ${remedy}`,
    );
  }
});
