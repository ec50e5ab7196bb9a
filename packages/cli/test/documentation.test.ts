import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Command, OptionSpec } from "../src/command.ts";
import { commands } from "../src/commands.ts";
import { configFields } from "../src/config/config-schema.ts";
import { readConfig } from "../src/config/read-config.ts";
import { exitCodes } from "../src/exit-codes.ts";
import { optionText } from "../src/help.ts";
import { commonOptions } from "../src/shared-options.ts";
import { workplace } from "./in-process.ts";

// docs/guide/command.md against the code's own data. What a table has to be is in the message of a test that fails.

const page = readFileSync(new URL("../../../docs/guide/command.md", import.meta.url), "utf8");

/** The text of a section, from its heading to the next of the same or a higher level. */
function section(heading: string): string {
  const level = /^#+/.exec(heading)![0];
  const start = page.indexOf(`\n${heading}\n`);
  expect(start, `there is no section "${heading}"`).toBeGreaterThan(-1);
  const rest = page.slice(start + heading.length + 2);
  const end = rest.search(new RegExp(`\\n#{1,${level.length}} `));
  return end < 0 ? rest : rest.slice(0, end);
}

/** The tables of a text, row by row, without those lines that only separate. */
function rowsOf(text: string): string[] {
  return text.split("\n").filter((line) => line.startsWith("| ") && !line.startsWith("| -"));
}

const cell = (text: string): string => text.replaceAll("|", "\\|");

function optionRows(options: Readonly<Record<string, OptionSpec>>): string[] {
  return [
    "| option | what it does |",
    ...Object.entries(options).map(([name, spec]) => {
      const several = spec.multiple === undefined ? "" : "; may be given several times";
      return `| \`${cell(optionText(name, spec))}\` | ${cell(spec.summary)}${several} |`;
    }),
  ];
}

function commandRows(command: Command): string[] {
  return Object.keys(command.options).length === 0 ? [] : optionRows(command.options);
}

test.for(commands)("diskferry $name is documented with its usage and exactly its options", (command) => {
  const text = section(`### diskferry ${command.name}`);
  for (const form of command.usage) expect(text).toContain(`diskferry ${command.name} ${form}`.trimEnd());
  expect(rowsOf(text)).toEqual(commandRows(command));
});

test("no command is documented that does not exist", () => {
  const documented = [...page.matchAll(/^### diskferry (.*)$/gm)].map(([, name]) => name);
  expect(documented).toEqual(commands.map(({ name }) => name));
});

test("the options of every command are documented", () => {
  expect(rowsOf(section("### Options of every command"))).toEqual(optionRows(commonOptions));
});

test("the exit codes are documented", () => {
  expect(rowsOf(section("## Exit codes"))).toEqual([
    "| exit code | meaning | errors |",
    ...exitCodes.map(
      ({ exitCode, meaning, errors }) =>
        `| ${exitCode} | ${meaning} | ${errors.map((code) => `\`${code}\``).join(", ")} |`,
    ),
  ]);
});

test.for([
  ["### At the top", "top"],
  ["### receipts", "receipts"],
  ["### defaults", "defaults"],
  ["### A job", "job"],
] as const)("the configuration's section %s has exactly its names", ([heading, place]) => {
  const expected = configFields[place].map(
    ({ name, required, summary }) => `| \`${name}\` | ${required ? "yes" : "no"} | ${cell(summary)} |`,
  );
  expect(rowsOf(section(heading))).toEqual(["| name | needed | what it says |", ...expected]);
});

test("the example of a configuration file is valid", async () => {
  const place = await workplace();
  const [, yaml] = /```yaml\n([\s\S]*?)```/.exec(section("## The configuration file"))!;
  const file = await place.write("jobs.yaml", yaml!);
  await place.write("vault/receipt-key.pem", "");
  const { jobs } = await readConfig(file, { io: { env: { BACKUP: place.path("backup") } } });
  expect(jobs.length).toBeGreaterThan(1);
});

test("every type of JSON line is documented", () => {
  const text = section("## JSON lines");
  for (const type of ["progress", "notice", "fallback", "result", "error"]) expect(text).toContain(`"type":"${type}"`);
  for (const [, line] of text.matchAll(/^(\{.*\})$/gm)) expect(() => JSON.parse(line!) as unknown).not.toThrow();
});
