import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Extent, Wait } from "@diskferry/core/provider";

/**
 * Programs that can ask the kernel where a file's data is (lseek with SEEK_DATA and SEEK_HOLE, lseek(2)), which Node
 * cannot. Each gets the open file as descriptor 3 and prints `OFFSET LENGTH` per piece of data, then `end SIZE`; without
 * that last line a listing is not believed. Perl is there on every Debian and Ubuntu, Python on most others.
 */
const programs: readonly { command: string; args: readonly string[] }[] = [
  {
    command: "perl",
    args: [
      "-e",
      'open(my $f,"<&=",3) or exit 1; my $o=0; my $e=sysseek($f,0,2); defined $e or exit 1; $e+=0;' +
        "while($o<$e){my $d=sysseek($f,$o,3); unless(defined $d){$!==6 or exit 1; last}" +
        'my $h=sysseek($f,$d,4); defined $h or exit 1; printf "%s %s\\n",$d+0,$h-$d; $o=$h+0}' +
        'print "end $e\\n";',
    ],
  },
  {
    command: "python3",
    args: [
      "-Ic",
      "import os,errno\n" +
        "o=0\ne=os.lseek(3,0,2)\n" +
        "while o<e:\n" +
        "  try: d=os.lseek(3,o,os.SEEK_DATA)\n" +
        "  except OSError as x:\n" +
        "    if x.errno!=errno.ENXIO: raise\n" +
        "    break\n" +
        "  h=os.lseek(3,d,os.SEEK_HOLE)\n" +
        "  print(d,h-d)\n  o=h\n" +
        'print("end",e)\n',
    ],
  },
];

/**
 * Where an open file may hold anything but zeroes: ascending extents, streamed; the rest are holes. Rejects or ends
 * with `complete: false` as soon as the listing cannot be proven to be whole; the caller then takes what it has not
 * heard of as data. Moves the descriptor's own file position, which positional reads do not use.
 */
export async function* dataExtents(
  fd: number,
  size: number,
  wait: Wait = {},
): AsyncGenerator<Extent, { complete: boolean }, void> {
  let reached = 0;
  for (const program of programs) {
    const listing = listWith(program, fd, size, reached, wait.signal);
    for (;;) {
      const next = await listing.next();
      if (next.done === true) {
        if (next.value === "complete") return { complete: true };
        break;
      }
      reached = next.value.offset + next.value.length;
      yield next.value;
    }
  }
  return { complete: false };
}

async function* listWith(
  program: { command: string; args: readonly string[] },
  fd: number,
  size: number,
  from: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Extent, "complete" | "unproven", void> {
  signal?.throwIfAborted();
  const child = spawn(program.command, program.args, {
    stdio: ["ignore", "pipe", "ignore", fd],
    env: { PATH: process.env["PATH"], LC_ALL: "C" },
  });
  // A program that is missing reports it here and closes its output; the listing then ends unproven.
  const exited = once(child, "close").then(
    ([code]) => code as number | null,
    () => null,
  );
  const abort = (): void => void child.kill("SIGKILL");
  signal?.addEventListener("abort", abort, { once: true });
  let ended = false;
  let reached = 0;
  try {
    for await (const line of createInterface({ input: child.stdout! })) {
      const end = /^end (\d+)$/.exec(line);
      if (end !== null) {
        ended = Number(end[1]) === size;
        break;
      }
      const found = /^(\d+) (\d+)$/.exec(line);
      if (found === null) break;
      const offset = Number(found[1]);
      const length = Number(found[2]);
      if (offset < reached || length <= 0 || offset + length > size) break;
      reached = offset + length;
      if (reached <= from) continue;
      const start = Math.max(offset, from);
      yield { offset: start, length: reached - start };
    }
    if (!ended) child.kill("SIGKILL");
    const code = await exited;
    signal?.throwIfAborted();
    return ended && code === 0 ? "complete" : "unproven";
  } finally {
    signal?.removeEventListener("abort", abort);
    child.kill("SIGKILL");
    await exited;
  }
}
