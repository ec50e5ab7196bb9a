import { existsSync, globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseAst } from "rolldown/parseAst";
import { conformance } from "@diskferry/provider-testkit";
import { root } from "./workspace.ts";

/**
 * `npm run docs` writes the pages of docs/reference/ that come from the code: what each package exports with its docstrings
 * (from api/, the committed copy of the public surface), the clauses of the contract, and what each provider can do (from
 * the lists of clauses that its conformance tests judge). Nothing in that folder is written by hand or committed.
 */
const folder = join(root, "docs/reference");

interface Declared {
  name: string;
  kind: string;
  /** Markdown. */
  docs: string;
  code: string;
}

const kinds: Record<string, string> = {
  TSInterfaceDeclaration: "interface",
  TSTypeAliasDeclaration: "type",
  ClassDeclaration: "class",
  FunctionDeclaration: "function",
  TSDeclareFunction: "function",
  VariableDeclaration: "constant",
  TSEnumDeclaration: "enum",
};

/** What a rolled-up declaration file exports, by name. */
function declaredIn(text: string): Declared[] {
  const { body } = parseAst(text, { lang: "dts", astType: "ts" });
  const found = new Map<string, Declared>();
  const exported = new Map<string, string>();
  for (const statement of body) {
    if (statement.type === "ExportNamedDeclaration") {
      for (const { local, exported: as } of statement.specifiers)
        if ("name" in local && "name" in as) exported.set(local.name, as.name);
      continue;
    }
    const kind = kinds[statement.type];
    if (kind === undefined) continue;
    const id =
      statement.type === "VariableDeclaration"
        ? statement.declarations[0]?.id
        : (statement as { id?: { type: string; name?: string } | null }).id;
    if (id === undefined || id === null || !("name" in id) || typeof id.name !== "string") continue;
    const code = text.slice(statement.start, statement.end).replace(/^(export )?declare /, "");
    found.set(id.name, { name: id.name, kind, docs: docstringBefore(text, statement.start), code });
  }
  return [...exported]
    .flatMap(([local, name]) => {
      const declared = found.get(local);
      return declared === undefined ? [] : [{ ...declared, name }];
    })
    .toSorted((one, other) => one.name.localeCompare(other.name, "en"));
}

/** The text of the docstring that ends where a declaration begins. */
function docstringBefore(text: string, start: number): string {
  const before = /\/\*\*((?:(?!\*\/)[^])*)\*\/\s*$/.exec(text.slice(0, start));
  if (before === null) return "";
  const lines = before[1]!.split("\n").map((line) => line.replace(/^\s*\*? ?/, ""));
  return asMarkdown(lines.join("\n").trim());
}

function asMarkdown(docs: string): string {
  return docs
    .replaceAll(/\{@link (\w+)\}/g, "`$1`")
    .replaceAll(/^@(throws|returns) /gm, "\n**$1** ")
    .replaceAll(/(?<!`)<(?=[a-z/])/g, "&lt;");
}

const titles: Record<string, string> = {
  core: "@diskferry/core",
  "core.provider": "@diskferry/core/provider",
};

function referencePage(door: string, text: string): string {
  const title = titles[door] ?? `@diskferry/${door}`;
  const parts = declaredIn(text).map(
    ({ name, kind, docs, code }) => `## ${name}\n\n*${kind}*\n\n${docs}\n\n\`\`\`typescript\n${code}\n\`\`\`\n`,
  );
  const whole = `Everything that \`import { … } from "${title}"\` gives, with its docstrings. Made from \`api/${door}.d.ts\`.`;
  return `# ${title}\n\n${whole}\n\n${parts.join("\n")}`;
}

/** Front matter for pages of wide tables. */
const wide = "---\naside: false\n---\n\n";

function clausesPage(): string {
  const rows = conformance({ name: "" }).map(({ id, clause }) => `| \`${id}\` | ${cell(clause)} |`);
  return `${wide}# Clauses of the contract

The ${rows.length} clauses that the conformance kit judges, in its order. A failure names its clause.

| clause | what it demands |
| --- | --- |
${rows.join("\n")}
`;
}

/** Members whose presence is a capability, and the clause that is judged where they are there. */
const capabilities: [side: "source" | "target", member: string, clause: string][] = [
  ["source", "tracker", "tracker.tiles.kinds"],
  ["source", "checkpoints", "tracker.tiles.contiguous"],
  ["source", "snapshots", "source.snapshots.lists"],
  ["source", "digests", "reader.digests.equal"],
  ["source", "reader.lane", "reader.lane.equal"],
  ["source", "power", "source.power.cycle"],
  ["source", "quiesce", "source.quiesce.readable"],
  ["source", "preflight", "source.preflight.sane"],
  ["target", "adopt", "target.adopt.keeps"],
  ["target", "read", "target.read.bytes"],
  ["target", "fences", "target.fence.declared"],
  ["target", "preflight", "target.preflight.sane"],
  ["target", "launch", "launch.idempotent"],
  ["target", "blank", "writer.blank.zeroes"],
  ["target", "zero", "writer.zero.zeroes"],
  ["target", "writer.read", "writer.read.back"],
  ["target", "digest", "writer.digest.checked"],
  ["target", "writer.lane", "writer.lane.equal"],
];

/** One list of clauses, as `formatConformance` writes it. */
interface ClauseList {
  provider: string;
  name: string;
  judged: Set<string>;
  /** Why a clause is not judged. */
  reasons: Map<string, string>;
}

function clauseLists(): ClauseList[] {
  const files = globSync("packages/provider-*/test/**/*.txt", { cwd: root }).filter(
    (file) => !file.includes("testkit"),
  );
  return files.sort().flatMap((file) => {
    const text = readFileSync(join(root, file), "utf8");
    return text
      .split(/^(?=# )/m)
      .filter((part) => /^# .*: \d+ judged, /.test(part))
      .map((part): ClauseList => ({
        provider: /^packages\/provider-([^/]+)/.exec(file)![1]!,
        name: /^# (.*): \d+ judged/.exec(part)![1]!,
        judged: new Set([...part.matchAll(/^judged (\S+)$/gm)].map(([, id]) => id!)),
        reasons: new Map([...part.matchAll(/^NOT JUDGED (\S+): (.*)$/gm)].map(([, id, why]) => [id!, why!])),
      }));
  });
}

/** Judged, or left alone for a reason that is not the member's absence. */
function has({ judged, reasons }: ClauseList, clause: string): boolean {
  if (judged.has(clause)) return true;
  const reason = reasons.get(clause) ?? "absent: ";
  return reason.startsWith("absent: harness.") || !/^(absent: |the tracker gave no)/.test(reason);
}

function capabilitiesPage(): string {
  const lists = clauseLists();
  const table = (side: "source" | "target"): string => {
    const columns = capabilities.filter(([of]) => of === side);
    const probe = side === "source" ? "source.machines.lists" : "target.create.size";
    const rows = lists
      .filter((list) => list.judged.has(probe))
      .map((list) => {
        const cells = columns.map(([, , clause]) => (has(list, clause) ? "yes" : "–"));
        return `| ${list.provider} | ${cell(list.name)} | ${cells.join(" | ")} | ${list.judged.size} |`;
      });
    const head = ["provider", "shape", ...columns.map(([, member]) => `\`${member}\``), "clauses judged"];
    return `| ${head.join(" | ")} |\n|${" --- |".repeat(head.length)}\n${rows.join("\n")}`;
  };
  return `${wide}# What each provider can do

A capability is a member that is there; there is no table of booleans to keep true. This page is made from the lists of
clauses that each provider's conformance test judges and commits, so a *yes* has been tried, and a *–* means that core takes
the safe and slow way.

## Sources

${table("source")}

## Targets

${table("target")}
`;
}

function decisionsPage(): string {
  const files = globSync("docs/decisions/*.md", { cwd: root }).sort();
  const rows = files.map((file) => {
    const [title = ""] = readFileSync(join(root, file), "utf8").split("\n");
    return `- [${title.replace(/^#\s*/, "")}](../decisions/${basename(file)})`;
  });
  return `# Decisions\n\nWhy things are as they are, one page each.\n\n${rows.join("\n")}\n`;
}

const cell = (text: string): string => text.replaceAll("|", "\\|");

const doors = globSync("*.d.ts", { cwd: join(root, "api") })
  .map((file) => basename(file, ".d.ts"))
  .filter((door) => door !== "simulators")
  .sort();
const links = doors
  .map((door) => `- [${titles[door] ?? `@diskferry/${door}`}](${door.replace(".", "-")}.md)`)
  .join("\n");
const made = new Map<string, string>([
  ...doors.map((door): [string, string] => [
    `${door.replace(".", "-")}.md`,
    referencePage(door, readFileSync(join(root, "api", `${door}.d.ts`), "utf8")),
  ]),
  ["clauses.md", clausesPage()],
  ["capabilities.md", capabilitiesPage()],
  ["decisions.md", decisionsPage()],
  [
    "index.md",
    `# Reference\n\n${links}\n- [Clauses of the contract](clauses.md)\n- [What each provider can do](capabilities.md)\n- [Decisions](decisions.md)\n`,
  ],
]);
mkdirSync(folder, { recursive: true });
for (const [name, text] of made) {
  const file = join(folder, name);
  if (existsSync(file) && readFileSync(file, "utf8") === text) continue;
  // Renamed into its place: somebody else may be reading it.
  writeFileSync(`${file}.${process.pid}`, text);
  renameSync(`${file}.${process.pid}`, file);
}
for (const name of globSync("*.md", { cwd: folder })) if (!made.has(name)) rmSync(join(folder, name), { force: true });
console.log(`docs/reference/: ${made.size} pages.`);
