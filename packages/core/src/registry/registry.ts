import type { ProviderContext, ProviderDefinition } from "../provider/definition.ts";
import { ProviderError } from "../provider/error.ts";
import type { SourceConnector } from "../provider/source.ts";
import type { TargetProvider } from "../provider/target.ts";
import { validateConfig } from "./config.ts";
import { checkDefinition } from "./definition.ts";
import { knownProviders } from "./known-providers.ts";
import { parseUri, unknownScheme } from "./uri.ts";
import type { DiskUri } from "./uri.ts";

/** A URI and the provider that answers to it. */
export interface ResolvedUri {
  uri: DiskUri;
  definition: ProviderDefinition;
  /** What the provider's `fromUri` made of it, not validated yet. */
  options: unknown;
}

/** The providers that a program knows, by name and by URI scheme. */
export class Registry {
  readonly #byName = new Map<string, ProviderDefinition>();
  readonly #byScheme = new Map<string, ProviderDefinition>();

  constructor(definitions: Iterable<ProviderDefinition> = []) {
    for (const definition of definitions) this.register(definition);
  }

  /**
   * Adds a provider; the very same one again changes nothing.
   * @throws ProviderError EXISTS when its name or a scheme is taken, UNSUPPORTED or CONFIG_INVALID when it is not valid.
   */
  register(definition: ProviderDefinition): this {
    checkDefinition(definition);
    const { name, schemes = [] } = definition;
    if (this.#byName.get(name) === definition) return this;
    if (this.#byName.has(name)) {
      throw taken(`a provider "${name}" is registered already; register one of the two, and see: npm ls --all`, name);
    }
    for (const scheme of schemes) {
      const other = this.#byScheme.get(scheme);
      if (other === undefined) continue;
      throw taken(`provider "${name}" claims the scheme "${scheme}:", which belongs to "${other.name}"`, name);
    }
    this.#byName.set(name, definition);
    for (const scheme of schemes) this.#byScheme.set(scheme, definition);
    return this;
  }

  /** The provider of this name. @throws ProviderError NOT_FOUND naming those that are there, and the package to install. */
  get(name: string): ProviderDefinition {
    const found = this.#byName.get(name);
    if (found !== undefined) return found;
    const known = knownProviders.find((each) => each.name === name);
    const remedy =
      known === undefined
        ? "check the name, or register the provider first"
        : `run: npm install ${known.package}, and register it`;
    const present = [...this.#byName.keys()].toSorted().join(", ") || "none";
    throw new ProviderError("NOT_FOUND", `no provider "${name}" is registered (there: ${present}); ${remedy}`, {
      operation: "find provider",
    });
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** All providers, in the order of their registration. */
  list(): readonly ProviderDefinition[] {
    return [...this.#byName.values()];
  }

  /** All URI schemes that can be resolved. */
  schemes(): readonly string[] {
    return [...this.#byScheme.keys()];
  }

  /**
   * Finds the provider of a disk named by a URI or path, and the options it stands for.
   * @throws ProviderError CONFIG_INVALID when the URI is not valid, holds a secret or has an unknown scheme.
   */
  resolve(text: string): ResolvedUri {
    const uri = parseUri(text);
    const definition = this.#byScheme.get(uri.scheme);
    if (definition?.fromUri === undefined) throw unknownScheme(uri, this.schemes());
    return { uri, definition, options: definition.fromUri(text) };
  }
}

/**
 * Checks the options and opens the provider as a source.
 * @throws ProviderError UNSUPPORTED when it is none, CONFIG_INVALID when the options are not valid, and whatever the
 * provider rejects with.
 */
export async function openSource<Config, Options>(
  definition: ProviderDefinition<Config, Options>,
  options: NoInfer<Options>,
  context: ProviderContext = {},
): Promise<SourceConnector> {
  if (definition.source === undefined) throw cannot(definition, "read from, only written to");
  return definition.source(await validateConfig(definition, options), context);
}

/** The same as {@link openSource} for a target. */
export async function openTarget<Config, Options>(
  definition: ProviderDefinition<Config, Options>,
  options: NoInfer<Options>,
  context: ProviderContext = {},
): Promise<TargetProvider> {
  if (definition.target === undefined) throw cannot(definition, "written to, only read from");
  return definition.target(await validateConfig(definition, options), context);
}

function cannot(definition: ProviderDefinition, what: string): ProviderError {
  const message = `provider "${definition.name}" cannot be ${what}; choose another one for this end`;
  return new ProviderError("UNSUPPORTED", message, { provider: definition.name, operation: "open provider" });
}

function taken(message: string, provider: string): ProviderError {
  return new ProviderError("EXISTS", message, { provider, operation: "register provider" });
}
