import type { CommandIo, Interrupts } from "./command-io.ts";
import type { OptionValues } from "./arguments.ts";
import type { Output } from "./output.ts";

/** One option of a command. */
export interface OptionSpec {
  /** What its value is called in help; absent: it takes none. */
  readonly value?: string;
  /** Whether it may be given several times. */
  readonly multiple?: true;
  readonly short?: string;
  readonly summary: string;
}

/** What a command gets to work with. */
export interface CommandContext {
  readonly positionals: readonly string[];
  readonly options: OptionValues;
  readonly io: CommandIo;
  readonly output: Output;
  readonly interrupts: Interrupts;
}

/** One thing that `diskferry` does. */
export interface Command {
  /** One or two words. */
  readonly name: string;
  readonly summary: string;
  /** What stands after the name. */
  readonly usage: readonly string[];
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** Resolves with the exit code. @throws ProviderError, from which the exit code follows. */
  run(context: CommandContext): Promise<number>;
}
