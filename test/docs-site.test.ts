import { execFile } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { root } from "../scripts/workspace.ts";

// The site as it is built, without network: every page is there, and every link of every page leads somewhere.

const run = promisify(execFile);
let site = "";
const pages = new Map<string, string>();

beforeAll(async () => {
  site = await mkdtemp(join(tmpdir(), "diskferry-site-"));
  await run(process.execPath, ["--conditions=diskferry-source", join(root, "scripts/docs-pages.ts")], { cwd: root });
  // Proxies that nothing listens on: whatever asks the network fails.
  const nowhere = { http_proxy: "http://127.0.0.1:9", https_proxy: "http://127.0.0.1:9", npm_config_offline: "true" };
  const vitepress = join(root, "node_modules/vitepress/bin/vitepress.js");
  await run(process.execPath, [vitepress, "build", "docs", "--outDir", site], {
    cwd: root,
    env: { ...process.env, ...nowhere, NODE_OPTIONS: "" },
  });
  for (const file of globSync("**/*.html", { cwd: site })) pages.set(file, readFileSync(join(site, file), "utf8"));
}, 900_000);
afterAll(() => rm(site, { recursive: true, force: true }));

test("every page of docs/ is built", () => {
  const written = globSync("docs/**/*.md", { cwd: root }).map((file) =>
    file.slice("docs/".length).replace(/md$/, "html"),
  );
  expect(written.length).toBeGreaterThan(20);
  expect(written.filter((file) => !pages.has(file))).toEqual([]);
});

test("every link leads to a page, and to a heading that is there", () => {
  const ids = new Map(
    [...pages].map(([page, html]) => [page, new Set([...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id!))]),
  );
  const broken: string[] = [];
  let links = 0;
  for (const [page, html] of pages) {
    for (const [, href] of html.matchAll(/<a [^>]*href="([^"]+)"/g)) {
      if (/^[a-z]+:/.test(href!)) continue;
      links++;
      const [path = "", anchor] = href!.replaceAll("&amp;", "&").split("#");
      const to = path === "" ? page : path.startsWith("/") ? path.slice(1) : resolve("/", dirname(page), path).slice(1);
      const file = to === "" || to.endsWith("/") ? `${to}index.html` : to;
      if (!pages.has(file)) {
        if (!existsSync(join(site, file))) broken.push(`${page} → ${href}`);
      } else if (anchor !== undefined && anchor !== "" && ids.get(file)!.has(decodeURIComponent(anchor)) === false) {
        broken.push(`${page} → ${href}: no such heading`);
      }
    }
  }
  expect(links).toBeGreaterThan(500);
  expect(broken).toEqual([]);
});

test("no page fetches anything from elsewhere", () => {
  const fetched = [...pages].flatMap(([page, html]) =>
    [...html.matchAll(/<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]+)"/g)].map(([, url]) => `${page}: ${url}`),
  );
  expect(fetched).toEqual([]);
});
