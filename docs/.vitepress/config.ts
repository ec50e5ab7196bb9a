import { globSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitepress";

/** Links that leave docs/ lead to files of the repository, which the site does not have. */
const leavesSite = /^(?:\.\.\/)+(?:packages|examples|bench|test|scripts|api|README|CONTRIBUTING|LICENSE|\.ci)\b/;

/** One entry for each page of a folder that is there, by its title: providers come and go with their packages. */
function pagesIn(folder: string, except: ReadonlySet<string> = new Set()): { text: string; link: string }[] {
  const docs = fileURLToPath(new URL("..", import.meta.url));
  const names = globSync(`${folder}/*.md`, { cwd: docs }).map((file) => basename(file, ".md"));
  return names
    .filter((name) => name !== "index" && !except.has(name))
    .sort()
    .map((name) => {
      const [, title = name] = /^# (.+)$/m.exec(readFileSync(`${docs}/${folder}/${name}.md`, "utf8")) ?? [];
      return { text: title.replace(/:.*/, ""), link: `/${folder}/${name}` };
    });
}

const written = new Set(["command", "examples", "first-copy", "incremental", "recover", "verify"]);

// oxlint-disable-next-line import/no-default-export -- VitePress reads the default export
export default defineConfig({
  title: "diskferry",
  description: "Moves disks of servers from any place to any other",
  lang: "en",
  cleanUrls: false,
  lastUpdated: false,
  // The path that a server has the site below; a browser cannot show the pages from the disk.
  base: process.env["DOCS_BASE"] ?? "/",
  vite: { server: { fs: { allow: [fileURLToPath(new URL("../..", import.meta.url))] } } },
  markdown: {
    config(md) {
      md.core.ruler.push("links-into-the-repository", (state) => {
        for (const { children } of state.tokens) {
          if (children === null) continue;
          for (let at = 0; at < children.length; at++) {
            const href = children[at]!.attrGet("href");
            if (children[at]!.type !== "link_open" || href === null || !leavesSite.test(href)) continue;
            const end = children.findIndex((token, index) => index > at && token.type === "link_close");
            // The text stays; the path is told where a reader of the site can use it.
            children[at]!.type = children[end]!.type = "html_inline";
            children[at]!.content =
              `<span title="${href.replace(/^(\.\.\/)+/, "").replaceAll('"', "&quot;")} in the repository">`;
            children[end]!.content = "</span>";
          }
        }
      });
    },
  },
  themeConfig: {
    search: { provider: "local" },
    outline: [2, 3],
    nav: [
      { text: "Guide", link: "/guide/" },
      { text: "Providers", link: "/providers/" },
      { text: "Authors", link: "/authors/" },
      { text: "Reference", link: "/reference/" },
    ],
    sidebar: [
      {
        text: "Guide",
        items: [
          { text: "Concepts", link: "/guide/" },
          { text: "First copy", link: "/guide/first-copy" },
          { text: "Only what changed", link: "/guide/incremental" },
          { text: "Verify and audit", link: "/guide/verify" },
          { text: "Recover and cut over", link: "/guide/recover" },
          { text: "The command", link: "/guide/command" },
          ...pagesIn("guide", written),
          { text: "Examples", link: "/guide/examples" },
          { text: "Troubleshooting", link: "/troubleshooting" },
          { text: "Security", link: "/security" },
          { text: "Performance", link: "/performance" },
        ],
      },
      { text: "Providers", items: [{ text: "Registry", link: "/providers/" }, ...pagesIn("providers")] },
      {
        text: "Authors",
        items: [
          { text: "A provider in an afternoon", link: "/authors/" },
          { text: "The contract", link: "/authors/contract" },
          { text: "The conformance kit", link: "/authors/conformance" },
          { text: "Publishing", link: "/authors/publishing" },
          { text: "Versions", link: "/authors/versions" },
        ],
      },
      {
        text: "Reference",
        items: [
          { text: "Packages", link: "/reference/" },
          { text: "@diskferry/core", link: "/reference/core" },
          { text: "@diskferry/core/provider", link: "/reference/core-provider" },
          { text: "Clauses", link: "/reference/clauses" },
          { text: "Capabilities", link: "/reference/capabilities" },
          { text: "Decisions", link: "/reference/decisions" },
          { text: "Requirements", link: "/requirements" },
        ],
      },
    ],
  },
});
