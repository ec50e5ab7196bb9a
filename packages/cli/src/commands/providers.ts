import { knownProviders, supportedSpecs } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";
import type { Command } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { Providers } from "../providers.ts";
import { table } from "../table.ts";

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
