import { spawn } from "node:child_process";
import { NotJudged } from "@diskferry/provider-testkit";

/** A range that the suite wants the guest to write. */
export interface GuestWrite {
  machine: string;
  disk: string;
  /** Bytes. */
  offset: number;
}

/**
 * Has the guest write by a command of the user, run by `sh`: the bytes come on its standard input, and
 * DISKFERRY_MACHINE, DISKFERRY_DISK, DISKFERRY_OFFSET and DISKFERRY_LENGTH (in bytes) say where they belong. Without a
 * command the clause is not judged.
 */
export function guestWriter(
  command: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): (write: GuestWrite, bytes: Uint8Array) => Promise<void> {
  return async ({ machine, disk, offset }: GuestWrite, bytes: Uint8Array): Promise<void> => {
    if (command === undefined) throw new NotJudged("the guest was not to be written: no --guest-write");
    const child = spawn("sh", ["-c", command], {
      stdio: ["pipe", "ignore", "pipe"],
      env: {
        ...env,
        DISKFERRY_MACHINE: machine,
        DISKFERRY_DISK: disk,
        DISKFERRY_OFFSET: String(offset),
        DISKFERRY_LENGTH: String(bytes.byteLength),
      },
    });
    let said = "";
    child.stderr.on("data", (text: Buffer) => (said = (said + text.toString()).slice(-2000)));
    // A command that reads less than it is given ends with an error of its own, told below.
    child.stdin.on("error", () => undefined);
    child.stdin.end(bytes);
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    if (code !== 0) throw new Error(`the command of --guest-write ended with ${code}: ${said.trim()}`);
  };
}
