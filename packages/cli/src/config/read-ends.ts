import { resolve } from "node:path";
import {
  type ConfigProblem,
  configProblems,
  formatPath,
  isProviderError,
  type ProviderDefinition,
} from "@diskferry/core";
import { z } from "zod";
import { absoluteName } from "../jobs/disk-names.ts";
import type { EndSpec } from "../jobs/job-spec.ts";
import { didYouMean } from "../near-miss.ts";
import type { Providers } from "../providers.ts";
import { membersOf } from "./config-problems.ts";

/** What reading ends needs, and where it says what is wrong. */
export interface EndsContext {
  folder: string;
  providers: Providers;
  problems: string[];
}

/** Finds the provider of every end and has it check its options, whatever else is wrong with the file. */
export async function readEnds(config: unknown, context: EndsContext): Promise<Map<string, EndSpec>> {
  const ends = new Map<string, EndSpec>();
  const jobs = membersOf(membersOf(config)["jobs"]);
  for (const [id, job] of Object.entries(jobs)) {
    for (const side of ["source", "target"] as const) {
      const path = ["jobs", id, side];
      const end = await readEnd(membersOf(job)[side], side, path, context);
      if (end !== undefined) ends.set(endKey(id, side), end);
    }
  }
  return ends;
}

async function readEnd(
  given: unknown,
  side: "source" | "target",
  path: readonly string[],
  context: EndsContext,
): Promise<EndSpec | undefined> {
  const { folder, providers, problems } = context;
  try {
    let end: EndSpec;
    if (typeof given === "string" && given !== "") {
      const label = absoluteName(given, folder);
      end = { label, ...(await providers.resolve(label)) };
    } else {
      const { provider, ...options } = membersOf(given);
      // The schema has said what is wrong with anything else.
      if (typeof provider !== "string" || provider === "") return undefined;
      const definition = await providers.named(provider);
      end = {
        definition,
        options: pathsFrom(folder, definition, options),
        label: `${side} of ${path[1]} (${provider})`,
      };
    }
    if (end.definition[side] === undefined)
      problems.push(`${formatPath(path)}: provider "${end.definition.name}" is no ${side}`);
    const found = await configProblems(end.definition, end.options);
    for (const problem of found) {
      const near = nearOptions(end.definition, problem);
      problems.push(`${formatPath([...path, ...problem.path])}: ${problem.message}${near}`);
    }
    return end;
  } catch (error) {
    if (!isProviderError(error)) throw error;
    problems.push(`${formatPath(path)}: ${error.message}`);
    return undefined;
  }
}

/** The built-in provider takes relative paths from the working folder; in a file they start from the file's. */
function pathsFrom(
  folder: string,
  definition: ProviderDefinition,
  options: Record<string, unknown>,
): Record<string, unknown> {
  if (definition.name !== "local") return options;
  const placed = { ...options };
  for (const name of ["path", "directory"]) {
    const path = options[name];
    if (typeof path === "string" && path !== "") placed[name] = resolve(folder, path);
  }
  if (Array.isArray(options["disks"])) {
    placed["disks"] = options["disks"].map((disk: unknown) =>
      typeof disk === "object" && disk !== null ? pathsFrom(folder, definition, membersOf(disk)) : disk,
    );
  }
  return placed;
}

/** What may have been meant by a name that a provider does not know, where its schema is one of zod's and tells. */
function nearOptions(definition: ProviderDefinition, { path, message }: ConfigProblem): string {
  if (!/^unrecognized keys?/i.test(message) || !(definition.config instanceof z.ZodType)) return "";
  let known: unknown;
  try {
    known = z.toJSONSchema(definition.config, { io: "input", unrepresentable: "any" });
  } catch {
    // A schema that cannot be written as JSON Schema tells no names, and the message stands without them.
    return "";
  }
  for (const key of path) {
    const { properties, items } = membersOf(known);
    known = typeof key === "number" ? items : membersOf(properties)[String(key)];
  }
  const names = Object.keys(membersOf(membersOf(known)["properties"]));
  return [...message.matchAll(/"([^"]*)"/g)].map(([, name = ""]) => didYouMean(name, names)).join("");
}

/** Under which a side of a job is found. */
export const endKey = (id: string, side: string): string => `${side} ${id}`;
