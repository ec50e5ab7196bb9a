import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { globSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Registry } from "@diskferry/core";
import { provider as aws } from "@diskferry/provider-aws";
import { provider as cloudstack } from "@diskferry/provider-cloudstack";
import { provider as local } from "@diskferry/provider-local";
import { provider as vsphere } from "@diskferry/provider-vmware";
import { afterAll, describe, expect, it } from "vitest";
import { randomBytes } from "./seed.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);
// Inside the workspace, so that packages resolve as they do for its own sources.
const folder = mkdtempSync(join(root, ".docs-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// What docs/reference/ holds is made from the code, and linked to.
await run(process.execPath, ["--conditions=diskferry-source", join(root, "scripts/docs-pages.ts")], { cwd: root });

const pages = [
  "README.md",
  "CONTRIBUTING.md",
  ...globSync("docs/**/*.md", { cwd: root }),
  ...globSync("packages/*/README.md", { cwd: root }),
];

function blocksOf(page: string): string[] {
  const text = readFileSync(join(root, page), "utf8");
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1]!);
}

describe("the documentation", () => {
  it("names every provider of this project with its package and spec", () => {
    const page = readFileSync(join(root, "docs/providers/index.md"), "utf8");
    for (const file of globSync("packages/provider-*/package.json", { cwd: root })) {
      const manifest = JSON.parse(readFileSync(join(root, file), "utf8")) as {
        name: string;
        diskferry?: { spec: string; name: string };
      };
      if (manifest.diskferry === undefined) continue;
      const row = page.split("\n").find((line) => line.startsWith(`| \`${manifest.diskferry!.name}\` |`));
      expect(row, manifest.name).toContain(manifest.name);
      expect(row).toContain(`| ${manifest.diskferry.spec} |`);
    }
  });

  it("has TypeScript blocks that compile", async () => {
    const files: string[] = [];
    for (const page of pages) {
      for (const [index, block] of blocksOf(page).entries()) {
        const file = join(folder, `${page.replaceAll("/", "-")}-${index}.ts`);
        writeFileSync(file, `${block}\nexport {};\n`);
        files.push(file);
      }
    }
    expect(files.length).toBeGreaterThan(0);
    const config = join(folder, "tsconfig.json");
    writeFileSync(
      config,
      JSON.stringify({
        extends: "../tsconfig.json",
        compilerOptions: { isolatedDeclarations: false, declaration: false },
        files,
        include: [],
      }),
    );
    await run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", config]).catch(
      (error: { stdout?: string }) => expect.fail(error.stdout),
    );
  }, 600_000);

  it("opens with an example that runs as printed", async () => {
    const [example] = blocksOf("README.md");
    expect(example!.split("\n").length).toBeLessThanOrEqual(40);
    const place = join(folder, "readme");
    mkdirSync(join(place, "recovery-points"), { recursive: true });
    writeFileSync(join(place, "server.raw"), randomBytes(4 << 20, 7));
    writeFileSync(join(place, "example.ts"), example!);
    const args = ["--conditions=diskferry-source", "example.ts"];
    const first = await run(process.execPath, args, { cwd: place });
    expect(first.stdout).toContain("mode: 'full'");
    expect(first.stdout.trimEnd().endsWith("equal")).toBe(true);
    const second = await run(process.execPath, args, { cwd: place });
    expect(second.stdout).toContain("mode: 'rescan'");
    expect(second.stdout.trimEnd().endsWith("equal")).toBe(true);
  }, 600_000);

  it("names disks by URIs that their providers read", () => {
    const registry = new Registry([aws, vsphere, cloudstack, local]);
    const uris = pages.flatMap((page) => {
      const text = readFileSync(join(root, page), "utf8");
      const found = text.matchAll(/(?<![\w/:.-])(?:aws-ebs|vsphere|cloudstack|nbds?(?:\+unix)?):[^\s`'"|),;]+/g);
      // Forms with places to fill in are no URIs yet.
      return [...found].map(([uri]) => ({ page, uri })).filter(({ uri }) => !/[…[<]|HOST|REGION|:\/\/$/.test(uri));
    });
    expect(uris.length).toBeGreaterThan(8);
    const refused = uris.flatMap(({ page, uri }) => {
      try {
        registry.resolve(uri);
        return [];
      } catch (error) {
        return [`${page}: ${uri}: ${String(error)}`];
      }
    });
    expect(refused).toEqual([]);
  });

  it("has each section once on a page", () => {
    const twice = pages.flatMap((page) => {
      const text = readFileSync(join(root, page), "utf8").replaceAll(/^```.*?^```$/gms, "");
      const headings = [...text.matchAll(/^## (.+)$/gm)].map(([, heading]) => heading!);
      return headings.filter((heading, at) => headings.indexOf(heading) < at).map((heading) => `${page}: ${heading}`);
    });
    expect(twice).toEqual([]);
  });

  it("links to files that exist", () => {
    const broken: string[] = [];
    for (const page of pages) {
      const text = readFileSync(join(root, page), "utf8").replaceAll(/^```.*?^```$/gms, "");
      for (const [, included] of text.matchAll(/^<<< (\S+)$/gm))
        if (globSync(resolve(root, dirname(page), included!)).length === 0) broken.push(`${page} → ${included}`);
      for (const [, target] of text.matchAll(/\]\(([^)#]+)[^)]*\)/g)) {
        if (/^[a-z]+:/.test(target!)) continue;
        const path = resolve(root, dirname(page), target!);
        if (globSync(path).length === 0) broken.push(`${page} → ${target}`);
      }
    }
    expect(broken).toEqual([]);
  });
});
