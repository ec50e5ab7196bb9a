import { readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { basename, join, posix } from "node:path";
import { describe, expect, test } from "vitest";
import { root, workspacePackages } from "../scripts/workspace.ts";
import { committedFiles, importsOf } from "./source-files.ts";

// The arrows of the design: cli → providers → core/provider ← testkit; core knows no provider; simulators know nobody.

const packages = workspacePackages();
const byFolder = new Map(packages.map((each) => [each.folder, each]));
const sources = committedFiles().filter((file) => /^packages\/[^/]+\/(src|test)\/.*\.ts$/.test(file));

/** What the sources of a package may import from the workspace; what is not listed here may import nothing. */
function allowedFromWorkspace(folder: string): (specifier: string) => boolean {
  const only =
    (...names: string[]) =>
    (specifier: string): boolean =>
      names.includes(specifier);
  if (folder === "provider-testkit") return only("@diskferry/core/provider");
  if (folder.startsWith("provider-")) return only("@diskferry/core/provider", "@diskferry/nbd");
  if (folder === "nbd") return only("@diskferry/core/provider");
  if (folder === "cli") return () => true;
  return only();
}

interface Violation {
  file: string;
  specifier: string;
  why: string;
}

/** Judges one import of one source file. */
function violationsOf(file: string, text: string): Violation[] {
  const [, folder = "", area = ""] = file.split("/");
  const manifest = byFolder.get(folder)?.manifest;
  const found: Violation[] = [];
  const report = (specifier: string, why: string): void => void found.push({ file, specifier, why });
  const inTests = area === "test";
  for (const specifier of importsOf(text, file)) {
    if (specifier.startsWith(".")) {
      const target = posix.join(posix.dirname(file), specifier);
      const home = `packages/${folder}/${inTests ? "" : "src/"}`;
      if (!target.startsWith(home) && !(inTests && target.startsWith("test/"))) report(specifier, "leaves the package");
      if (!/\.(ts|json|node)$/.test(specifier)) report(specifier, "has no .ts extension");
      const author = "packages/core/src/provider/";
      if (file.startsWith(author) && !target.startsWith(author)) report(specifier, "core/provider imports from core");
      continue;
    }
    if (isBuiltin(specifier)) {
      if (!specifier.startsWith("node:")) report(specifier, "has no node: prefix");
      continue;
    }
    const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
    if (name.startsWith("@diskferry/") && !inTests && !allowedFromWorkspace(folder)(specifier)) {
      report(specifier, "goes against the arrows of the design");
    }
    if (inTests) {
      // Simulators are the outside world; a simulator's test may not lean on what it judges.
      if (folder === "simulators" && name.startsWith("@diskferry/") && name !== manifest?.name) {
        report(specifier, "a simulator knows neither core nor providers");
      }
      // Core's own tests and the tests of what stands below the providers do not reach up to them.
      if ((folder === "core" || folder === "nbd") && /^@diskferry\/(provider-(?!testkit)|cli)/.test(name)) {
        report(specifier, "goes against the arrows of the design");
      }
      continue;
    }
    const declared = { ...manifest?.dependencies, ...manifest?.optionalDependencies, ...manifest?.peerDependencies };
    if (declared[name] === undefined && name !== manifest?.name) report(specifier, "is not a declared dependency");
  }
  return found;
}

describe("the rules catch what they forbid", () => {
  const violations = (file: string, text: string): string[] => violationsOf(file, text).map(({ why }) => why);
  const arrows = "goes against the arrows of the design";

  test.for([
    ["packages/core/src/a.ts", `import { x } from "@diskferry/provider-local";`, arrows],
    ["packages/core/src/a.ts", `import type { x } from "@diskferry/nbd";`, arrows],
    ["packages/nbd/src/a.ts", `export { x } from "@diskferry/core";`, arrows],
    ["packages/provider-local/src/a.ts", `const x = await import("@diskferry/core");`, arrows],
    ["packages/provider-testkit/src/a.ts", `type X = import("@diskferry/nbd").X;`, arrows],
    ["packages/core/src/provider/a.ts", `import { x } from "../state/b.ts";`, "core/provider imports from core"],
    ["packages/core/src/a.ts", `import { x } from "../../nbd/src/b.ts";`, "leaves the package"],
    ["packages/core/src/a.ts", `import { x } from "./b.js";`, "has no .ts extension"],
    ["packages/core/src/a.ts", `import { x } from "fs";`, "has no node: prefix"],
    ["packages/core/src/a.ts", `export * from "left-pad";`, "is not a declared dependency"],
    ["packages/core/test/a.test.ts", `import { x } from "@diskferry/provider-local";`, arrows],
    ["packages/simulators/test/a.test.ts", `import "@diskferry/core";`, "a simulator knows neither core nor providers"],
  ] as const)("%s: %s", ([file, text, why]) => {
    expect(violations(file, text)).toContain(why);
  });

  test("what the design allows is left alone", () => {
    expect(violations("packages/nbd/src/a.ts", `import type { Wait } from "@diskferry/core/provider";`)).toEqual([]);
    expect(violations("packages/provider-local/src/a.ts", `import { x } from "@diskferry/nbd";`)).toEqual([]);
    expect(violations("packages/cli/src/a.ts", `import { x } from "@diskferry/provider-local";`)).toEqual([]);
    expect(violations("packages/core/src/state/a.ts", `import { x } from "../provider/index.ts";`)).toEqual([]);
    expect(violations("packages/core/test/a.test.ts", `import { x } from "../../../test/seed.ts";`)).toEqual([]);
  });
});

test("every source file of every package was found", () => {
  for (const { folder } of packages) {
    expect(sources.some((file) => file.startsWith(`packages/${folder}/src/`))).toBe(true);
  }
});

test("imports follow the arrows of the design and name declared dependencies only", () => {
  const found = sources.flatMap((file) => violationsOf(file, readFileSync(join(root, file), "utf8")));
  expect(found.map(({ file, specifier, why }) => `${file}: ${specifier} ${why}`)).toEqual([]);
});

test("no class of a package extends another but Error", () => {
  const heirs = sources
    .filter((file) => file.includes("/src/"))
    .flatMap((file) =>
      [...readFileSync(join(root, file), "utf8").matchAll(/\bclass \w*(?:<[^{]*?>)?\s+extends (\w+)/g)].map(
        ([, parent]) => `${file}: ${parent}`,
      ),
    );
  expect(heirs.length).toBeGreaterThan(0);
  expect(heirs.filter((heir) => !heir.endsWith(": Error"))).toEqual([]);
});

test("packages of the workspace depend on each other at exactly the version they have", () => {
  const versions = new Map(packages.map(({ manifest }) => [manifest.name, manifest.version]));
  const wrong = packages.flatMap(({ manifest }) =>
    Object.entries({ ...manifest.dependencies, ...manifest.peerDependencies })
      .filter(([name, range]) => versions.has(name) && versions.get(name) !== range)
      .map(([name, range]) => `${manifest.name} wants ${name} ${range}`),
  );
  expect(wrong).toEqual([]);
});

test("files are kebab-case, named after what they hold, and only index.ts re-exports everything", () => {
  const own = committedFiles().filter((file) => /^(packages|test|scripts|bench|examples)\/.*\.(ts|mjs)$/.test(file));
  const wrong = own.filter((file) => {
    const name = basename(file).replace(/(\.test|\.bench|\.config)?\.(ts|mjs)$/, "");
    return !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) || /^(utils?|helpers?|misc|common|shared|types)$/.test(name);
  });
  const barrels = sources
    .filter((file) => file.includes("/src/") && basename(file) !== "index.ts")
    .filter((file) => /^export (type )?\*/m.test(readFileSync(join(root, file), "utf8")));
  expect([...wrong, ...barrels]).toEqual([]);
});
