import { BackupWindow, formatPath, isProviderError } from "@diskferry/core";
import type { z } from "zod";
import { didYouMean } from "../near-miss.ts";
import { configFields } from "./config-schema.ts";

/** Names that are known at a path, for whom wrote another one. */
function knownAt(path: readonly PropertyKey[]): readonly string[] {
  const [first, , ...deeper] = path;
  const names = (place: keyof typeof configFields): string[] => configFields[place].map(({ name }) => name);
  if (path.length === 0) return names("top");
  if (path.length === 1 && (first === "receipts" || first === "defaults")) return names(first);
  return first === "jobs" && deeper.length === 0 ? names("job") : [];
}

/** What a schema found, each as a path and words. Values are never quoted. */
export function* schemaProblems(issues: readonly z.core.$ZodIssue[]): Generator<string> {
  for (const issue of issues) {
    if (issue.code === "unrecognized_keys") {
      const known = knownAt(issue.path);
      for (const key of issue.keys) {
        const near = didYouMean(key, known) || ` (known: ${known.join(", ")})`;
        yield `${formatPath([...issue.path, key])}: is not known${near}`;
      }
    } else {
      yield `${formatPath(issue.path)}: ${wordsOf(issue)}`;
    }
  }
}

function wordsOf(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_value") return `has to be ${issue.values.join(" or ")}`;
  if (issue.code !== "invalid_type") return issue.message;
  const wanted = {
    int: "a whole number",
    number: "a whole number",
    string: "text",
    object: "a mapping",
    record: "a mapping",
    array: "a list",
  };
  const name = Object.hasOwn(wanted, issue.expected) ? wanted[issue.expected as keyof typeof wanted] : issue.expected;
  return issue.input === undefined && issue.message.endsWith("received undefined")
    ? `is missing; it has to be ${name}`
    : `has to be ${name}`;
}

const jobName = /^[A-Za-z0-9_][A-Za-z0-9._@+-]{0,99}$/;

/** What is wrong with the names of jobs and with their windows, which may be put together from defaults. */
export function* jobProblems(config: unknown): Generator<string> {
  const { jobs, defaults } = membersOf(config);
  for (const [id, job] of Object.entries(membersOf(jobs))) {
    if (!jobName.test(id)) yield `${formatPath(["jobs", id])}: a job's name has letters, digits and . _ @ + - alone`;
    const own = membersOf(job);
    const shared = membersOf(defaults);
    const window = own["window"] ?? shared["window"];
    const timeZone = own["timeZone"] ?? shared["timeZone"];
    if (typeof window !== "string" || (timeZone !== undefined && typeof timeZone !== "string")) continue;
    try {
      BackupWindow.parse(window, { timeZone });
    } catch (error) {
      if (!isProviderError(error)) throw error;
      const name = error.message.startsWith("there is no time zone") ? "timeZone" : "window";
      yield `${formatPath(own[name] === undefined ? ["defaults", name] : ["jobs", id, name])}: ${error.message}`;
    }
  }
}

/** The members of a mapping; none of anything else. */
export function membersOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
