import { ProviderError } from "../provider/error.ts";
import { formatPath } from "./config.ts";

/** Configurations are shallow; what is deeper is a cycle or an attack. */
const deepest = 64;

/**
 * A copy of configuration data in which `${NAME}` inside strings, at any depth, is replaced by the environment's
 * variable of that name. `$${NAME}` stands for the text `${NAME}`. Names of members are left alone, and what came from
 * a variable is not looked at again.
 * @throws ProviderError CONFIG_INVALID naming every variable that is not set, with the paths where it is used.
 */
export function expandEnvironment(
  value: unknown,
  env: Readonly<Record<string, string | undefined>> = process.env,
): unknown {
  const problems: string[] = [];

  const text = (given: string, path: readonly PropertyKey[]): string =>
    given.replace(/\$\$\{|\$\{([^}]*)\}?/g, (whole: string, name: string | undefined) => {
      if (name === undefined) return "${";
      if (!whole.endsWith("}") || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
        problems.push(
          `  ${formatPath(path)}: a "\${" that names no variable; write \${NAME}, or $\${ for the text itself`,
        );
        return whole;
      }
      const found = Object.hasOwn(env, name) ? env[name] : undefined;
      if (found === undefined) problems.push(`  ${formatPath(path)}: ${name} is not set`);
      return found ?? whole;
    });

  const expand = (given: unknown, path: readonly PropertyKey[]): unknown => {
    if (typeof given === "string") return text(given, path);
    if (typeof given !== "object" || given === null) return given;
    if (path.length >= deepest) {
      problems.push(`  ${formatPath(path.slice(0, 4))}…: nested deeper than ${deepest} levels`);
      return given;
    }
    if (Array.isArray(given)) return given.map((member: unknown, index) => expand(member, [...path, index]));
    const prototype: unknown = Object.getPrototypeOf(given);
    // A Date or another object with a nature of its own is no configuration data of ours to rebuild.
    if (prototype !== Object.prototype && prototype !== null) return given;
    return Object.fromEntries(Object.entries(given).map(([name, member]) => [name, expand(member, [...path, name])]));
  };

  const expanded = expand(value, []);
  if (problems.length === 0) return expanded;
  throw new ProviderError(
    "CONFIG_INVALID",
    `the configuration needs environment variables that it cannot have; set them and run again:\n${problems.join("\n")}`,
    { operation: "expand environment" },
  );
}
