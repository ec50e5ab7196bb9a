import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { GuestCommand, GuestOutcome } from "@diskferry/simulators";

/** A Linux guest whose shell runs what Systems Manager gives it, and whose one filesystem is frozen and thawed by hand. */
export interface PlayedGuest {
  /** As `fsfreeze` does: what is frozen is not frozen again, nor what is thawed thawed. */
  application: { linux: { pre: string[]; post: string[]; achieves: "filesystem" } };
  /** Runs lines as the agent does, in a group of processes of their own that ends with them where they are cut off. */
  run(lines: readonly string[], more?: { cutOffWhenFrozen?: boolean }): Promise<GuestOutcome>;
  play: (command: GuestCommand) => Promise<GuestOutcome>;
  isFrozen(): boolean;
  /** From when to when it was frozen, in milliseconds since 1970; what is frozen still has no end. */
  freezes(): { from: number; to: number }[];
  /** What the lines left in the folder that they keep their notes in. */
  notes(): string[];
}

/** A guest to which a minute is so many milliseconds. */
export function playedGuest(minuteMs: number): PlayedGuest {
  const folder = mkdtempSync(join(tmpdir(), "diskferry-guest-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const [frozen, log] = [join(folder, "frozen"), join(folder, "log")];
  const noted = (what: string): string => `echo ${what} $(date +%s%3N) >>${log}`;
  const pre = [`mkdir ${frozen}`, noted("frozen")];
  const post = [`rmdir ${frozen}`, noted("thawed")];

  const run: PlayedGuest["run"] = (lines, { cutOffWhenFrozen = false } = {}) => {
    const script = lines
      .join("\n")
      .replaceAll("/run/", `${folder}/`)
      .replaceAll(/\bsleep (\d+)/g, (_, seconds) => `sleep ${(Number(seconds) * minuteMs) / 60_000}`);
    return new Promise((done) => {
      const child = execFile("setsid", ["sh", "-c", script], (error, output, errors) =>
        done({ status: error === null ? "Success" : "Failed", responseCode: error === null ? 0 : 1, output, errors }),
      );
      if (!cutOffWhenFrozen) return;
      const watch = setInterval(() => {
        if (!existsSync(frozen)) return;
        clearInterval(watch);
        process.kill(-child.pid!, "SIGKILL");
      }, 10);
    });
  };
  return {
    application: { linux: { pre, post, achieves: "filesystem" } },
    run,
    play: ({ parameters }) => run(parameters["commands"] ?? []),
    isFrozen: () => existsSync(frozen),
    freezes() {
      const found: { from: number; to: number }[] = [];
      for (const line of existsSync(log) ? readFileSync(log, "latin1").trim().split("\n") : []) {
        const [what, at] = line.split(" ");
        if (what === "frozen") found.push({ from: Number(at), to: Number.POSITIVE_INFINITY });
        else found.at(-1)!.to = Number(at);
      }
      return found;
    },
    notes: () => readdirSync(folder).filter((name) => name.startsWith("diskferry")),
  };
}
