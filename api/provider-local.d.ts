import { BlockReader, BlockWriter, ProviderDefinition, Volume } from "@diskferry/core/provider";
import { z } from "zod";
/** The options of the provider `local`, for a source or a target; every name unknown to it is refused. */
declare const optionsSchema: z.ZodType<LocalOptions, LocalOptions>;
/** One disk, as the options name it. */
interface DiskOptions {
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
interface TlsFileOptions {
  certificates?: string | undefined;
  pskFile?: string | undefined;
  username?: string | undefined;
  serverName?: string | undefined;
}
/** Floors of retention. */
interface RetentionOptions {
  /** At least this many recovery points stay. */
  count?: number | undefined;
  /** Recovery points younger than this stay. */
  ageDays?: number | undefined;
}
/** The options of the provider `local`; see `optionsSchema` for what each means. */
interface LocalOptions extends DiskOptions {
  machine?: string | undefined;
  disks?: DiskOptions[] | undefined;
  directory?: string | undefined;
  retention?: RetentionOptions | undefined;
  clusterSize?: number | undefined;
  compression?: "none" | "zlib" | "zstd" | undefined;
  overwrite?: boolean | undefined;
}
/** The provider of raw files, block devices, qcow2 images and NBD servers, as source and as target. */
declare const provider: ProviderDefinition<LocalOptions, LocalOptions>;
/** How a raw reader behaves beside reading. */
interface RawReaderOptions {
  /** The content that is read, as `contentStamp` told it; reading rejects once the file tells another. */
  stamp?: string | undefined;
  /** Refuse unless the path still leads to this file or device. */
  place?: string | undefined;
  /** The disk ends here although the file may go on; bytes. */
  size?: number | undefined;
}
/**
 * Reads a raw file or block device, straight into the caller's buffer, on Node's thread pool; its lane reads in place
 * inside a worker, which is the cheapest.
 */
declare function openRawReader(path: string, options?: RawReaderOptions): Promise<BlockReader>;
/**
 * What a writer shares with its lanes in other threads: whether writing is still allowed, and how many writes are
 * under way. Two 32-bit words of shared memory; it travels by `postMessage`.
 */
type WriteGate = Int32Array;
/** What a raw writer must be told: who it is, and what to do at the steps that its caller knows more of. */
interface RawWriterOptions {
  /** The writer's `generation`. */
  generation: string;
  /** Proven to read as zeroes wherever this run has not written. */
  blank?: boolean;
  /** Refuse unless the path still leads to this file or device. */
  place?: string | undefined;
  /** The gate shared with whoever may have to cut this writer off. */
  gate?: WriteGate;
  /** Asked before each flush resolves: rejects with FENCED when a newer epoch has taken over. */
  checkFence?(): Promise<void>;
  /** Records the commit, after the data is durable; its result is the volume. */
  committed?(): Promise<Volume>;
  /** Discards what this run wrote; called with no write under way. */
  discard?(fd: number): Promise<void>;
  /** Called once when the writer is closed. */
  closed?(): Promise<void>;
}
/** Writes in place into a raw file or block device that exists already and has its full size. */
declare function openRawWriter(path: string, options: RawWriterOptions): Promise<BlockWriter>;
export { type DiskOptions, type LocalOptions, type RawReaderOptions, type RawWriterOptions, type RetentionOptions, type TlsFileOptions, openRawReader, openRawWriter, optionsSchema, provider };