import {
  discoverProviders,
  type DiscoveredProvider,
  knownProviders,
  loadProvider,
  parseUri,
  type ProviderDefinition,
  ProviderError,
  Registry,
  type ResolvedUri,
} from "@diskferry/core";
import { nearMiss } from "./near-miss.ts";
import { provider as local } from "@diskferry/provider-local";

/** The providers a command can use: the built-in one, those that are installed in the user's project, those that are named. */
export class Providers {
  readonly #registry = new Registry([local]);
  readonly #folder: string;
  readonly #packages: readonly string[];
  readonly #loaded = new Map<string, ProviderDefinition>();
  #discovered: Promise<DiscoveredProvider[]> | undefined;

  /** `folder`: where packages are looked up from. `packages`: those to load whatever they are asked for. */
  constructor(folder: string, packages: readonly string[] = []) {
    this.#folder = folder;
    this.#packages = packages;
  }

  /**
   * The provider of a name (`local`, `aws-ebs`), a package name or a path.
   * @throws ProviderError NOT_FOUND with the command that installs it, UNSUPPORTED, CONFIG_INVALID.
   */
  async named(name: string): Promise<ProviderDefinition> {
    await this.#loadNamed();
    if (this.#registry.has(name)) return this.#registry.get(name);
    if (!knownProviders.some((known) => known.name === name)) {
      const found = (await this.discovered()).find((each) => each.name === name);
      if (found !== undefined) return this.#load(found.directory);
      // A name without a slash is that of a provider more often than that of a package.
      const near = nearMiss(
        name,
        knownProviders.map((known) => known.name),
      );
      if (near !== undefined) throw unknownProvider(name, near);
    }
    return this.#load(name);
  }

  /**
   * The provider that answers to a path or URI, and the options that stands for.
   * @throws ProviderError CONFIG_INVALID for an unknown scheme, naming those that are known.
   */
  async resolve(text: string): Promise<ResolvedUri> {
    const { scheme } = parseUri(text);
    await this.#loadNamed();
    if (!this.#registry.schemes().includes(scheme)) {
      const known = knownProviders.find(({ schemes }) => schemes.includes(scheme));
      if (known !== undefined) await this.#load(known.name);
      else await this.#loadDiscovered(scheme);
    }
    return this.#registry.resolve(text);
  }

  /** The packages that call themselves providers in the user's project. */
  discovered(): Promise<DiscoveredProvider[]> {
    this.#discovered ??= discoverProviders({ from: this.#folder });
    return this.#discovered;
  }

  async #loadNamed(): Promise<void> {
    for (const name of this.#packages) await this.#load(name);
  }

  /** Only a provider's code tells its schemes, so those that nobody asked for are loaded until one answers. */
  async #loadDiscovered(scheme: string): Promise<void> {
    for (const found of await this.discovered()) {
      if (found.problem !== undefined || knownProviders.some((known) => known.package === found.package)) continue;
      const definition = await this.#load(found.directory);
      if (definition.schemes?.includes(scheme) === true) return;
    }
  }

  async #load(name: string): Promise<ProviderDefinition> {
    let definition = this.#loaded.get(name);
    if (definition === undefined) {
      definition = name === local.name ? local : await loadProvider(name, { from: this.#folder });
      // The package of a provider that is there already, by another path.
      if (this.#registry.has(definition.name)) definition = this.#registry.get(definition.name);
      this.#registry.register(definition);
      this.#loaded.set(name, definition);
    }
    return definition;
  }
}

function unknownProvider(name: string, near: string): ProviderError {
  return new ProviderError("NOT_FOUND", `there is no provider ${name} (did you mean ${near}?)`, {
    operation: "load provider",
  });
}
