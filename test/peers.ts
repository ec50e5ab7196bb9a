import { execFileSync } from "node:child_process";
import { describe } from "vitest";

/**
 * Programs that no one here wrote and that judge our work. `DISKFERRY_REQUIRE_PEERS=1` (set by CI) turns a missing one
 * into a failure; elsewhere the tests that need it are skipped and say so by name.
 */
export function hasPeer(command: string): boolean {
  try {
    execFileSync("/bin/sh", ["-c", `command -v -- "$0"`, command], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A `describe` that runs only where every named program is installed, and names the missing ones otherwise. */
export function describeWithPeers(commands: readonly string[], title: string, body: () => void): void {
  const missing = commands.filter((command) => !hasPeer(command));
  if (missing.length === 0) {
    describe(title, body);
    return;
  }
  if (process.env["DISKFERRY_REQUIRE_PEERS"] === "1") {
    throw new Error(`${title}: missing ${missing.join(", ")}, which DISKFERRY_REQUIRE_PEERS=1 demands; see .ci/run`);
  }
  console.warn(`SKIPPED for want of ${missing.join(", ")}: ${title}`);
  describe.skip(`${title} (missing ${missing.join(", ")})`, body);
}
