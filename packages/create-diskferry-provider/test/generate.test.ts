import { execFile } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../../", import.meta.url));
const command = join(root, "packages/create-diskferry-provider/src/create-diskferry-provider.ts");
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-create-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

async function create(...args: string[]): Promise<Ended> {
  return run(process.execPath, [command, ...args], { cwd: folder }).then(
    (said) => ({ code: 0, ...said }),
    (error: Ended) => error,
  );
}

test("fills the names in everywhere and leaves none of the template's", async () => {
  const { code, stdout } = await create("acme-disks", "--package", "@acme/disks", "--folder", "made");
  expect(code).toBe(0);
  expect(stdout).toContain("made/src/source.ts\n");
  const files = globSync("made/**", { cwd: folder, withFileTypes: true, exclude: () => false }).filter((file) =>
    file.isFile(),
  );
  const texts = files.map((file) => readFileSync(join(file.parentPath, file.name), "utf8"));
  expect(texts.filter((text) => /\btemplate\b/.test(text))).toEqual([]);
  const manifest = JSON.parse(readFileSync(join(folder, "made/package.json"), "utf8")) as Record<string, unknown>;
  expect(manifest).toMatchObject({ name: "@acme/disks", diskferry: { spec: "v1", name: "acme-disks" } });
  for (const name of [".gitignore", ".github/workflows/ci.yml", "tsconfig.json", "test/conformance.test.ts"])
    expect(readFileSync(join(folder, "made", name), "utf8")).not.toBe("");
});

test("leaves the package's name as it was given, whatever words are in it", async () => {
  await create("acme-disks", "--package", "@acme/disk-template", "--folder", "named");
  const manifest = JSON.parse(readFileSync(join(folder, "named/package.json"), "utf8")) as Record<string, unknown>;
  expect(manifest).toMatchObject({ name: "@acme/disk-template", diskferry: { name: "acme-disks" } });
});

test.for([
  [["Acme"], "no provider's name"],
  [["a"], "no provider's name"],
  [["vsphere"], "there is a provider vsphere already"],
  [["acme", "--package", "../../etc"], "no name of an npm package"],
  [[], "one name is needed"],
  [["one", "two"], "one name is needed"],
] as const)("refuses %s and writes nothing", async ([args, why]) => {
  const { code, stderr } = await create(...args);
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(why) as string });
  expect(globSync("diskferry-provider-*", { cwd: folder })).toEqual([]);
});

test("does not write into a folder that holds something", async () => {
  await mkdir(join(folder, "full"));
  await writeFile(join(folder, "full/notes.txt"), "mine");
  const { code, stderr } = await create("acme", "--folder", "full");
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining("is not empty") as string });
  expect(globSync("full/*", { cwd: folder })).toEqual([join("full", "notes.txt")]);
});

test("tells its usage", async () => {
  const { code, stdout } = await create("--help");
  expect(code).toBe(0);
  expect(stdout).toContain("npm create diskferry-provider <name>");
});

test("the template's provider has less than 150 lines of code, and the versions are those of this workspace", () => {
  const template = join(root, "examples/provider-template");
  const lines = ["index", "call", "source", "target"].flatMap((name) =>
    readFileSync(join(template, `src/${name}.ts`), "utf8").split("\n"),
  );
  // What runs on the author's side; src/platform.ts stands in for a client that the author has.
  const code = lines.filter((line) => !/^\s*(\/\/|\/?\*|$)/.test(line));
  expect(code.length).toBeLessThan(150);

  type Manifest = Record<"dependencies" | "devDependencies" | "peerDependencies", Record<string, string>> & {
    version: string;
  };
  const read = (path: string): Manifest => JSON.parse(readFileSync(join(root, path), "utf8")) as Manifest;
  const { version } = read("packages/core/package.json");
  const installed = {
    ...read("package.json").devDependencies,
    ...read("packages/provider-local/package.json").dependencies,
  };
  const { dependencies, devDependencies, peerDependencies } = read("examples/provider-template/_package.json");
  expect(peerDependencies).toEqual({ "@diskferry/core": `^${version}` });
  for (const [name, wanted] of Object.entries({ ...dependencies, ...devDependencies }))
    expect(`${name} ${wanted}`).toBe(`${name} ${name.startsWith("@diskferry/") ? version : installed[name]}`);
});
