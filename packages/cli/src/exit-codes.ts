import { isAbort, isProviderError, type ProviderErrorCode } from "@diskferry/core";

/** One number that the command ends with, and when. */
export interface ExitCode {
  readonly exitCode: number;
  readonly meaning: string;
  /** Errors of these codes end with it. */
  readonly errors: readonly ProviderErrorCode[];
}

/** Every number that the command ends with. */
export const exitCodes: readonly ExitCode[] = [
  { exitCode: 0, meaning: "done", errors: [] },
  { exitCode: 1, meaning: "something unexpected failed", errors: ["UNEXPECTED"] },
  { exitCode: 2, meaning: "wrong usage, options or configuration", errors: ["CONFIG_INVALID"] },
  { exitCode: 3, meaning: "a file, disk, job or package is not there", errors: ["NOT_FOUND"] },
  { exitCode: 4, meaning: "not allowed: credentials or rights", errors: ["AUTH", "DENIED"] },
  { exitCode: 5, meaning: "one of the two sides cannot do this", errors: ["UNSUPPORTED"] },
  { exitCode: 6, meaning: "in use, taken over or there already", errors: ["IN_USE", "FENCED", "EXISTS"] },
  {
    exitCode: 7,
    meaning: "damaged, or a verification, audit or conformance run found what must not be",
    errors: ["CORRUPT"],
  },
  { exitCode: 8, meaning: "not reachable or full; run it again later", errors: ["UNAVAILABLE", "THROTTLED"] },
  { exitCode: 9, meaning: "change tracking was lost, and the job is told to stop then", errors: ["TRACKING_LOST"] },
  { exitCode: 75, meaning: "paused at a durable point; the same command goes on", errors: [] },
  { exitCode: 130, meaning: "stopped at once by a second signal; the same command goes on", errors: [] },
];

/** The numbers that code of the command itself names. */
export const DONE = 0;
export const UNEXPECTED = 1;
export const DIFFERENT = 7;
export const PAUSED = 75;
export const STOPPED = 130;

/** The number for a failure. An abort counts as stopped. */
export function exitCodeOf(error: unknown): number {
  if (isProviderError(error)) {
    return exitCodes.find(({ errors }) => errors.includes(error.code))?.exitCode ?? UNEXPECTED;
  }
  return isAbort(error) ? STOPPED : UNEXPECTED;
}
