import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { expandEnvironment, isProviderError, isSecretName, ProviderError } from "@diskferry/core";
import { isAlias, isCollection, isNode, LineCounter, parseDocument, visit, type YAMLError } from "yaml";
import type { CommandIo } from "../command-io.ts";
import type { EndSpec, JobSpec } from "../jobs/job-spec.ts";
import { defined } from "../jobs/defined.ts";
import { Providers } from "../providers.ts";
import { defaultStateFolder } from "../state-folder.ts";
import { readAgentSections } from "./agent-sections.ts";
import { jobProblems, schemaProblems } from "./config-problems.ts";
import { type Config, configSchema, type JobConfig } from "./config-schema.ts";
import { endKey, readEnds } from "./read-ends.ts";

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
  /** What was read otherwise than its name says, for people. */
  notes: readonly string[];
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
  const unexpanded = expand(given, options, problems);
  const unsetCount = problems.length;
  const { config: expanded, notes } = readAgentSections(unexpanded, problems);
  const checked = configSchema.safeParse(expanded);
  const unset = new Set(problems.slice(0, unsetCount).map(pathIn));
  if (!checked.success) problems.push(...schemaProblems(checked.error.issues));
  problems.push(...jobProblems(expanded));
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
    notes,
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
  const problems: { at: number; words: string }[] = [];
  for (const error of [...document.errors, ...document.warnings]) {
    problems.push({ at: error.pos[0], words: wordsOf(error) });
  }
  const anchors = new Set<string>();
  visit(document, (place, node) => {
    // The parser would make one text of it, and warn on standard error.
    if (place === "key" && isCollection(node)) {
      problems.push({ at: node.range?.[0] ?? 0, words: "this is no name; was a {{ }} of a template left unfilled?" });
    }
    if (isAlias(node) && !anchors.has(node.source)) {
      problems.push({ at: node.range?.[0] ?? 0, words: "* names no anchor; put a text that begins with * in quotes" });
    } else if (isNode(node) && !isAlias(node) && node.anchor !== undefined) anchors.add(node.anchor);
  });
  if (problems.length > 0) {
    throw invalid(
      path,
      problems
        .toSorted((one, other) => one.at - other.at)
        .map(({ at, words }) => {
          const { line, col } = lineCounter.linePos(at);
          return `line ${line}, column ${col}: ${words}`;
        }),
    );
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw invalid(path, [(error as Error).message]);
  }
  try {
    JSON.stringify(value);
    return value;
  } catch {
    throw invalid(path, ["an alias stands inside of what it names, so that there is no end to it"]);
  }
}

/** What the parser found, without what it quotes of the text, which may be part of a secret. */
function wordsOf({ code, message }: YAMLError): string {
  if (code === "TAG_RESOLVE_FAILED")
    return "! begins a tag, and none is known here; put a text that begins with ! in quotes";
  if (code === "BAD_DQ_ESCAPE")
    return "a backslash in double quotes begins no known escape; write it twice, or use single quotes";
  return code === "UNEXPECTED_TOKEN" ? message.replace(/: .*$/s, "") : message;
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

function specOf(
  id: string,
  job: JobConfig,
  config: Config,
  ends: Map<string, EndSpec>,
  folder: string,
  io: Pick<CommandIo, "env">,
): JobSpec {
  const { mode, verify, digest, onTrackingLost, canary, consistency, parallelDisks, workers, ...rest } = {
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
    options: defined({ mode, verify, digest, onTrackingLost, canary, consistency, parallelDisks, workers }),
  };
}

const pathIn = (problem: string): string => problem.slice(0, problem.indexOf(": "));

function invalid(path: string, problems: readonly string[]): ProviderError {
  return new ProviderError(
    "CONFIG_INVALID",
    `the configuration file ${path} is not valid; mend these and run again:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
    { operation: "read configuration" },
  );
}
