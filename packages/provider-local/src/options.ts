import { z } from "zod";

const text = z.string().min(1);
const path = text.refine((value) => !value.includes("\0"), "holds a NUL byte");

/** Files that TLS needs, by path: secrets never stand in the options themselves. */
const tls = z.strictObject({
  /** A folder with ca-cert.pem and, for a client certificate, client-cert.pem and client-key.pem. */
  certificates: path.optional(),
  /** A file of lines `identity:hex`, as psktool writes it. */
  pskFile: path.optional(),
  username: text.optional(),
  /** The name looked for in the server's certificate; default: the host. */
  serverName: text.optional(),
});

const place = {
  /** A raw file, a block device or a qcow2 image. */
  path: path.optional(),
  /** `nbd://`, `nbds://`, `nbd+unix://` or `nbds+unix://`. */
  uri: text.optional(),
  /** `auto` looks at the first bytes and the name, and asks where they contradict each other. */
  format: z.enum(["auto", "raw", "qcow2", "qcow2-chain"]).optional(),
  tls: tls.optional(),
};

const source = {
  /** Stable name of the disk within its machine. */
  key: text.optional(),
  name: text.optional(),
  boot: z.boolean().optional(),
  /** Stated by who knows it: nothing writes to this disk while it is copied. It is checked where it can be. */
  frozen: z.boolean().optional(),
  /** The QEMU dirty bitmap that has recorded every write since the last copied point in time. */
  bitmap: text.optional(),
};

const disk = z.strictObject({ ...place, ...source }).superRefine(refuseContradictions);

/** The options of the provider `local`, for a source or a target; every name unknown to it is refused. */
export const optionsSchema: z.ZodType<LocalOptions, LocalOptions> = z
  .strictObject({
    ...place,
    ...source,
    /** Name of the machine whose disks these are. Absent: each disk stands as a machine of one disk. */
    machine: text.optional(),
    /** A source of several disks. */
    disks: z.array(disk).min(1).optional(),
    /** A target that makes a file, or a chain of recovery points, for each disk. */
    directory: path.optional(),
    /** How long recovery points stay: both are floors, and the last one always stays. */
    retention: z.strictObject({ count: z.int().min(1).optional(), ageDays: z.number().min(0).optional() }).optional(),
    /** qcow2: bytes of a cluster, a power of two from 64 KiB to 2 MiB. */
    clusterSize: z
      .int()
      .refine((size) => size >= 65536 && size <= 2097152 && (size & (size - 1)) === 0, {
        message: "must be a power of two from 65536 to 2097152",
      })
      .optional(),
    /** qcow2: whether clusters are compressed. */
    compression: z.enum(["none", "zlib", "zstd"]).optional(),
    /** A target in place may take over a file or device that holds another job's replica. */
    overwrite: z.boolean().optional(),
  })
  .superRefine(refuseContradictions);

/** One disk, as the options name it. */
export interface DiskOptions {
  path?: string | undefined;
  uri?: string | undefined;
  format?: "auto" | "raw" | "qcow2" | "qcow2-chain" | undefined;
  tls?: TlsFileOptions | undefined;
  key?: string | undefined;
  name?: string | undefined;
  boot?: boolean | undefined;
  frozen?: boolean | undefined;
  bitmap?: string | undefined;
}

/** Paths of what TLS needs. */
export interface TlsFileOptions {
  certificates?: string | undefined;
  pskFile?: string | undefined;
  username?: string | undefined;
  serverName?: string | undefined;
}

/** Floors of retention. */
export interface RetentionOptions {
  /** At least this many recovery points stay. */
  count?: number | undefined;
  /** Recovery points younger than this stay. */
  ageDays?: number | undefined;
}

/** The options of the provider `local`; see `optionsSchema` for what each means. */
export interface LocalOptions extends DiskOptions {
  machine?: string | undefined;
  disks?: DiskOptions[] | undefined;
  directory?: string | undefined;
  retention?: RetentionOptions | undefined;
  clusterSize?: number | undefined;
  compression?: "none" | "zlib" | "zstd" | undefined;
  overwrite?: boolean | undefined;
}

function refuseContradictions(options: LocalOptions, context: z.RefinementCtx): void {
  const refuse = (message: string, ...where: string[]): void => {
    context.addIssue({ code: "custom", message, path: where });
  };
  const named = (["path", "uri", "disks", "directory"] as const).filter((name) => options[name] !== undefined);
  if (named.length === 0) {
    refuse("name a disk: path (file or device), uri (NBD), disks (a machine of several) or directory (a target)");
  }
  if (named.length > 1) refuse(`${named.join(" and ")} exclude each other`, named[1]!);
  if (options.tls !== undefined && options.uri?.startsWith("nbds") !== true) {
    refuse("TLS is for nbds:// and nbds+unix:// alone", "tls");
  }
  if (options.uri !== undefined && options.format !== undefined && options.format !== "raw") {
    refuse("what an NBD server shows is raw: leave format away, or name the image by path", "format");
  }
  if (options.bitmap !== undefined && options.uri === undefined)
    refuse("a dirty bitmap is asked of an NBD server: give uri", "bitmap");
  if (options.format === "qcow2-chain" && options.directory === undefined) {
    refuse("a chain of recovery points needs a directory", "format");
  }
  if (options.directory !== undefined && options.frozen !== undefined) refuse("is for sources", "frozen");
  if (
    options.retention !== undefined &&
    (options.directory === undefined || (options.format ?? "qcow2-chain") !== "qcow2-chain")
  ) {
    refuse("is for the format qcow2-chain in a directory; other targets hold one state alone", "retention");
  }
}
