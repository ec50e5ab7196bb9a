import { z } from "zod";
import { type SourceOptions, sourceOptionsSchema } from "./source/source-options.ts";
import { type TargetOptions, targetOptionsSchema } from "./target/target-options.ts";

const text = z.string().min(1);
const milliseconds = z.int().min(1);
const url = z.url({ protocol: /^https?$/, message: "must be an http: or https: URL" });

const staticKeys = z.strictObject({
  accessKeyId: text,
  secretAccessKey: text,
  sessionToken: text.optional(),
  accountId: text.regex(/^\d{12}$/, "must be twelve digits").optional(),
});
const profile = z.strictObject({ profile: text });
const custom = z.custom<CredentialFunction>((value) => typeof value === "function", "must be a function");
const role = z.strictObject({
  roleArn: text.regex(/^arn:aws[a-z-]*:iam::\d{12}:role\//, "must be the ARN of an IAM role"),
  externalId: text.optional(),
  sessionName: text.optional(),
  durationSeconds: z.int().min(900).max(43_200).optional(),
  /** Who assumes the role; absent: the SDK's default chain. */
  from: z.union([staticKeys, profile, custom]).optional(),
});

/** Tags of ours as AWS takes them (EC2 user guide, tag restrictions); `aws:` belongs to AWS. */
const tags = z
  .record(
    text.max(127).refine((key) => !/^aws:/i.test(key), "keys that begin with aws: belong to AWS"),
    z.string().max(255),
  )
  // Of ours a snapshot that was copied, is held as a base, shared and consistent with its guest has fourteen, with AWS's of VSS.
  .refine((all) => Object.keys(all).length <= 35, "at most 35 tags: AWS takes 50, and some are ours");

/** The options of the provider `aws-ebs`, for a source or a target; every name unknown to it is refused. */
export const optionsSchema: z.ZodType<AwsOptions, AwsOptions> = z.strictObject({
  region: text.regex(/^[a-z\d-]+$/, "must be a Region's name such as eu-central-1").optional(),
  /** The instance, volume or snapshot that this source or target is about, as a URI names it. */
  resource: text.optional(),
  credentials: z.union([staticKeys, profile, role, custom]).optional(),
  endpoint: z
    .union([
      url,
      z.strictObject({ ec2: url.optional(), ebs: url.optional(), ssm: url.optional(), sts: url.optional() }),
    ])
    .optional(),
  product: text
    .max(32)
    .regex(/^[\p{L}\p{N}._-]+$/u, "must be letters, digits, dot, underscore and hyphen")
    .optional(),
  tags: tags.optional(),
  timeouts: z
    .strictObject({
      connectMs: milliseconds.optional(),
      blockMs: milliseconds.optional(),
      requestMs: milliseconds.optional(),
      pollMs: milliseconds.optional(),
      snapshotMs: milliseconds.optional(),
      visibleMs: milliseconds.optional(),
      powerMs: milliseconds.optional(),
    })
    .optional(),
  retryBudgetMs: z.int().min(0).optional(),
  concurrency: z.int().min(1).max(1000).optional(),
  blocksPerSecond: z.number().min(1).optional(),
  source: sourceOptionsSchema.optional(),
  target: targetOptionsSchema.optional(),
});

/** Keys as AWS hands them out. */
export interface StaticKeys {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string | undefined;
  /** The account they are of; absent: STS is asked. */
  accountId?: string | undefined;
}

/** Gives keys, and gives others when asked again after these ran out. */
export type CredentialFunction = () => Promise<StaticKeys & { expiration?: Date | undefined }>;

/** Where keys come from. */
export type CredentialOptions =
  | StaticKeys
  | { profile: string }
  | {
      roleArn: string;
      externalId?: string | undefined;
      sessionName?: string | undefined;
      durationSeconds?: number | undefined;
      from?: StaticKeys | { profile: string } | CredentialFunction | undefined;
    }
  | CredentialFunction;

/** How long things may take, in milliseconds. */
export interface TimeoutOptions {
  /** A connection, TLS included. Default 5000. */
  connectMs?: number | undefined;
  /** One attempt to read or write a block or a page of a listing, its body included. Default 20 000. */
  blockMs?: number | undefined;
  /** One attempt of any other call. Default 60 000. */
  requestMs?: number | undefined;
  /** Between two looks at something that is under way. Default 5000. */
  pollMs?: number | undefined;
  /** From CreateSnapshots or a copy until `completed`. Default 24 hours: a first snapshot of a large volume takes hours. */
  snapshotMs?: number | undefined;
  /** How long something new may be unknown to another part of AWS. Default 120 000. */
  visibleMs?: number | undefined;
  /** For an instance to stop or start. Default 900 000. */
  powerMs?: number | undefined;
}

/** The options of the provider `aws-ebs`. */
export interface AwsOptions {
  /** Absent: as the SDK finds it (AWS_REGION, the profile). */
  region?: string | undefined;
  /** The instance, volume or snapshot that a URI names. */
  resource?: string | undefined;
  /** Absent: the SDK's default chain (environment, profile, SSO, container, instance). */
  credentials?: CredentialOptions | undefined;
  /** One URL for all services, or one for each: interface endpoints, FIPS, a simulator. Absent: AWS's own. */
  endpoint?:
    | string
    | { ec2?: string | undefined; ebs?: string | undefined; ssm?: string | undefined; sts?: string | undefined }
    | undefined;
  /** The name that stands in tags and descriptions. Default `diskferry`. */
  product?: string | undefined;
  /** Tags that everything made gets besides our own. */
  tags?: Record<string, string> | undefined;
  timeouts?: TimeoutOptions | undefined;
  /**
   * How long a call of the control plane is repeated. Default 120 000, which is core's budget too: when this one is spent,
   * core does not begin again. Reads and writes of blocks are repeated by core alone.
   */
  retryBudgetMs?: number | undefined;
  /** Blocks under way at once, and connections for them. Default 128 (EBS direct APIs, performance: 100 × 100 ms = 1000/s). */
  concurrency?: number | undefined;
  /** The most blocks per second that this process asks of one account and Region, to leave others their share. */
  blocksPerSecond?: number | undefined;
  /** Of sources alone. */
  source?: SourceOptions | undefined;
  /** Of targets alone. */
  target?: TargetOptions | undefined;
}

/** Options with every default filled in. */
export interface Settings {
  product: string;
  tags: Record<string, string>;
  timeouts: { [Name in keyof TimeoutOptions]-?: number };
  retryBudgetMs: number;
  concurrency: number;
  blocksPerSecond: number;
}

/** Fills in the defaults. */
export function settingsOf(options: AwsOptions): Settings {
  const { timeouts = {} } = options;
  return {
    product: options.product ?? "diskferry",
    tags: options.tags ?? {},
    timeouts: {
      connectMs: timeouts.connectMs ?? 5000,
      blockMs: timeouts.blockMs ?? 20_000,
      requestMs: timeouts.requestMs ?? 60_000,
      pollMs: timeouts.pollMs ?? 5000,
      snapshotMs: timeouts.snapshotMs ?? 24 * 3_600_000,
      visibleMs: timeouts.visibleMs ?? 120_000,
      powerMs: timeouts.powerMs ?? 900_000,
    },
    retryBudgetMs: options.retryBudgetMs ?? 120_000,
    concurrency: options.concurrency ?? 128,
    blocksPerSecond: options.blocksPerSecond ?? Number.POSITIVE_INFINITY,
  };
}
