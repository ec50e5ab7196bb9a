import type { Command, OptionSpec } from "./command.ts";
import { exitCodes } from "./exit-codes.ts";
import { commonOptions } from "./shared-options.ts";
import { table } from "./table.ts";

/** What `diskferry --help` says. */
export function overview(commands: readonly Command[]): string {
  const list = rows(commands.map(({ name, summary }) => [name, summary]));
  return `diskferry moves disks from any place to any other: in full once, then only what changed.

usage: diskferry <command> [options]

${list}
diskferry help <command> tells a command's options, diskferry help exit-codes the numbers it ends with.
A source or target is a path, or a URI such as nbd://host/export. Ctrl-C pauses; the same command goes on.
`;
}

/** What `diskferry help <command>` says. */
export function commandHelp({ name, summary, usage, options }: Command): string {
  const forms = usage.map((form, index) => `${index === 0 ? "usage: " : "       "}diskferry ${name} ${form}`.trimEnd());
  const own = optionRows(options);
  return `${summary}\n\n${forms.join("\n")}\n\n${own === "" ? "" : `${own}\n`}${optionRows(commonOptions)}`;
}

/** What `diskferry help exit-codes` says. */
export function exitCodeHelp(): string {
  return table(
    ["exit code", "meaning", "errors"],
    exitCodes.map(({ exitCode, meaning, errors }) => [String(exitCode), meaning, errors.join(", ")]),
  );
}

function optionRows(options: Readonly<Record<string, OptionSpec>>): string {
  return rows(Object.entries(options).map(([name, spec]) => [optionText(name, spec), spec.summary]));
}

/** How an option is written: `-c, --config <file>`. */
export function optionText(name: string, { short, value }: OptionSpec): string {
  return `${short === undefined ? "" : `-${short}, `}--${name}${value === undefined ? "" : ` <${value}>`}`;
}

const leftMost = 30;

function rows(cells: readonly (readonly [left: string, right: string])[]): string {
  const width = Math.min(leftMost, Math.max(0, ...cells.map(([left]) => left.length)));
  const padding = " ".repeat(width);
  return cells
    .map(([left, right]) =>
      left.length > width ? `  ${left}\n  ${padding}  ${right}\n` : `  ${left.padEnd(width)}  ${right}\n`,
    )
    .join("");
}
