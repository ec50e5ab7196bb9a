import type { StandardSchemaV1 } from "@standard-schema/spec";
import { ProviderError } from "../provider/error.ts";
import type { ProviderDefinition } from "../provider/definition.ts";
import { isSecretName, redacted } from "./secrets.ts";

/** How many issues a message lists before it counts the rest. */
const listedIssues = 50;
/** Configurations are shallow; what is deeper is a cycle or an attack. */
const deepest = 64;

/** One thing that is wrong with a provider's options. */
export interface ConfigProblem {
  /** Where, from the options on; empty for the whole. */
  path: readonly PropertyKey[];
  /** What; values of secret options never appear in it. */
  message: string;
}

/** Everything a provider's own schema finds wrong with options; nothing where they are valid. */
export async function configProblems(definition: ProviderDefinition, options: unknown): Promise<ConfigProblem[]> {
  const result = await definition.config["~standard"].validate(options);
  return result.issues === undefined ? [] : problemsOf(result.issues, options);
}

/**
 * Checks options against a provider's own schema and returns what the provider works with.
 * @throws ProviderError CONFIG_INVALID listing every issue with its path; values of secret options never appear in it.
 */
export async function validateConfig<Config>(
  definition: ProviderDefinition<Config>,
  options: unknown,
): Promise<Config> {
  const result = await definition.config["~standard"].validate(options);
  if (result.issues === undefined) return result.value;
  const lines = problemsOf(result.issues.slice(0, listedIssues), options).map(
    ({ path, message }) => `  ${formatPath(path)}: ${message}`,
  );
  if (result.issues.length > listedIssues) lines.push(`  and ${result.issues.length - listedIssues} more`);
  throw new ProviderError(
    "CONFIG_INVALID",
    `options of provider "${definition.name}" are not valid:\n${lines.join("\n")}`,
    { provider: definition.name, operation: "validate options" },
  );
}

function problemsOf(issues: readonly StandardSchemaV1.Issue[], options: unknown): ConfigProblem[] {
  const secrets = [...secretValues(options)];
  return issues.map(({ path, message }) => ({
    path: (path ?? []).map((part) => (typeof part === "object" ? part.key : part)),
    message: secrets.reduce((text, secret) => text.replaceAll(secret, redacted), message),
  }));
}

/** A path into nested options in words: `targets[0].host`; `(options)` for the whole. */
export function formatPath(path: readonly PropertyKey[]): string {
  const text = path
    .map((key) => {
      if (typeof key === "number") return `[${key}]`;
      const name = String(key);
      return /^[\p{L}_$][\p{L}\d_$-]*$/u.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`;
    })
    .join("");
  return text === "" ? "(options)" : text.replace(/^\./, "");
}

function* secretValues(value: unknown, secret = false, depth = 0): Generator<string> {
  if (typeof value === "string") {
    // A value of one or two letters would blacken the whole message.
    if (secret && value.length > 2) yield value;
  } else if (typeof value === "object" && value !== null && depth < deepest) {
    for (const [name, member] of Object.entries(value)) {
      yield* secretValues(member, secret || isSecretName(name), depth + 1);
    }
  }
}
