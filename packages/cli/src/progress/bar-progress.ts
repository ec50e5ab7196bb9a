import type { ProgressReport } from "@diskferry/core";
import type { TextSink } from "../command-io.ts";
import { progressLines } from "./progress-lines.ts";
import type { ProgressDisplay } from "./progress-display.ts";

/** How many lines are drawn at most; what does not fit is counted. */
const mostLines = 12;
const fallbackColumns = 80;

/** Draws bars and draws over them. */
export class BarProgress implements ProgressDisplay {
  readonly #sink: TextSink;
  readonly #colour: boolean;
  readonly #reports = new Map<string, ProgressReport>();
  #drawn = 0;

  constructor({ sink, colour }: { sink: TextSink; colour: boolean }) {
    this.#sink = sink;
    this.#colour = colour;
  }

  show(job: string, report: ProgressReport): void {
    // A finished run says so in its result.
    if (report.final) this.#reports.delete(job);
    else this.#reports.set(job, report);
    // A terminal that does not know its width says 0.
    const columns = Math.max(20, this.#sink.columns || fallbackColumns);
    const options = { columns, colour: this.#colour, most: mostLines };
    const lines = progressLines([...this.#reports], options);
    this.#sink.write(`${this.#up()}${lines.map((line) => `${line}\n`).join("")}`);
    this.#drawn = lines.length;
  }

  clear(): void {
    if (this.#drawn > 0) this.#sink.write(this.#up());
    this.#drawn = 0;
  }

  close(): void {
    this.clear();
    this.#reports.clear();
  }

  /** Back to the first line that was drawn, and clears from there to the end of the screen. */
  #up(): string {
    return this.#drawn === 0 ? "" : `\u001b[${this.#drawn}A\r\u001b[0J`;
  }
}
