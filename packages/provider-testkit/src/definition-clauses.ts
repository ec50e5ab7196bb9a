import type { ProviderDefinition } from "@diskferry/core/provider";
import type { DefinitionHarness } from "./harness.ts";
import type { Clause, Judge } from "./judge.ts";

/** A provider's definition under test. */
export interface DefinitionWorld {
  judge: Judge;
  harness: DefinitionHarness;
}

async function configOf({ judge, harness }: DefinitionWorld, options: unknown): Promise<unknown> {
  const result = await harness.provider.config["~standard"].validate(options);
  if (result.issues !== undefined) {
    return judge.fail(`the schema refused good options: ${result.issues.map(({ message }) => message).join("; ")}`);
  }
  return result.value;
}

async function opened(world: DefinitionWorld, side: "source" | "target"): Promise<void> {
  const { judge, harness } = world;
  const provider: ProviderDefinition = harness.provider;
  if (provider[side] === undefined) return judge.skip(`absent: definition.${side}`);
  const connection = await provider[side](await configOf(world, harness.config));
  await connection[Symbol.asyncDispose]();
  await judge.abortsBefore(`${side}()`, async (signal) =>
    provider[side]?.(await configOf(world, harness.config), { signal }),
  );
}

/** What the contract demands of a ProviderDefinition. */
export const definitionClauses: readonly Clause<DefinitionWorld>[] = [
  {
    id: "definition.spec",
    clause: "`spec` is the version of the contract, v1.",
    run: async ({ judge, harness }) =>
      judge.demand(harness.provider.spec === "v1", `spec ${String(harness.provider.spec)}`),
  },
  {
    id: "definition.name",
    clause: "`name` is the product's name in lower case, with hyphens.",
    run: async ({ judge, harness: { provider } }) =>
      judge.demand(/^[a-z][a-z0-9-]*$/.test(provider.name), `name ${provider.name}`),
  },
  {
    id: "definition.sides",
    clause: "A provider is a source, a target or both.",
    run: async ({ judge, harness: { provider } }) =>
      judge.demand(provider.source !== undefined || provider.target !== undefined, "neither source nor target"),
  },
  {
    id: "definition.config.accepts",
    clause: "The schema accepts good options.",
    run: async (world) => {
      await configOf(world, world.harness.config);
    },
  },
  {
    id: "definition.config.rejects",
    clause: "The schema refuses bad options with issues that have a message.",
    run: async ({ judge, harness }) => {
      const result = await harness.provider.config["~standard"].validate(harness.badConfig);
      judge.demand(result.issues !== undefined, "bad options were accepted");
      judge.demand(result.issues?.every(({ message }) => message.length > 0) === true, "an issue without a message");
    },
  },
  {
    id: "definition.uri",
    clause: "`fromUri` gives options that the schema accepts, for a URI of one of `schemes`.",
    run: async (world) => {
      const { judge, harness } = world;
      const { provider } = harness;
      if (provider.schemes === undefined && provider.fromUri === undefined)
        return judge.skip("absent: definition.schemes");
      const uri = judge.needs(harness.uri, "harness.definition.uri");
      judge.demand(
        provider.schemes?.includes(uri.slice(0, uri.indexOf(":"))) === true,
        `no scheme of ${uri} among ${String(provider.schemes)}`,
      );
      if (provider.fromUri === undefined) return judge.fail("schemes, but no fromUri");
      await configOf(world, provider.fromUri(uri));
    },
  },
  {
    id: "definition.source",
    clause: "`source` opens a connection, unless its signal is aborted.",
    run: (world) => opened(world, "source"),
  },
  {
    id: "definition.target",
    clause: "`target` opens a connection, unless its signal is aborted.",
    run: (world) => opened(world, "target"),
  },
];
