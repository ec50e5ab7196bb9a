import { ProviderError } from "../provider/error.ts";

/** The versions of the provider contract that this core can work with, oldest first. */
export const supportedSpecs: readonly string[] = ["v1"];

/** The same in words: `v1`, `v1 and v2`, `v1, v2 and v3`. */
export function specsInWords(specs: readonly string[] = supportedSpecs): string {
  return specs.length < 2 ? specs.join("") : `${specs.slice(0, -1).join(", ")} and ${specs.at(-1)}`;
}

/**
 * The error for a provider of another contract than ours: says which side is the older one and what to install.
 * `source` names the package, or the definition where there is none.
 */
export function specMismatch(
  source: { package?: string | undefined; name?: string | undefined },
  spec: unknown,
  specs: readonly string[] = supportedSpecs,
): ProviderError {
  const what = source.package ?? `provider "${source.name ?? "without a name"}"`;
  const isNewer = numberOf(spec) > numberOf(specs.at(-1));
  const outdated = isNewer ? "@diskferry/core" : source.package;
  const remedy = outdated === undefined ? "update it" : `run: npm install ${outdated}@latest`;
  const given = typeof spec === "string" ? spec.slice(0, 20) : "none";
  const message = `${what} was written for spec ${given}, and this @diskferry/core supports ${specsInWords(specs)}; ${remedy}`;
  return new ProviderError("UNSUPPORTED", message, { provider: source.name, operation: "load provider" });
}

function numberOf(spec: unknown): number {
  const match = typeof spec === "string" ? /^v(\d{1,6})$/.exec(spec) : null;
  return match === null ? 0 : Number(match[1]);
}
