import type { JobOptions, ProviderDefinition } from "@diskferry/core";

/** A source or a target before it is opened. */
export interface EndSpec {
  readonly definition: ProviderDefinition;
  /** For the provider; may hold secrets. */
  readonly options: unknown;
  /** For people; holds no secret. */
  readonly label: string;
}

/** A job before it is opened: everything that arguments or a configuration file say of it. */
export interface JobSpec {
  readonly id: string;
  readonly source: EndSpec;
  readonly target: EndSpec;
  /** Absent: the source's only machine. */
  readonly machine?: string | undefined;
  readonly disks?: readonly string[] | undefined;
  /** The state directory. */
  readonly state: string;
  readonly options: Omit<JobOptions, "limits" | "receiptKey" | "notice">;
  readonly bytesPerSecond?: number | undefined;
  readonly window?: string | undefined;
  readonly timeZone?: string | undefined;
  /** The directory that receipts go to. */
  readonly receipts?: string | undefined;
  /** The path of the private key that signs them. */
  readonly receiptKey?: string | undefined;
  /** Milliseconds from the beginning of a run to that of the next; absent: one run. */
  readonly everyMs?: number | undefined;
  /** Absolute source and target, where both are URIs, so that later commands need only the job's id. */
  readonly uris?: { readonly source: string; readonly target: string } | undefined;
}
