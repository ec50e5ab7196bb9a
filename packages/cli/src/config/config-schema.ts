import { type Consistency, type DigestAlgorithm, type TrackingLostPolicy, type VerifyMode } from "@diskferry/core";
import { z } from "zod";
import { bytesForm, bytesFrom, millisecondsFrom, spanForm } from "../quantities.ts";
import { words } from "../shared-options.ts";

const text = z.string().min(1, "must not be empty");

/** What comes from an environment variable is text. */
const wholeNumber = (least: number): z.ZodType<number> =>
  z.preprocess(
    (given) => (typeof given === "string" && /^\d{1,9}$/.test(given) ? Number(given) : given),
    z.int(`has to be a whole number of at least ${least}`).min(least, `has to be at least ${least}`),
  );

const bytesPerSecond = z
  .union([z.number(), z.string()], { error: `has to be ${bytesForm}` })
  .transform((given, context) => {
    const bytes = bytesFrom(String(given));
    if (bytes !== undefined) return bytes;
    context.addIssue({ code: "custom", message: `has to be ${bytesForm}` });
    return z.NEVER;
  });

const span = z.string({ error: `has to be ${spanForm}` }).transform((given, context) => {
  const ms = millisecondsFrom(given);
  if (ms !== undefined) return ms;
  context.addIssue({ code: "custom", message: `has to be ${spanForm}` });
  return z.NEVER;
});

const runFields = {
  mode: z
    .enum(words.mode)
    .optional()
    .describe("auto is incremental where it can be; full sends everything again; rescan compares everything"),
  verify: z.enum(words.verify).optional().describe("what is read back before a run counts; default written"),
  digest: z
    .enum(words.digest)
    .optional()
    .describe("the digest of every block; default blake3 where its native module loads, else sha256"),
  onTrackingLost: z
    .enum(words.onTrackingLost)
    .optional()
    .describe("what to do when the source no longer knows what changed; default rescan"),
  canary: wholeNumber(0)
    .optional()
    .describe(
      "leaves that the tracker called unchanged, read and compared in every incremental run of each disk; default 0, none",
    ),
  consistency: z.enum(words.consistency).optional().describe("the least that is worth copying; default none"),
  bandwidth: bytesPerSecond.optional().describe("the most that is moved in a second, in bytes: 1048576 or 50MiB"),
  window: text.optional().describe('copy only then: "22:00-06:00" or "Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00"'),
  timeZone: text.optional().describe("the time zone of the window, such as Europe/Berlin; default the machine's"),
  parallelDisks: wholeNumber(1).optional().describe("disks of a machine at once; default 4"),
  workers: wholeNumber(0)
    .optional()
    .describe("threads for each disk; 0 for none; default 2, on two cores only where digests or compression need them"),
  every: span.optional().describe("run again and again, this long from one beginning to the next: 30s, 15m, 1h, 1d"),
};

const end = z.union([text, z.looseObject({ provider: text })], {
  error: "has to be a path, a URI, or an object with provider and that provider's options",
});

const job = z.strictObject({
  source: end.describe("where from: a path, a URI, or provider and its options"),
  target: end.describe("where to: a path, a URI, or provider and its options, retention among them"),
  machine: text.optional().describe("the machine, where the source has several"),
  disks: z.array(text).min(1).optional().describe("only these disks of the machine, by key"),
  ...runFields,
});

const defaults = z.strictObject(runFields);

const receipts = z.strictObject({
  directory: text.describe("a receipt for each disk of each run is written there"),
  key: text.optional().describe("the path of an Ed25519 private key in PEM that signs them"),
});

const config = z.strictObject({
  state: text.optional().describe("the state directory; default as for the command"),
  concurrency: wholeNumber(1).optional().describe("jobs at once; default 2"),
  receipts: receipts.optional().describe("where receipts go"),
  defaults: defaults.optional().describe("what holds for every job that does not say otherwise"),
  jobs: z
    .record(z.string(), job)
    .refine((jobs) => Object.keys(jobs).length > 0, "has no job")
    .describe("the jobs, each by its name, which is its id in the state directory"),
});

/** What holds for a job's runs. */
export interface RunConfig {
  mode?: "auto" | "full" | "rescan" | undefined;
  verify?: VerifyMode | undefined;
  digest?: DigestAlgorithm | "none" | undefined;
  onTrackingLost?: TrackingLostPolicy | undefined;
  /** Leaves of each disk. */
  canary?: number | undefined;
  consistency?: Consistency | undefined;
  /** Bytes per second. */
  bandwidth?: number | undefined;
  window?: string | undefined;
  timeZone?: string | undefined;
  parallelDisks?: number | undefined;
  workers?: number | undefined;
  /** Milliseconds. */
  every?: number | undefined;
}

/** A path or URI, or a provider's name with its options. */
export type EndConfig = string | { provider: string; [option: string]: unknown };

/** One job. */
export interface JobConfig extends RunConfig {
  source: EndConfig;
  target: EndConfig;
  machine?: string | undefined;
  disks?: string[] | undefined;
}

/** A configuration that was checked. */
export interface Config {
  state?: string | undefined;
  concurrency?: number | undefined;
  receipts?: { directory: string; key?: string | undefined } | undefined;
  defaults?: RunConfig | undefined;
  jobs: Record<string, JobConfig>;
}

/** A configuration file of standing jobs. */
export const configSchema: z.ZodType<Config> = config;

/** A name that may stand in a configuration. */
export interface ConfigField {
  name: string;
  required: boolean;
  summary: string;
}

/** The names that may stand at each place of a configuration: at the top, and below the name of the list. */
export const configFields: Readonly<Record<"top" | "receipts" | "defaults" | "job", readonly ConfigField[]>> = {
  top: fieldsOf(config.shape),
  receipts: fieldsOf(receipts.shape),
  defaults: fieldsOf(defaults.shape),
  job: fieldsOf(job.shape),
};

function fieldsOf(shape: Readonly<Record<string, z.ZodType>>): ConfigField[] {
  return Object.entries(shape).map(([name, field]) => ({
    name,
    required: !field.safeParse(undefined).success,
    summary: field.description ?? "",
  }));
}
