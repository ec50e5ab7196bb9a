import { z } from "zod";

const text = z.string().min(1);
const id = (prefix: string): z.ZodString =>
  text.regex(new RegExp(`^${prefix}-[0-9a-f]+$`), `must be an id such as ${prefix}-0123456789abcdef0`);

const volumeOptions = {
  /** gp3 when absent; EC2's own default is still gp2. */
  type: z.enum(["gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"]).optional(),
  iops: z.int().min(100).optional(),
  /** MiB per second, gp3 alone. */
  throughput: z.int().min(125).max(2000).optional(),
};

const volume = z.strictObject(volumeOptions).superRefine((options, context) => {
  const type = options.type ?? "gp3";
  if (options.throughput !== undefined && type !== "gp3")
    context.addIssue({ code: "custom", path: ["throughput"], message: "is for gp3 volumes alone" });
  if (options.iops !== undefined && !["gp3", "io1", "io2"].includes(type))
    context.addIssue({ code: "custom", path: ["iops"], message: "is for gp3, io1 and io2 volumes alone" });
  if (options.iops === undefined && ["io1", "io2"].includes(type))
    context.addIssue({ code: "custom", path: ["iops"], message: "io1 and io2 volumes need it" });
});

const network = {
  subnet: id("subnet").optional(),
  securityGroups: z.array(id("sg")).min(1).optional(),
};

const launch = z
  .strictObject({
    /**
     * `image` registers an image of the disks as they are and runs it. `convert` lets AWS put its drivers into the guest
     * first (ImportImage). `swap` starts `placeholder`, stops it, and puts the disks in the place of its own.
     */
    road: z.enum(["image", "convert", "swap"]).optional(),
    /** Absent: the smallest that holds the machine's processors and memory. */
    instanceType: text.regex(/^[a-z0-9-]+\.[a-z0-9-]+$/, "must be an instance type such as m6i.large").optional(),
    ...network,
    /** Absent: EC2 chooses one of the subnet. Not used by a test. */
    privateIp: z.ipv4().optional(),
    /** Given to the instance as it is; not written to logs or messages. */
    userData: z.string().max(16_384).optional(),
    keyName: text.max(255).optional(),
    instanceProfile: text.optional(),
    /** Absent: as the source's machine boots. */
    bootMode: z.enum(["legacy-bios", "uefi", "uefi-preferred"]).optional(),
    /** Whether the guest has the ENA driver. Default true: the flag does no harm on types without ENA. */
    ena: z.boolean().optional(),
    /** Of every volume, unless `disks` says otherwise. */
    volume: volume.optional(),
    /** By the key of the disk. */
    disks: z.record(text, volume).optional(),
    /** Where a test launch goes. Absent: the default VPC, or `subnet`, with a security group of its own that lets nothing out. */
    test: z.strictObject(network).optional(),
    /** `swap`: the image that is run first, of the same architecture and boot mode. */
    placeholder: id("ami").optional(),
    convert: z
      .strictObject({
        /** Absent: `vmimport`, as AWS calls it. */
        role: text.optional(),
        /** Absent: as the source tells. UEFI needs it. */
        platform: z.enum(["Linux", "Windows"]).optional(),
        licenseType: z.enum(["AWS", "BYOL"]).optional(),
      })
      .optional(),
  })
  .superRefine((options, context) => {
    if (options.road === "swap" && options.placeholder === undefined)
      context.addIssue({ code: "custom", path: ["placeholder"], message: "the road swap needs an image to run first" });
    if (options.convert !== undefined && options.road !== "convert")
      context.addIssue({ code: "custom", path: ["convert"], message: "is for the road convert alone" });
  });

/** The options of a target alone. */
export const targetOptionsSchema: z.ZodType<TargetOptions, TargetOptions> = z.strictObject({
  encrypted: z.boolean().optional(),
  kmsKey: text
    .regex(/^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/.+$/, "must be the ARN of a KMS key, not of an alias")
    .optional(),
  timeoutMinutes: z.int().min(10).max(4320).optional(),
  keep: z.strictObject({ count: z.int().min(1).optional(), ageDays: z.number().min(0).optional() }).optional(),
  launch: launch.optional(),
  attached: z.strictObject({ instance: id("i"), volume: volume.optional() }).optional(),
});

/** Type, IOPS and throughput of a volume that is made from a snapshot. */
export interface VolumeOptions {
  type?: "gp3" | "gp2" | "io1" | "io2" | "st1" | "sc1" | "standard" | undefined;
  iops?: number | undefined;
  /** MiB per second. */
  throughput?: number | undefined;
}

/** Where an instance stands. */
export interface NetworkOptions {
  subnet?: string | undefined;
  securityGroups?: string[] | undefined;
}

/** How machines are launched; see `targetOptionsSchema` for what each means. */
export interface LaunchOptions extends NetworkOptions {
  road?: "image" | "convert" | "swap" | undefined;
  instanceType?: string | undefined;
  privateIp?: string | undefined;
  userData?: string | undefined;
  keyName?: string | undefined;
  instanceProfile?: string | undefined;
  bootMode?: "legacy-bios" | "uefi" | "uefi-preferred" | undefined;
  ena?: boolean | undefined;
  volume?: VolumeOptions | undefined;
  disks?: Record<string, VolumeOptions> | undefined;
  test?: NetworkOptions | undefined;
  placeholder?: string | undefined;
  convert?:
    | {
        role?: string | undefined;
        platform?: "Linux" | "Windows" | undefined;
        licenseType?: "AWS" | "BYOL" | undefined;
      }
    | undefined;
}

/** The options of a target alone. */
export interface TargetOptions {
  /** Whether snapshots are encrypted. Absent: as the account does by default, or as the snapshot a run starts from. */
  encrypted?: boolean | undefined;
  /** ARN of the key; implies `encrypted`. Absent: the account's key for EBS. */
  kmsKey?: string | undefined;
  /**
   * After so many minutes without a block written a half-written snapshot is lost. 10 to 4320, which is the default: a run
   * that is interrupted can then be taken up for three days.
   */
  timeoutMinutes?: number | undefined;
  /** Floors of retention: a commit is removed when it is outside of both. Absent: all stay. The last one always stays. */
  keep?: { count?: number | undefined; ageDays?: number | undefined } | undefined;
  launch?: LaunchOptions | undefined;
  /**
   * Each disk becomes a volume that is attached to this instance, the one this runs on, and written through its block device;
   * a commit is a snapshot of it. Absent: blocks are put into snapshots directly.
   */
  attached?: { instance: string; volume?: VolumeOptions | undefined } | undefined;
}
