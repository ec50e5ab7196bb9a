/** Where text goes: a stream of the process, or what collects it in a test. */
export interface TextSink {
  write(text: string): unknown;
  /** Whether a person watches: bars are drawn only there. */
  readonly isTTY?: boolean | undefined;
  /** Characters in a line of the terminal. */
  readonly columns?: number | undefined;
}

/** How somebody stops what is under way. */
export interface Interrupts {
  /** Stop at the next durable point. */
  readonly pause: AbortSignal;
  /** Stop at once; what was durable stays. */
  readonly stop: AbortSignal;
}

/** Everything of the outside world that a command uses. */
export interface CommandIo {
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
