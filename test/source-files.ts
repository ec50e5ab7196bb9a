import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseAst } from "rolldown/parseAst";
import { root } from "../scripts/workspace.ts";

/** Every file of the repository that git knows or would add, relative to its root, with slashes. */
export function committedFiles(): string[] {
  const args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const listed = execFileSync("git", args, { cwd: root, encoding: "utf8", maxBuffer: 64 << 20 });
  // A file that was deleted and not yet committed is listed still.
  return listed.split("\0").filter((file) => file !== "" && existsSync(join(root, file)));
}

/** What a source file asks for by import, export … from, import() and import types, in order of appearance. */
export function importsOf(text: string, file: string): string[] {
  const found: string[] = [];
  const visit = (node: unknown): void => {
    if (Array.isArray(node)) for (const item of node) visit(item);
    if (typeof node !== "object" || node === null || Array.isArray(node)) return;
    const { type, source, argument } = node as { type?: unknown; source?: unknown; argument?: unknown };
    const names = type === "TSImportType" ? [source, argument] : [source];
    const imports = ["ImportDeclaration", "ExportNamedDeclaration", "ExportAllDeclaration", "ImportExpression"];
    if (imports.includes(String(type)) || type === "TSImportType") {
      for (const name of names) {
        const value = (name as { value?: unknown } | null | undefined)?.value;
        if (typeof value === "string") found.push(value);
      }
    }
    for (const child of Object.values(node)) visit(child);
  };
  visit(parseAst(text, { lang: "ts" }, file));
  return found;
}
