import { isAbort } from "@diskferry/core";
import { readArguments } from "./arguments.ts";
import type { Command } from "./command.ts";
import type { CommandIo, Interrupts } from "./command-io.ts";
import { commands } from "./commands.ts";
import { DONE, exitCodeOf, PAUSED, STOPPED } from "./exit-codes.ts";
import { commandHelp, exitCodeHelp, overview } from "./help.ts";
import { didYouMean } from "./near-miss.ts";
import { Output } from "./output.ts";
import { packageManifest } from "./package-manifest.ts";
import { commonOptions } from "./shared-options.ts";
import { usageError } from "./usage-error.ts";

/**
 * Does what the arguments of `diskferry` (without the program's own name) ask for and resolves with its exit code.
 * Never rejects: failures are told on `io` and become exit codes.
 */
export async function main(argv: readonly string[], io: CommandIo): Promise<number> {
  const has = (...names: string[]): boolean => beforeDashes(argv).some((word) => names.includes(word));
  const output = new Output(io, { json: has("--json"), quiet: has("--quiet", "-q"), debug: has("--debug") });
  const interrupts: Interrupts = io.interrupts ?? {
    pause: new AbortController().signal,
    stop: new AbortController().signal,
  };
  try {
    return await dispatch(argv, io, output, interrupts);
  } catch (error) {
    if (isAbort(error, interrupts.stop) && interrupts.stop.aborted) {
      output.notice("stopped at once");
      return STOPPED;
    }
    if (isAbort(error, interrupts.pause) && interrupts.pause.aborted) {
      output.notice("interrupted; the same command does it again");
      return PAUSED;
    }
    const exitCode = exitCodeOf(error);
    output.error(error, exitCode);
    return exitCode;
  } finally {
    output.close();
  }
}

async function dispatch(
  argv: readonly string[],
  io: CommandIo,
  output: Output,
  interrupts: Interrupts,
): Promise<number> {
  const [first] = argv;
  if (first === undefined || first === "--help" || first === "-h") {
    io.stdout.write(overview(commands));
    return DONE;
  }
  if (first === "--version") {
    io.stdout.write(`${packageManifest().version}\n`);
    return DONE;
  }
  if (first === "help") {
    io.stdout.write(helpOn(argv.slice(1).filter((word) => !word.startsWith("-"))));
    return DONE;
  }
  const { command, args } = find(argv);
  if (beforeDashes(args).some((word) => word === "--help" || word === "-h")) {
    io.stdout.write(commandHelp(command));
    return DONE;
  }
  const { positionals, options } = readArguments(args, { ...command.options, ...commonOptions }, command.name);
  return await command.run({ positionals, options, io, output, interrupts });
}

/** The command that arguments begin with, the longest name first. */
function find(argv: readonly string[]): { command: Command; args: readonly string[] } {
  for (const words of [2, 1]) {
    const name = argv.slice(0, words).join(" ");
    const command = commands.find((each) => each.name === name);
    if (command !== undefined) return { command, args: argv.slice(words) };
  }
  throw unknownCommand(argv);
}

function helpOn(words: readonly string[]): string {
  if (words.length === 0) return overview(commands);
  if (words.join(" ") === "exit-codes") return exitCodeHelp();
  return commandHelp(find(words).command);
}

function unknownCommand([first = "", second]: readonly string[]): Error {
  const longer = commands.filter(({ name }) => name.startsWith(`${first} `)).map(({ name }) => name);
  if (longer.length > 0) {
    const isMissing = second === undefined || second.startsWith("-");
    return usageError(
      `${isMissing ? `${first} needs a second word` : `${first} has no command ${second}`}; there is: diskferry ${longer.join(", diskferry ")}`,
    );
  }
  const what = first.startsWith("-") ? `begin with a command; ${first} is none` : `there is no command ${first}`;
  return usageError(
    `${what}${didYouMean(
      first,
      commands.map(({ name }) => name),
    )}; see: diskferry help`,
  );
}

function beforeDashes(argv: readonly string[]): readonly string[] {
  const dashes = argv.indexOf("--");
  return dashes < 0 ? argv : argv.slice(0, dashes);
}
