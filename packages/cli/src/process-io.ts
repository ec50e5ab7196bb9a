import type { CommandIo, Interrupts, TextSink } from "./command-io.ts";

/** The streams, environment and signals of this process. SIGINT and SIGTERM pause; a second one stops at once. */
export function processIo(): CommandIo {
  for (const stream of [process.stdout, process.stderr]) {
    // `diskferry status | head` closes the pipe early, which is no failure of ours.
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
    });
  }
  return {
    stdout: sinkOf(process.stdout),
    stderr: sinkOf(process.stderr),
    env: process.env,
    cwd: process.cwd(),
    interrupts: signalInterrupts(),
  };
}

function sinkOf(stream: NodeJS.WriteStream): TextSink {
  return {
    write: (text) => stream.write(text),
    get isTTY() {
      return stream.isTTY;
    },
    get columns() {
      return stream.columns;
    },
  };
}

function signalInterrupts(): Interrupts {
  const pause = new AbortController();
  const stop = new AbortController();
  const interrupt = (): void => {
    if (!pause.signal.aborted) {
      pause.abort(new DOMException("paused by a signal", "AbortError"));
      return;
    }
    stop.abort(new DOMException("stopped by a second signal", "AbortError"));
    // A third one ends the process as it would any other.
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.removeListener(signal, interrupt);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, interrupt);
  return { pause: pause.signal, stop: stop.signal };
}
