import type { ProviderDefinition } from "../provider/definition.ts";
import { ProviderError } from "../provider/error.ts";
import { specMismatch, supportedSpecs } from "./specs.ts";

const providerName = /^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/;
/** RFC 3986, section 3.1, in lower case; of two letters at least, because one is a drive of Windows. */
const schemeName = /^[a-z][a-z0-9+.-]+$/;

/**
 * Checks that something is a provider definition of a supported spec and returns it. It is judged by its members alone,
 * so a definition made with another copy of core is as good as one of ours.
 * @throws ProviderError UNSUPPORTED for another spec, CONFIG_INVALID naming every member that is wrong.
 */
export function checkDefinition(value: unknown, source: { package?: string | undefined } = {}): ProviderDefinition {
  const found = (typeof value === "object" || typeof value === "function") && value !== null ? value : {};
  const given = found as { readonly [Member in keyof ProviderDefinition]?: unknown };
  const name = typeof given.name === "string" ? given.name : undefined;
  const where = source.package ?? (name === undefined ? "a provider" : `provider "${name}"`);
  const invalid = (problems: readonly string[]): ProviderError =>
    new ProviderError("CONFIG_INVALID", `${where} is no valid provider: ${problems.join("; ")}. Tell its author`, {
      provider: name,
      operation: "load provider",
    });
  if (found !== value) throw invalid(["it is no object; a package exports its definition as `provider`"]);
  if (typeof given.spec !== "string") throw invalid(["its member spec is missing"]);
  if (!supportedSpecs.includes(given.spec)) throw specMismatch({ ...source, name }, given.spec);

  const problems: string[] = [];
  if (name === undefined || !providerName.test(name)) problems.push("its name must be like aws-ebs, in lower case");
  if (!isStandardSchema(given.config)) problems.push("its config must be a Standard Schema (zod, valibot, arktype …)");
  for (const member of ["fromUri", "source", "target"] as const) {
    if (given[member] !== undefined && typeof given[member] !== "function")
      problems.push(`its ${member} is no function`);
  }
  if (given.source === undefined && given.target === undefined) problems.push("it has neither source nor target");
  if (given.schemes !== undefined && !isSchemes(given.schemes)) {
    problems.push("its schemes must be a list of at least two lower-case letters each, without the colon");
  } else if (given.schemes !== undefined && given.fromUri === undefined) {
    problems.push("it has schemes but no fromUri");
  }
  if (problems.length > 0) throw invalid(problems);
  // Every member was checked above; a promise to keep their types cannot be.
  return found as ProviderDefinition;
}

function isStandardSchema(value: unknown): boolean {
  // Some libraries make schemas that are functions.
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false;
  const standard = (value as { "~standard"?: { version?: unknown; validate?: unknown } })["~standard"];
  return typeof standard === "object" && standard !== null && typeof standard.validate === "function";
}

function isSchemes(value: unknown): boolean {
  return Array.isArray(value) && value.every((scheme) => typeof scheme === "string" && schemeName.test(scheme));
}
