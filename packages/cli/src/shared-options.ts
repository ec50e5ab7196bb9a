import type { Consistency, DigestAlgorithm, TrackingLostPolicy, VerifyMode } from "@diskferry/core";
import type { OptionSpec } from "./command.ts";

type Options = Readonly<Record<string, OptionSpec>>;

/** What may be asked of a run. */
export const words: {
  readonly mode: readonly ("auto" | "full" | "rescan")[];
  readonly verify: readonly VerifyMode[];
  readonly digest: readonly (DigestAlgorithm | "none")[];
  readonly onTrackingLost: readonly TrackingLostPolicy[];
  readonly consistency: readonly Consistency[];
} = {
  mode: ["auto", "full", "rescan"],
  verify: ["none", "written", "full"],
  digest: ["blake3", "sha256", "none"],
  onTrackingLost: ["rescan", "full", "fail"],
  consistency: ["none", "disk", "crash", "filesystem", "application"],
};

/** Options of every command. */
export const commonOptions: Options = {
  json: { summary: "JSON lines on standard output and nothing on standard error" },
  quiet: { short: "q", summary: "no progress and no notices" },
  debug: { summary: "stacks with errors" },
  help: { short: "h", summary: "how the command is used" },
};

/** Where state is. */
export const stateOptions: Options = {
  state: {
    value: "directory",
    summary: "where jobs are remembered; default $XDG_STATE_HOME/diskferry/state, or ~/.local/state/diskferry/state",
  },
};

/** Which providers there are. */
export const providerOptions: Options = {
  provider: {
    value: "package",
    multiple: true,
    summary: "load this provider too: a package of your project, or the folder of one, such as ./",
  },
};

/** Which job is meant. */
export const jobOptions: Options = {
  config: { value: "file", short: "c", summary: "take jobs from this YAML file" },
  job: { value: "id", summary: "the job's name; default: made from source and target" },
  ...stateOptions,
  ...providerOptions,
  machine: { value: "id", summary: "the machine, where the source has several" },
  disk: { value: "key", multiple: true, summary: "only this disk of the machine" },
};

/** How a run goes. */
export const runOptions: Options = {
  mode: {
    value: words.mode.join("|"),
    summary: "auto is incremental where it can be; full sends everything again; rescan compares everything",
  },
  verify: { value: words.verify.join("|"), summary: "what is read back before the run counts; default written" },
  digest: {
    value: words.digest.join("|"),
    summary: "the digest of every block; default blake3 where its native module loads, else sha256",
  },
  "on-tracking-lost": {
    value: words.onTrackingLost.join("|"),
    summary: "what to do when the source no longer knows what changed; default rescan",
  },
  canary: {
    value: "leaves",
    summary:
      "leaves that the tracker called unchanged, read and compared in every incremental run of each disk; default 0, none",
  },
  consistency: { value: words.consistency.join("|"), summary: "the least that is worth copying; default none" },
  bandwidth: { value: "bytes/s", summary: "the most that is moved in a second: 1048576 or 50MiB" },
  window: { value: "times", summary: 'copy only then: "22:00-06:00" or "Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00"' },
  "time-zone": { value: "name", summary: "the time zone of the window, such as Europe/Berlin; default the machine's" },
  "parallel-disks": { value: "number", summary: "disks of a machine at once; default 4" },
  workers: {
    value: "number",
    summary: "threads for each disk; 0 for none; default 2, on two cores only where digests or compression need them",
  },
  receipts: { value: "directory", summary: "write a receipt for each disk of each run there" },
  "receipt-key": { value: "file", summary: "sign receipts with this Ed25519 private key in PEM" },
};
