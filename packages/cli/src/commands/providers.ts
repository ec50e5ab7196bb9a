import { spawn } from "node:child_process";
import {
  discoverProviders,
  type DiscoveredProvider,
  knownProviders,
  loadProvider,
  ProviderError,
  supportedSpecs,
} from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";
import type { Command } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { Providers } from "../providers.ts";
import { table } from "../table.ts";
import { usageError } from "../usage-error.ts";

/** One provider, there or not. */
interface ProviderEntry {
  name: string;
  package: string;
  version: string | undefined;
  spec: string | undefined;
  state: "built in" | "installed" | "not installed" | "unusable";
  schemes: readonly string[];
  detail: string | undefined;
}

/** Lists providers. */
export const providers: Command = {
  name: "providers",
  summary: "list providers: the built-in one, those of this project, those installed here",
  usage: [""],
  options: {},
  async run({ io, output }) {
    const discovered = await new Providers(io.cwd).discovered();
    const entries: ProviderEntry[] = knownProviders.map(({ name, package: from, schemes }) => {
      const found = discovered.find((each) => each.package === from);
      const isBuiltIn = name === local.name;
      return {
        name,
        package: from,
        version: found?.version,
        spec: isBuiltIn ? local.spec : found?.spec,
        state: isBuiltIn
          ? "built in"
          : found === undefined
            ? "not installed"
            : found.problem === undefined
              ? "installed"
              : "unusable",
        schemes,
        detail: isBuiltIn || found !== undefined ? found?.problem : `npm install ${from}`,
      };
    });
    for (const found of discovered) {
      if (entries.some((entry) => entry.package === found.package)) continue;
      const { name = "?", version, spec, problem } = found;
      const state = problem === undefined ? "installed" : "unusable";
      entries.push({ name, package: found.package, version, spec, state, schemes: [], detail: problem });
    }
    const rows = entries.map(({ name, package: from, version, spec, state, schemes, detail }) => [
      name,
      state,
      spec ?? "-",
      version ?? "-",
      from,
      schemes.join(" ") || "-",
      detail ?? "-",
    ]);
    const text = table(["provider", "state", "spec", "version", "package", "schemes", "note"], rows);
    output.result(
      "providers",
      { supportedSpecs, providers: entries },
      `${text}this diskferry supports spec ${supportedSpecs.join(", ")}\n`,
    );
    return DONE;
  },
};

/** Installs a provider into this project, and checks that it is one. */
export const providersAdd: Command = {
  name: "providers add",
  summary: "install a provider into this project, and check that it is one",
  usage: ["<package>"],
  options: {},
  async run({ positionals, io, output, interrupts }) {
    const [given, ...more] = positionals;
    if (given === undefined || more.length > 0)
      throw usageError("providers add takes one package, or a provider's name");
    if (given.startsWith("-")) throw usageError(`${given} is no package`);
    const wanted = knownProviders.find(({ name }) => name === given)?.package ?? given;
    const before = await discoverProviders({ from: io.cwd });
    const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
    // What a package runs while it is installed would run before anybody looked at what it says of itself.
    await npm(["install", "--ignore-scripts", "--no-audit", "--no-fund", wanted], io.cwd, io.env, signal);
    const found = addedBy(wanted, before, await discoverProviders({ from: io.cwd }));
    if (found === undefined) {
      throw new ProviderError(
        "CONFIG_INVALID",
        `${wanted} is installed now, and is no diskferry provider: its package.json lacks the keyword diskferry-provider. Take it out again: npm uninstall ${wanted}`,
        { operation: "add provider" },
      );
    }
    const { name, spec, schemes = [] } = await loadProvider(found.package, { from: io.cwd });
    output.result(
      "providers add",
      { name, spec, package: found.package, version: found.version, schemes },
      `provider ${name} of spec ${spec}: ${found.package} ${found.version ?? ""}; URIs: ${schemes.map((scheme) => `${scheme}:`).join(" ") || "none"}\n`,
    );
    return DONE;
  },
};

/** The provider of a package's name; for a folder or tarball the one that is new. */
function addedBy(
  wanted: string,
  before: readonly DiscoveredProvider[],
  after: readonly DiscoveredProvider[],
): DiscoveredProvider | undefined {
  const name = wanted.replace(/(?<=.)@[^/]*$/, "");
  const known = (each: DiscoveredProvider): boolean =>
    before.some((old) => old.package === each.package && old.version === each.version);
  return after.find((each) => each.package === name) ?? after.find((each) => !known(each));
}

async function npm(
  args: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<void> {
  const child = spawn("npm", args, { cwd, env, signal, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const hear = (text: Buffer): void => void (said = (said + text.toString()).slice(-4000));
  child.stdout.on("data", hear);
  child.stderr.on("data", hear);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code === 0) return;
  throw new ProviderError("UNAVAILABLE", `npm ${args.join(" ")} ended with ${code}: ${said.trim()}`, {
    operation: "add provider",
  });
}
