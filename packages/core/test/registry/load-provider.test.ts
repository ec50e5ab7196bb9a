import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { discoverProviders } from "../../src/registry/discover-providers.ts";
import { loadProvider } from "../../src/registry/load-provider.ts";
import { makeDefinition } from "./definitions.ts";

let project = "";
beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "diskferry-registry-"));
});
afterAll(() => rm(project, { recursive: true, force: true }));

const definitionText = (name: string, spec = "v1"): string => `
  globalThis.imported = [...(globalThis.imported ?? []), ${JSON.stringify(name)}];
  const config = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } };
  export const provider = { spec: "${spec}", name: "${name}", config, source: async () => ({}) };
`;

interface Fixture {
  manifest?: object;
  files?: Record<string, string>;
  /** Relative to the project; default `node_modules/<name>`. */
  folder?: string;
}

/** Writes a provider package into the project; by default one that is all right. */
async function install(name: string, fixture: Fixture = {}): Promise<string> {
  const folder = join(project, fixture.folder ?? join("node_modules", name));
  const short = name.replace(/^@[^/]*\//, "");
  const manifest = {
    name,
    version: "1.2.3",
    type: "module",
    keywords: ["diskferry-provider"],
    exports: { types: "./index.d.ts", import: "./index.js" },
    diskferry: { spec: "v1", name: short },
    ...fixture.manifest,
  };
  const files = { "package.json": JSON.stringify(manifest), "index.js": definitionText(short), ...fixture.files };
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  return folder;
}

function imported(): string[] {
  return (globalThis as { imported?: string[] }).imported ?? [];
}

async function failure(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  return promise.then(
    () => ({ code: "none", message: "did not fail" }),
    (error: { code: string; message: string }) => error,
  );
}

describe("loadProvider", () => {
  test("loads a package of the user's project that has only an import condition", async () => {
    await install("good");
    expect(await loadProvider("good", { from: project })).toMatchObject({ spec: "v1", name: "good" });
    const module = pathToFileURL(join(project, "src", "main.ts"));
    expect(await loadProvider("good", { from: module })).toMatchObject({ name: "good" });
    expect(await loadProvider("good", { from: module.href })).toMatchObject({ name: "good" });
  });

  test.each<[string, Fixture]>([
    ["main", { manifest: { exports: undefined, main: "./lib" }, files: { "lib.js": definitionText("by-main") } }],
    ["nothing but index.js", { manifest: { exports: undefined } }],
    ["text", { manifest: { exports: "./index.js" } }],
    ["subpaths", { manifest: { exports: { "./x": "./x.js", ".": { node: { default: "./index.js" } } } } }],
    ["a list", { manifest: { exports: [{ browser: "./no.js" }, "./index.js"] } }],
    [
      "conditions in order",
      { manifest: { exports: { browser: "./no.js", default: "./index.js", import: "./no.js" } } },
    ],
    [
      "a condition of the command line",
      { manifest: { exports: { "diskferry-source": "./index.js", default: "./no.js" } } },
    ],
  ])("finds the module by %s", async (way, fixture) => {
    const name = `by-${way.replaceAll(/\W+/g, "-")}`;
    await install(name, fixture);
    expect(await loadProvider(name, { from: project })).toMatchObject({ name });
  });

  test("finds scoped packages, those of folders above, linked ones, and packages by path", async () => {
    await install("@acme/tape");
    const deep = join(project, "a", "b");
    await mkdir(deep, { recursive: true });
    expect(await loadProvider("@acme/tape", { from: deep })).toMatchObject({ name: "tape" });
    const linked = await install("linked", { folder: "elsewhere/linked" });
    await symlink(linked, join(project, "node_modules", "linked"));
    expect(await loadProvider("linked", { from: project })).toMatchObject({ name: "linked" });
    expect(await loadProvider("./elsewhere/linked", { from: project })).toMatchObject({ name: "linked" });
    const listed = (await discoverProviders({ from: project })).find((each) => each.package === "linked");
    expect(listed?.directory).toBe(await realpath(linked));
    expect(await loadProvider(linked, { from: project })).toMatchObject({ name: "linked" });
  });

  test("lets a provider's own project load itself by its name", async () => {
    const folder = await install("own", { folder: "own-project" });
    await mkdir(join(folder, "test"));
    expect(await loadProvider("own", { from: join(folder, "test") })).toMatchObject({ name: "own" });
  });

  test("takes the nearest of several installed copies, as an import would", async () => {
    await install("twice");
    await install("twice", {
      folder: "inner/node_modules/twice",
      files: { "index.js": `${definitionText("twice")} provider.nearest = true;` },
    });
    expect(await loadProvider("twice", { from: join(project, "inner") })).toHaveProperty("nearest", true);
    expect(await loadProvider("twice", { from: project })).not.toHaveProperty("nearest");
  });

  test("names the npm command when a package is not installed, also by the name of its provider", async () => {
    expect(await failure(loadProvider("no-such-provider", { from: project }))).toMatchObject({
      code: "NOT_FOUND",
      message: `provider package no-such-provider is not installed in ${project}; run: npm install no-such-provider`,
    });
    const { message } = await failure(loadProvider("aws-ebs", { from: project }));
    expect(message).toMatch(/run: npm install @diskferry\/provider-aws$/);
  });

  test("asks for the package's folder where a path leads to one of its modules, or nowhere", async () => {
    await install("module-path");
    for (const path of ["./node_modules/module-path/index.js", "./nowhere"]) {
      expect(await failure(loadProvider(path, { from: project }))).toMatchObject({
        code: "NOT_FOUND",
        message: `there is no provider package in ${join(project, path)}; name the folder that holds its package.json`,
      });
    }
  });

  test.each(["../../etc/passwd\0", "a b", "@x", "a/b/c", "", "node:fs", "https://example.org"])(
    "refuses %j, which is no package",
    async (name) => {
      expect((await failure(loadProvider(name, { from: project }))).code).toMatch(
        /^(?:CONFIG_INVALID|NOT_FOUND|DENIED)$/,
      );
    },
  );

  test("refuses a package of another spec before any of its code runs", async () => {
    await install("later", { manifest: { diskferry: { spec: "v9", name: "later" } } });
    expect(await failure(loadProvider("later", { from: project }))).toMatchObject({
      code: "UNSUPPORTED",
      message:
        "later was written for spec v9, and this @diskferry/core supports v1; run: npm install @diskferry/core@latest",
    });
    expect(imported()).toContain("good");
    expect(imported()).not.toContain("later");
  });

  test.each<[string, Fixture, RegExp]>([
    [
      "no-field",
      { manifest: { diskferry: undefined } },
      /no field "diskferry"; run: npm install no-field@latest; .*npm pkg set diskferry\.spec=v1/,
    ],
    [
      "no-keyword",
      { manifest: { keywords: ["disk"] } },
      /lacks the keyword "diskferry-provider"; run: npm install no-keyword@latest; .*npm pkg set "keywords\[\]=/,
    ],
    [
      "no-name",
      { manifest: { diskferry: { spec: "v1" } } },
      /does not name its provider; .*npm pkg set diskferry\.name=/,
    ],
    ["no-export", { files: { "index.js": "export const other = 1;" } }, /no export named "provider"; run: npm install/],
    [
      "no-entry",
      { manifest: { exports: { "./x": "./x.js" } } },
      /exports nothing that can be imported; run: npm install/,
    ],
    ["no-file", { manifest: { exports: "./gone.js" } }, /could not be loaded: .*run: npm install no-file@latest/s],
    ["throws", { files: { "index.js": "throw new Error('bad start');" } }, /could not be loaded: bad start; run: npm/],
    [
      "other-name",
      { files: { "index.js": definitionText("else") } },
      /exports provider "else" of spec v1, but its package.json says "other-name" of spec v1/,
    ],
    [
      "half",
      { files: { "index.js": "export const provider = { spec: 'v1', name: 'half' };" } },
      /half is no valid provider: its config must be/,
    ],
    ["broken", { files: { "package.json": "{" } }, /package\.json is not valid JSON; install the package again/],
  ])("explains what is wrong with the package %s", async (name, fixture, message) => {
    await install(name, fixture);
    expect(await failure(loadProvider(name, { from: project }))).toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringMatching(message),
    });
  });

  test("refuses a definition whose spec is not the one its package.json promised", async () => {
    await install("liar", { files: { "index.js": definitionText("liar", "v2") } });
    expect((await failure(loadProvider("liar", { from: project }))).code).toBe("UNSUPPORTED");
  });

  test("checks a definition that is at hand", async () => {
    const definition = makeDefinition();
    expect(await loadProvider(definition)).toBe(definition);
    expect((await failure(loadProvider({ ...definition, name: "X" }))).code).toBe("CONFIG_INVALID");
  });
});

describe("discoverProviders", () => {
  test("lists installed providers with what hinders them, and runs none of their code", async () => {
    const before = imported().length;
    const own = join(project, "discovery");
    const folder = (name: string): string => join("discovery", "node_modules", name);
    await install("@acme/one", { folder: folder("@acme/one") });
    await install("later", { folder: folder("later"), manifest: { diskferry: { spec: "v9", name: "later" } } });
    await install("unrelated", { folder: folder("unrelated"), manifest: { keywords: [] } });
    await install("broken", { folder: folder("broken"), files: { "package.json": "{" } });
    await install("twice", { folder: folder("twice"), manifest: { version: "9.9.9" } });
    await mkdir(join(own, "node_modules", ".bin"), { recursive: true });
    await writeFile(join(own, "node_modules", "file.txt"), "");
    const found = await discoverProviders({ from: own });
    const mine = found.filter(({ directory }) => directory.includes("discovery"));
    expect(mine).toEqual([
      expect.objectContaining({ package: "@acme/one", name: "one", spec: "v1", version: "1.2.3", problem: undefined }),
      expect.objectContaining({ package: "later", spec: "v9", problem: expect.stringMatching(/written for spec v9/) }),
      expect.objectContaining({ package: "twice", version: "9.9.9" }),
    ]);
    // Those of the folder above are there too, each once.
    expect(found.filter((each) => each.package === "twice")).toHaveLength(1);
    expect(found.map((each) => each.package)).toContain("good");
    expect(imported()).toHaveLength(before);
  });

  test("finds nothing where nothing is installed", async () => {
    const empty = await mkdtemp(join(tmpdir(), "diskferry-empty-"));
    const found = await discoverProviders({ from: empty });
    expect(found.filter(({ directory }) => directory.startsWith(empty))).toEqual([]);
    await rm(empty, { recursive: true });
  });
});
