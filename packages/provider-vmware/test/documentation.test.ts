import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type Privilege, privileges } from "../src/preflight/privileges.ts";

const page = readFileSync(new URL("../../../docs/providers/vsphere.md", import.meta.url), "utf8");

const purposes: Readonly<Record<Privilege["purpose"], string>> = {
  copy: "every copy",
  tracking: "change tracking",
  vddk: "the reader `vddk`",
  nfc: "the reader `nfc`",
  folder: "the reader `folder`",
  power: "a cutover",
  encrypted: "encrypted disks",
};

test("the role that is documented is the one that is asked for", () => {
  const [, role = ""] = /\n## The role\n([\s\S]*?)\n## /.exec(page) ?? [];
  const rows = role.split("\n").filter((line) => line.startsWith("| `"));
  expect(rows).toEqual(privileges.map(({ id, purpose }) => `| \`${id}\` | ${purposes[purpose]} |`));
});
