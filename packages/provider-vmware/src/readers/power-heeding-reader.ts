import type { BlockReader } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { DiskPoint } from "../source/disk-point.ts";
import { readPowerState } from "../vim/power-calls.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";

/** How long an answer about the power state is good, in milliseconds. */
const freshMs = 1_000;
/** What a paused read asks to be left alone for, in milliseconds. */
const pauseMs = 15_000;

/**
 * Heeds what becomes of the machine while its snapshot is read. A snapshot stays readable whatever happens, so by default
 * nothing does. `pause`: reads are put off while a machine that ran is off, and the run stops at its last durable point if that
 * lasts; the same job goes on from there. `fail`: the run ends.
 */
export function heedPower(reader: BlockReader, connection: VsphereConnection, point: DiskPoint): BlockReader {
  const policy = connection.options.onPowerChange ?? "continue";
  // What was off when the snapshot was made may stay so: that is how a cutover's last snapshot is taken.
  if (policy === "continue" || !point.wasOn) return reader;
  let asked = -Infinity;
  let answer: Promise<string> | undefined;
  const read = reader.read.bind(reader);
  return Object.assign(reader, {
    async read(...[offset, into, options]: Parameters<BlockReader["read"]>): Promise<void> {
      options?.signal?.throwIfAborted();
      if (answer === undefined || performance.now() - asked > freshMs) {
        asked = performance.now();
        answer = readPowerState(connection.client, point.machine, { about: point.machineName });
        answer.catch(() => (answer = undefined));
      }
      const state = await answer;
      options?.signal?.throwIfAborted();
      if (state === "on") return read(offset, into, options);
      answer = undefined;
      if (policy === "fail") {
        throw vsphereError(
          "IN_USE",
          `${point.machineName} is ${state}, and onPowerChange is 'fail': the run ends. What was copied is kept; run again.`,
          { operation: "read", retryable: false },
        );
      }
      throw vsphereError(
        "THROTTLED",
        `${point.machineName} is ${state}: its copy pauses until it runs again (onPowerChange). What was copied is kept; run ` +
          "again when it does.",
        { operation: "read", retryAfterMs: pauseMs },
      );
    },
  });
}
