import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { SourceConnector } from "./source.ts";
import type { TargetProvider } from "./target.ts";
import type { Wait } from "./wait.ts";

/** What core gives a provider when it opens one. */
export interface ProviderContext extends Wait {
  /** For people who watch: a line about something slow or unexpected that was handled. */
  notice?(message: string): void;
}

/**
 * What a provider package exports as `provider`. `Config`: what its schema makes of options, and its `source` and `target`
 * get. `Options`: what a user writes; named, it makes wrong options errors of the compiler.
 */
export interface ProviderDefinition<Config = unknown, Options = unknown> {
  /** The version of this contract the provider was written for. */
  readonly spec: "v1";
  /** The product's name, unique among providers: `local`, `aws-ebs`, `vsphere`, `cloudstack`. */
  readonly name: string;
  /** URI schemes this provider answers to, without the colon. */
  readonly schemes?: readonly string[];
  /** Checks and completes the options; never holds a default secret. */
  readonly config: StandardSchemaV1<Options, Config>;
  /** The options that a URI of one of `schemes` stands for. Absent: this provider has no URIs. */
  fromUri?(uri: string): unknown;
  source?(config: Config, context?: ProviderContext): Promise<SourceConnector>;
  target?(config: Config, context?: ProviderContext): Promise<TargetProvider>;
}

/** Gives a provider its types; returns it as it is. */
export function defineProvider<Config, Options = unknown>(
  definition: ProviderDefinition<Config, Options>,
): ProviderDefinition<Config, Options> {
  return definition;
}
