import { z } from "zod";

const lines = z.array(z.string().min(1)).min(1);

/** Options of sources alone. */
export const sourceOptionsSchema: z.ZodType<SourceOptions, SourceOptions> = z.strictObject({
  exclude: z.array(z.string().min(1)).optional(),
  application: z
    .strictObject({
      linux: z.strictObject({ pre: lines, post: lines, achieves: z.enum(["filesystem", "application"]) }).optional(),
      windows: z.strictObject({ copyOnly: z.boolean().optional(), noWriters: z.boolean().optional() }).optional(),
      timeoutSeconds: z.int().min(1).max(172_800).optional(),
    })
    .optional(),
});

/** Options of sources alone. */
export interface SourceOptions {
  /** Volumes that are left out of every machine: ids, or device names such as `/dev/sdf`. */
  exclude?: string[] | undefined;
  /** How application consistency is reached through Systems Manager, where it is asked for. */
  application?: ApplicationOptions | undefined;
}

/** How application consistency is reached through Systems Manager. */
export interface ApplicationOptions {
  /** Shell commands before and after the point in time, run by AWS-RunShellScript, and what they achieve. */
  linux?: { pre: string[]; post: string[]; achieves: "filesystem" | "application" } | undefined;
  /** The document AWSEC2-CreateVssSnapshot. */
  windows?: { copyOnly?: boolean | undefined; noWriters?: boolean | undefined } | undefined;
  /** How long the guest may take, in seconds. Default 600. */
  timeoutSeconds?: number | undefined;
}
