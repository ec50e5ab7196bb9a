/** A command that Systems Manager ran, or is running, in a guest. */
export interface GuestCommand {
  id: string;
  instanceId: string;
  document: string;
  parameters: Readonly<Record<string, readonly string[]>>;
}

/** How a command ends. */
export interface GuestOutcome {
  status: "Success" | "Failed" | "TimedOut" | "Cancelled" | "Undeliverable" | "InProgress";
  /** -1 when the command did not end by itself. */
  responseCode?: number;
  output?: string;
  errors?: string;
  /** Of AWSEC2-CreateVssSnapshot: what the tag AppConsistent says; true by default. */
  applicationConsistent?: boolean;
}

/** Plays the guest: called once for each command and instance, when the command begins. */
export type Guest = (command: GuestCommand) => GuestOutcome | Promise<GuestOutcome>;
