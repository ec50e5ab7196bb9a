import { createHash } from "node:crypto";

/** What a name of ours tells: the job that made it, the key it was made for, and one more word for some. */
export interface OwnName {
  job: string;
  key: string;
  note: string | undefined;
}

const KEY_LENGTH = 24;
const JOB_LENGTH = 12;
const NO_JOB = "0".repeat(JOB_LENGTH);

function hash(text: string, length: number): string {
  return createHash("sha256").update(text).digest("hex").slice(0, length);
}

/** The part of a name that stands for a key. */
export function keyMark(...key: readonly string[]): string {
  return hash(key.join("\0"), KEY_LENGTH);
}

/** The part of a name that stands for a job. */
export function jobMark(job: string | undefined): string {
  return job === undefined ? NO_JOB : hash(`job\0${job}`, JOB_LENGTH);
}

/** The searchable end of a name, `df-JOB-KEY`, and a word after it. */
export function ownName(job: string | undefined, key: string, note?: string): string {
  return `df-${jobMark(job)}-${key}${note === undefined ? "" : `-${note}`}`;
}

/** A name for people with our end to it, of at most `longest` characters. */
export function readableName(label: string | undefined, end: string, longest = 120): string {
  const clean = (label ?? "").replace(/[^\p{L}\p{N} ._-]+/gu, " ").trim();
  const start = clean.slice(0, Math.max(0, longest - end.length - 1)).trim();
  return start === "" ? end : `${start} ${end}`;
}

/** A host name (RFC 1123) with our end to it: of machines, which take letters, digits and hyphens up to 63. */
export function hostName(label: string | undefined, end: string): string {
  const clean = (label ?? "")
    .normalize("NFKD")
    .replace(/[^A-Za-z0-9-]+/g, "-")
    .replace(/^[^A-Za-z]+|-+$/g, "");
  const start = clean.slice(0, 63 - end.length - 1).replace(/-+$/, "");
  return start === "" ? end : `${start}-${end}`;
}

/**
 * The name of a template, which old releases let have 32 characters: the start of {@link ownName}, with two thirds of its key.
 */
export function templateName(job: string, key: string): string {
  return `df-${job}-${key.slice(0, 16)}`;
}

/** The job's mark in what {@link templateName} made; undefined for a name that is none of ours. */
export function jobOfTemplate(name: string): string | undefined {
  return /^df-([0-9a-f]{12})-[0-9a-f]{16}$/.exec(name)?.[1];
}

/** Reads what {@link ownName} wrote at a name's end; undefined for a name that is none of ours. */
export function readOwnName(name: string): OwnName | undefined {
  const found = /(?:^|[ -])df-([0-9a-f]{12})-([0-9a-f]{24})(?:-([a-z0-9]+))?$/.exec(name);
  const [, job, key, note] = found ?? [];
  return job === undefined || key === undefined ? undefined : { job, key, note };
}
