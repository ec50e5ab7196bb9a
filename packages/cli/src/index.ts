export { main } from "./main.ts";
export type { CommandIo, Interrupts, TextSink } from "./command-io.ts";
export { type ExitCode, exitCodes } from "./exit-codes.ts";
