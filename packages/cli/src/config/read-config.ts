import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import {
  configProblems,
  expandEnvironment,
  formatPath,
  isProviderError,
  isSecretName,
  ProviderError,
  type ProviderDefinition,
} from "@diskferry/core";
import { LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import type { CommandIo } from "../command-io.ts";
import { absoluteName } from "../jobs/disk-names.ts";
import type { EndSpec, JobSpec } from "../jobs/job-spec.ts";
import { defined } from "../jobs/defined.ts";
import { didYouMean } from "../near-miss.ts";
import { Providers } from "../providers.ts";
import { defaultStateFolder } from "../state-folder.ts";
import { type Config, configFields, configSchema, type JobConfig } from "./config-schema.ts";

export interface ReadConfigOptions {
  io: Pick<CommandIo, "env">;
  /** Providers to load besides those that are named. */
  packages?: readonly string[];
  /** Told the values that must not be shown. */
  hide?: (secrets: readonly string[]) => void;
}

/** What a configuration file says. */
export interface ReadConfig {
  jobs: JobSpec[];
  concurrency: number;
}

/** A configuration is small; what is larger is some other file. */
const mostBytes = 1 << 20;
const defaultConcurrency = 2;

/**
 * Reads a configuration file. Relative paths in it start from its own folder.
 * @throws ProviderError NOT_FOUND or DENIED for the file, CONFIG_INVALID with everything that is wrong in it.
 */
export async function readConfig(path: string, options: ReadConfigOptions): Promise<ReadConfig> {
  const folder = dirname(path);
  const given = parseYaml(path, await textOf(path));
  const problems: string[] = [];
  const expanded = expand(given, options, problems);
  const checked = configSchema.safeParse(expanded);
  const unsetCount = problems.length;
  const unset = new Set(problems.map(pathIn));
  if (!checked.success) problems.push(...problemsOf(checked.error.issues));
  const providers = new Providers(folder, options.packages);
  const ends = await readEnds(expanded, { folder, providers, problems });
  if (problems.length > 0 || !checked.success) {
    // Of a text that misses its variable nothing else can be said.
    throw invalid(
      path,
      problems.filter((problem, index) => index < unsetCount || !unset.has(pathIn(problem))),
    );
  }
  return {
    jobs: Object.entries(checked.data.jobs).map(([id, job]) => specOf(id, job, checked.data, ends, folder, options.io)),
    concurrency: checked.data.concurrency ?? defaultConcurrency,
  };
}

async function textOf(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    const { code } = cause as { code?: unknown };
    const [kind, why] =
      code === "ENOENT"
        ? (["NOT_FOUND", "does not exist; check the path"] as const)
        : code === "EISDIR"
          ? (["CONFIG_INVALID", "is a directory; name the file in it"] as const)
          : (["DENIED", `cannot be read (${String(code)}); check its permissions`] as const);
    throw new ProviderError(kind, `the configuration file ${path} ${why}`, { operation: "read configuration", cause });
  }
  if (bytes.byteLength <= mostBytes) return bytes.toString();
  throw invalid(path, [`the file has ${bytes.byteLength} bytes, and a configuration at most ${mostBytes}`]);
}

function parseYaml(path: string, text: string): unknown {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, uniqueKeys: true, prettyErrors: false, merge: true });
  if (document.errors.length > 0) {
    throw invalid(
      path,
      document.errors.map(({ pos, message }) => {
        const { line, col } = lineCounter.linePos(pos[0]);
        return `line ${line}, column ${col}: ${message}`;
      }),
    );
  }
  try {
    return document.toJS({ maxAliasCount: 100 }) as unknown;
  } catch (error) {
    throw invalid(path, [(error as Error).message]);
  }
}

/** Puts variables in, and has those hidden whose names are those of secrets. */
function expand(given: unknown, { io, hide }: ReadConfigOptions, problems: string[]): unknown {
  const used = new Set(
    JSON.stringify(given ?? null)
      .matchAll(/\$\{(\w+)\}/g)
      .map((match) => match[1]!),
  );
  hide?.([...used].filter((name) => isSecretName(name)).flatMap((name) => io.env[name] ?? []));
  try {
    return expandEnvironment(given, io.env);
  } catch (error) {
    if (!isProviderError(error)) throw error;
    problems.push(
      ...error.message
        .split("\n")
        .slice(1)
        .map((line) => line.trim()),
    );
    return given;
  }
}

/** Names that are known at a path, for whom wrote another one. */
function knownAt(path: readonly PropertyKey[]): readonly string[] {
  const [first, , ...deeper] = path;
  const names = (place: keyof typeof configFields): string[] => configFields[place].map(({ name }) => name);
  if (path.length === 0) return names("top");
  if (path.length === 1 && (first === "receipts" || first === "defaults")) return names(first);
  return first === "jobs" && deeper.length === 0 ? names("job") : [];
}

function* problemsOf(issues: readonly z.core.$ZodIssue[]): Generator<string> {
  for (const issue of issues) {
    if (issue.code === "unrecognized_keys") {
      const known = knownAt(issue.path);
      for (const key of issue.keys) {
        const near = didYouMean(key, known) || ` (known: ${known.join(", ")})`;
        yield `${formatPath([...issue.path, key])}: is not known${near}`;
      }
    } else if (issue.code === "invalid_key") {
      yield `${formatPath(issue.path)}: ${issue.issues.map(({ message }) => message).join("; ")}`;
    } else {
      yield `${formatPath(issue.path)}: ${wordsOf(issue)}`;
    }
  }
}

function wordsOf(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_value") return `has to be ${issue.values.join(" or ")}`;
  if (issue.code !== "invalid_type") return issue.message;
  const wanted = { int: "a whole number", string: "text", object: "a mapping", record: "a mapping", array: "a list" };
  const name = Object.hasOwn(wanted, issue.expected) ? wanted[issue.expected as keyof typeof wanted] : issue.expected;
  return issue.input === undefined && issue.message.endsWith("received undefined")
    ? `is missing; it has to be ${name}`
    : `has to be ${name}`;
}

interface EndsContext {
  folder: string;
  providers: Providers;
  problems: string[];
}

/** Finds the provider of every end and has it check its options, whatever else is wrong with the file. */
async function readEnds(config: unknown, context: EndsContext): Promise<Map<string, EndSpec>> {
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
    problems.push(...found.map((problem) => `${formatPath([...path, ...problem.path])}: ${problem.message}`));
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

function specOf(
  id: string,
  job: JobConfig,
  config: Config,
  ends: Map<string, EndSpec>,
  folder: string,
  io: Pick<CommandIo, "env">,
): JobSpec {
  const { mode, verify, digest, onTrackingLost, consistency, parallelDisks, workers, ...rest } = {
    ...config.defaults,
    ...defined(job),
  };
  return {
    id,
    source: ends.get(endKey(id, "source"))!,
    target: ends.get(endKey(id, "target"))!,
    state: config.state === undefined ? defaultStateFolder(io) : resolve(folder, config.state),
    ...defined({
      machine: rest.machine,
      disks: rest.disks,
      bytesPerSecond: rest.bandwidth,
      window: rest.window,
      timeZone: rest.timeZone,
      everyMs: rest.every,
      receipts: config.receipts === undefined ? undefined : resolve(folder, config.receipts.directory),
      receiptKey: config.receipts?.key === undefined ? undefined : resolve(folder, config.receipts.key),
    }),
    options: defined({ mode, verify, digest, onTrackingLost, consistency, parallelDisks, workers }),
  };
}

const pathIn = (problem: string): string => problem.slice(0, problem.indexOf(": "));

const endKey = (id: string, side: string): string => `${side} ${id}`;

function membersOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function invalid(path: string, problems: readonly string[]): ProviderError {
  return new ProviderError(
    "CONFIG_INVALID",
    `the configuration file ${path} is not valid; mend these and run again:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
    { operation: "read configuration" },
  );
}
