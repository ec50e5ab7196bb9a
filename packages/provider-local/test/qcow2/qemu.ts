import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A folder of its own for one test. */
export function temporaryFolder(): { path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), "diskferry-qcow2-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

function run(command: string, args: readonly string[]): string {
  try {
    return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    throw new Error(`${command} ${args.join(" ")}\n${stdout ?? ""}${stderr ?? ""}`, { cause: error });
  }
}

export function qemuImg(...args: string[]): string {
  return run("qemu-img", args);
}

/** Runs qemu-io commands on an image. */
export function qemuIo(image: string, format: string, ...commands: string[]): void {
  const output = run("qemu-io", ["-f", format, ...commands.flatMap((command) => ["-c", command]), image]);
  if (/failed|error/i.test(output)) throw new Error(`qemu-io: ${output}`);
}

/** Fails unless `qemu-img check` finds neither errors nor leaks. */
export function expectClean(image: string): void {
  qemuImg("check", "-q", "-f", "qcow2", image);
}

/** What qemu reads of an image, as a raw file. */
export function asRaw(image: string, to: string, format = "qcow2"): string {
  qemuImg("convert", "-f", format, "-O", "raw", image, to);
  return to;
}

/** qemu's own map: ascending ranges with whether they hold data, read as zeroes, and at which depth. */
export function qemuMap(
  image: string,
): { start: number; length: number; depth: number; zero: boolean; data: boolean }[] {
  return JSON.parse(qemuImg("map", "-f", "qcow2", "--output=json", image)) as never;
}
