import { parseArgs } from "node:util";
import type { OptionSpec } from "./command.ts";
import { didYouMean } from "./near-miss.ts";
import { usageError } from "./usage-error.ts";

/** The options that were given, by name. */
export class OptionValues {
  readonly #given: ReadonlyMap<string, readonly string[]>;

  constructor(given: ReadonlyMap<string, readonly string[]>) {
    this.#given = given;
  }

  flag(name: string): boolean {
    return this.#given.has(name);
  }

  text(name: string): string | undefined {
    return this.#given.get(name)?.at(-1);
  }

  list(name: string): readonly string[] {
    return this.#given.get(name) ?? [];
  }

  /** One of a few words. @throws ProviderError CONFIG_INVALID naming them. */
  choice<Word extends string>(name: string, words: readonly Word[]): Word | undefined {
    const given = this.text(name);
    if (given === undefined) return undefined;
    const found = words.find((word) => word === given);
    if (found !== undefined) return found;
    throw usageError(
      `--${name} is ${JSON.stringify(given)}; it has to be ${words.join(" or ")}${didYouMean(given, words)}`,
    );
  }

  /** What `read` makes of the text. @throws ProviderError CONFIG_INVALID where it makes nothing of it. */
  read<Value>(name: string, read: (text: string) => Value | undefined, form: string): Value | undefined {
    const given = this.text(name);
    if (given === undefined) return undefined;
    const value = read(given);
    if (value === undefined) throw usageError(`--${name} is ${JSON.stringify(given)}; it has to be ${form}`);
    return value;
  }
}

/**
 * Takes arguments apart. @throws ProviderError CONFIG_INVALID naming every option that is unknown, with what may have
 * been meant, that lacks its value, has one too many or is given twice.
 */
export function readArguments(
  args: readonly string[],
  options: Readonly<Record<string, OptionSpec>>,
  command: string,
): { positionals: string[]; options: OptionValues } {
  const config = Object.fromEntries(
    Object.entries(options).map(([name, { value, short }]) => [
      name,
      {
        type: value === undefined ? "boolean" : "string",
        multiple: true,
        ...(short === undefined ? {} : { short }),
      } as const,
    ]),
  );
  const { tokens } = parseArgs({
    args: [...args],
    options: config,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const problems: string[] = [];
  const given = new Map<string, string[]>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const { name, rawName, value } = token;
    const spec = Object.hasOwn(options, name) ? options[name] : undefined;
    if (spec === undefined) {
      const known = Object.keys(options).map((each) => `--${each}`);
      problems.push(`there is no option ${rawName}${didYouMean(rawName, known)}`);
    } else if (spec.value === undefined) {
      if (value !== undefined) problems.push(`${rawName} takes no value`);
      given.set(name, []);
    } else if (value === undefined || (!token.inlineValue && value.startsWith("--"))) {
      problems.push(`${rawName} needs a value: ${rawName} <${spec.value}>`);
    } else {
      const values = given.get(name) ?? [];
      if (values.length > 0 && spec.multiple === undefined) problems.push(`${rawName} is given twice`);
      given.set(name, [...values, value]);
    }
  }
  if (problems.length > 0)
    throw usageError(`${problems.join("; ")}; see: diskferry help${command === "" ? "" : ` ${command}`}`);
  return { positionals, options: new OptionValues(given) };
}
