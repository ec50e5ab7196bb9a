import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

/**
 * coldsnap's newest release, built once into a folder of the user's cache: with two cores that takes ten minutes.
 * Undefined, and said so, where it cannot be built.
 */
export function coldsnap(): string | undefined {
  const root = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "diskferry-bench", "coldsnap");
  const program = join(root, "bin", "coldsnap");
  if (existsSync(program)) return program;
  try {
    console.error(`Building coldsnap into ${root}; this is done once.`);
    execFileSync("cargo", ["install", "coldsnap", "--locked", "--root", root], { stdio: ["ignore", "ignore", "pipe"] });
    return program;
  } catch (error) {
    console.error(`SKIPPED: coldsnap could not be built, so it is not compared with: ${(error as Error).message}`);
    return undefined;
  }
}

/** Its version, by the record that cargo keeps: the program itself does not tell. */
export function coldsnapVersion(program: string): string {
  const record = readFileSync(join(dirname(dirname(program)), ".crates.toml"), "utf8");
  return /"coldsnap (\d+\.\d+\.\d+)/.exec(record)?.[1] ?? "?";
}
