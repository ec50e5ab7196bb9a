import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ProviderDefinition } from "../../src/provider/definition.ts";

type Result = StandardSchemaV1.Result<unknown>;

/** A schema made of a function, as Standard Schema allows; nobody's library. */
export function schemaOf(validate: (value: unknown) => Result | Promise<Result>): StandardSchemaV1<unknown, unknown> {
  return { "~standard": { version: 1, vendor: "test", validate } };
}

/** A provider that does nothing, under any name. */
export function makeDefinition(given: Partial<ProviderDefinition> = {}): ProviderDefinition {
  return {
    spec: "v1",
    name: "tape",
    schemes: ["tape"],
    fromUri: (uri) => ({ uri }),
    config: schemaOf((value) => ({ value })),
    source: () => Promise.reject(new Error("not needed")),
    ...given,
  };
}
