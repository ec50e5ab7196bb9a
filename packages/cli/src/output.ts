import { type Fallback, isProviderError, type ProgressReport } from "@diskferry/core";
import type { CommandIo } from "./command-io.ts";
import { type ProgressDisplay, silentProgress } from "./progress/progress-display.ts";
import { BarProgress } from "./progress/bar-progress.ts";
import { JsonProgress, LineProgress } from "./progress/line-progress.ts";

/** How a command speaks. */
export interface OutputOptions {
  /** JSON lines on standard output, nothing on standard error. */
  json: boolean;
  /** No progress and no notices. */
  quiet: boolean;
  /** Stacks with errors. */
  debug: boolean;
}

/** What of a failure stands in a JSON line. */
interface ErrorCause {
  code?: string | undefined;
  message: string;
  stack?: string | undefined;
}

/** Says what a command did: results on standard output, everything else on standard error; or all of it as JSON lines. */
export class Output {
  readonly #io: CommandIo;
  readonly #options: OutputOptions;
  readonly #progress: ProgressDisplay;
  readonly #secrets: string[] = [];

  constructor(io: CommandIo, options: OutputOptions) {
    this.#io = io;
    this.#options = options;
    this.#progress = this.#display();
  }

  get json(): boolean {
    return this.#options.json;
  }

  /** Whether notices reach people. */
  get showsNotices(): boolean {
    return !this.json && !this.#options.quiet;
  }

  /** Never shows these texts again, whatever speaks of them. */
  hide(secrets: Iterable<string>): void {
    for (const secret of secrets) {
      // A value of one or two letters would blacken everything.
      if (secret.length > 2) this.#secrets.push(secret, JSON.stringify(secret).slice(1, -1));
    }
    this.#secrets.sort((one, other) => other.length - one.length);
  }

  /** A result: an object of `type: "result"`, or its text for people. */
  result(command: string, content: object, text: string): void {
    this.#progress.clear();
    if (this.json) this.#line({ type: "result", command, ...content });
    else this.#io.stdout.write(this.#clean(text));
  }

  /** Something that was not done as asked. Never left out. */
  fallback(job: string, { disk, from, to, reason }: Fallback): void {
    if (this.json) this.#line({ type: "fallback", job, disk, from, to, reason });
    else this.#say(`fallback: job ${job}, disk ${disk}: ${from} → ${to}: ${reason}`);
  }

  /** A line for people about what is slow, lost or decided. */
  notice(message: string, job?: string): void {
    if (this.json) this.#line({ type: "notice", ...(job === undefined ? {} : { job }), message });
    else if (!this.#options.quiet) this.#say(message);
  }

  /** A failure with its causes, one line each. */
  error(error: unknown, exitCode: number, job?: string): void {
    const causes = causesOf(error);
    if (this.json) {
      const [{ message, ...first } = { message: "" }, ...rest] = causes.map((cause) => this.#withStack(cause));
      this.#line({ type: "error", exitCode, ...(job === undefined ? {} : { job }), ...first, message, causes: rest });
      return;
    }
    for (const [index, { code, message, stack }] of causes.entries()) {
      const where = index > 0 || job === undefined ? "" : `job ${job}: `;
      const name = index === 0 ? "diskferry" : "  because";
      this.#say(`${name}: ${where}${message}${code === undefined ? "" : ` [${code}]`}`);
      if (this.#options.debug && stack !== undefined) this.#say(stack.replace(/^/gm, "    "));
    }
  }

  /** Takes a run's progress reports. */
  progressOf(job: string): (report: ProgressReport) => void {
    return (report) => this.#progress.show(job, report);
  }

  /** Takes what is drawn off the screen; text may follow. */
  close(): void {
    this.#progress.close();
  }

  #display(): ProgressDisplay {
    const { stderr, env } = this.#io;
    if (this.#options.quiet) return silentProgress;
    if (this.json) return new JsonProgress((line) => this.#line(line));
    if (stderr.isTTY === true && env["TERM"] !== "dumb") {
      return new BarProgress({ sink: stderr, colour: (env["NO_COLOR"] ?? "") === "" });
    }
    return new LineProgress((line) => void stderr.write(this.#clean(`${line}\n`)));
  }

  #say(text: string): void {
    this.#progress.clear();
    this.#io.stderr.write(this.#clean(`${text}\n`));
  }

  #line(content: object): void {
    this.#io.stdout.write(this.#clean(`${JSON.stringify(content)}\n`));
  }

  #clean(text: string): string {
    return this.#secrets.reduce((clean, secret) => clean.replaceAll(secret, "***"), text);
  }

  #withStack({ stack, ...cause }: ErrorCause): ErrorCause {
    return this.#options.debug ? { ...cause, stack } : cause;
  }
}

/** Longer chains have a circle in them. */
const mostCauses = 8;

function causesOf(error: unknown): ErrorCause[] {
  const causes: ErrorCause[] = [];
  let cause = error;
  do {
    const message = cause instanceof Error || isProviderError(cause) ? cause.message : String(cause);
    causes.push({
      code: isProviderError(cause) ? cause.code : undefined,
      // A cause takes one line, even where its message has several.
      message: causes.length === 0 ? message : message.replaceAll(/\s*\n\s*/g, "; "),
      stack: cause instanceof Error ? cause.stack : undefined,
    });
    cause = cause instanceof Error ? cause.cause : undefined;
  } while (cause !== undefined && causes.length < mostCauses);
  return causes;
}
