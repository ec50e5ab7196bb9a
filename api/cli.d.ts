import { ProviderErrorCode } from "@diskferry/core";
/** Where text goes: a stream of the process, or what collects it in a test. */
interface TextSink {
  write(text: string): unknown;
  /** Whether a person watches: bars are drawn only there. */
  readonly isTTY?: boolean | undefined;
  /** Characters in a line of the terminal. */
  readonly columns?: number | undefined;
}
/** How somebody stops what is under way. */
interface Interrupts {
  /** Stop at the next durable point. */
  readonly pause: AbortSignal;
  /** Stop at once; what was durable stays. */
  readonly stop: AbortSignal;
}
/** Everything of the outside world that a command uses. */
interface CommandIo {
  /** Results. */
  readonly stdout: TextSink;
  /** Progress, notices and errors. */
  readonly stderr: TextSink;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The folder that relative paths start from. */
  readonly cwd: string;
  /** Absent: nothing interrupts. */
  readonly interrupts?: Interrupts | undefined;
}
/**
 * Does what the arguments of `diskferry` (without the program's own name) ask for and resolves with its exit code.
 * Never rejects: failures are told on `io` and become exit codes.
 */
declare function main(argv: readonly string[], io: CommandIo): Promise<number>;
/** One number that the command ends with, and when. */
interface ExitCode {
  readonly exitCode: number;
  readonly meaning: string;
  /** Errors of these codes end with it. */
  readonly errors: readonly ProviderErrorCode[];
}
/** Every number that the command ends with. */
declare const exitCodes: readonly ExitCode[];
export { type CommandIo, type ExitCode, type Interrupts, type TextSink, exitCodes, main };