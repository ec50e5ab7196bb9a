import { randomUUID } from "node:crypto";
import { constants, existsSync } from "node:fs";
import { access, rm, stat, writeFile } from "node:fs/promises";
import { delimiter, dirname, join, resolve } from "node:path";
import {
  isProviderError,
  openDirectoryState,
  openSource,
  openTarget,
  type Preflight,
  preferredAlgorithm,
} from "@diskferry/core";
import type { Command, CommandContext } from "../command.ts";
import { readConfig } from "../config/read-config.ts";
import { DONE, exitCodeOf } from "../exit-codes.ts";
import { refuseSameDisk } from "../jobs/disk-names.ts";
import type { JobSpec } from "../jobs/job-spec.ts";
import { jobOfUris } from "../jobs/select-jobs.ts";
import { packageManifest } from "../package-manifest.ts";
import { Providers } from "../providers.ts";
import { formatBytes } from "../quantities.ts";
import { jobOptions } from "../shared-options.ts";
import { jobIds, stateFolder } from "../state-folder.ts";
import { table } from "../table.ts";
import { usageError } from "../usage-error.ts";

/** What was looked at and how it is. */
interface Finding {
  check: string;
  verdict: "ok" | "warn" | "fail";
  detail: string;
  /** What to do about it. */
  remedy?: string | undefined;
  exitCode?: number | undefined;
}

const { job: _job, machine: _machine, disk: _disk, ...options } = jobOptions;

/** Looks at everything that a copy needs. */
export const doctor: Command = {
  name: "doctor",
  summary: "look at everything a copy needs, and say what to mend",
  usage: ["[<source> <target>]", "--config <file>"],
  options,
  async run(context) {
    const { positionals, output } = context;
    if (positionals.length !== 0 && positionals.length !== 2)
      throw usageError("doctor takes a source and a target, or neither");
    const configuration: Finding[] = [];
    const jobs = (await attempt(configuration, "configuration", () => jobsOf(context))) ?? [];
    const findings: Finding[] = [
      nodeVersion(),
      ...(await stateDirectories(jobs, context)),
      nativeDigest(),
      ...programs(context),
      ...(await installed(context)),
      ...configuration,
    ];
    for (const job of jobs) findings.push(...(await ends(job, context)));
    const rows = findings.map(({ check, verdict, detail, remedy }) => [verdict, check, detail, remedy ?? ""]);
    const failed = findings.find(({ verdict }) => verdict === "fail");
    const exitCode = failed === undefined ? DONE : (failed.exitCode ?? 1);
    output.result("doctor", { healthy: failed === undefined, findings }, table(["", "check", "found", "remedy"], rows));
    return exitCode;
  },
};

async function jobsOf(context: CommandContext): Promise<readonly JobSpec[]> {
  const { positionals, options: given, io, output } = context;
  const config = given.text("config");
  if (config !== undefined) {
    const { jobs, notes } = await readConfig(resolve(io.cwd, config), {
      io,
      packages: given.list("provider"),
      hide: (secrets) => output.hide(secrets),
    });
    for (const note of notes) output.notice(note);
    return jobs;
  }
  return positionals.length === 2 ? [await jobOfUris(positionals[0]!, positionals[1]!, context)] : [];
}

/** Notes a failure and goes on. */
async function attempt<Result>(
  findings: Finding[],
  check: string,
  look: () => Promise<Result>,
): Promise<Result | undefined> {
  try {
    return await look();
  } catch (error) {
    findings.push(failure(check, error));
    return undefined;
  }
}

function failure(check: string, error: unknown): Finding {
  const message = error instanceof Error ? error.message : String(error);
  const code = isProviderError(error) ? ` [${error.code}]` : "";
  return {
    check,
    verdict: "fail",
    detail: `${message.replaceAll(/\s*\n\s*/g, "; ")}${code}`,
    exitCode: exitCodeOf(error),
  };
}

function nodeVersion(): Finding {
  const wanted = packageManifest().engines.node.replace(/^>=/, "");
  const [found = [], least = []] = [process.versions.node, wanted].map((version) => version.split(".").map(Number));
  const isNewer = found[0]! > least[0]! || (found[0] === least[0] && found[1]! >= least[1]!);
  if (isNewer) return { check: "Node.js", verdict: "ok", detail: process.versions.node };
  return {
    check: "Node.js",
    verdict: "fail",
    detail: process.versions.node,
    remedy: `install ${wanted} or newer`,
    exitCode: 5,
  };
}

/** Those that the jobs use, or the one that jobs would. */
async function stateDirectories(jobs: readonly JobSpec[], { options: given, io }: CommandContext): Promise<Finding[]> {
  const named = given.text("state");
  const folders =
    named === undefined && jobs.length > 0 ? new Set(jobs.map(({ state }) => state)) : [stateFolder(named, io)];
  const findings: Finding[] = [];
  for (const folder of folders) findings.push(...(await stateDirectory(folder)));
  return findings;
}

async function stateDirectory(folder: string): Promise<Finding[]> {
  const check = "state directory";
  if (!existsSync(folder)) {
    const above = nearestExisting(folder);
    try {
      await access(above, constants.W_OK | constants.X_OK);
      return [{ check, verdict: "ok", detail: `${folder} will be made` }];
    } catch {
      return [
        {
          check,
          verdict: "fail",
          detail: `${folder} is not there, and ${above} is not writable`,
          remedy: "name another one by --state",
          exitCode: 4,
        },
      ];
    }
  }
  const findings: Finding[] = [];
  await attempt(findings, check, async () => {
    await using store = await openDirectoryState(folder);
    const probe = join(folder, "new", randomUUID());
    await writeFile(probe, "diskferry doctor", { flush: true });
    await rm(probe);
    const ids = await jobIds(store);
    findings.push({ check, verdict: "ok", detail: `${folder}, ${ids.length} ${ids.length === 1 ? "job" : "jobs"}` });
    const { mode } = await stat(folder);
    if ((mode & 0o022) !== 0) {
      findings.push({
        check,
        verdict: "warn",
        detail: `${folder} is writable for others`,
        remedy: `chmod go-w ${folder}`,
      });
    }
  });
  return findings;
}

function nearestExisting(path: string): string {
  let above = path;
  while (!existsSync(above)) above = dirname(above);
  return above;
}

/** The native digest makes a verified copy several times as fast. */
function nativeDigest(): Finding {
  const check = "native BLAKE3";
  if (preferredAlgorithm() === "blake3") return { check, verdict: "ok", detail: "loads" };
  return {
    check,
    verdict: "warn",
    detail: "does not load; SHA-256 is used",
    remedy: "npm install @napi-rs/blake-hash, for faster verified copies",
  };
}

const usefulPrograms = [
  { program: "qemu-img", use: "looks at and converts images of other formats" },
  { program: "qemu-nbd", use: "serves images of other formats for copying" },
  { program: "nbdkit", use: "serves disks of other kinds for copying" },
];

function programs({ io }: CommandContext): Finding[] {
  const folders = (io.env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  return usefulPrograms.map(({ program, use }): Finding => {
    const found = folders.map((folder) => join(folder, program)).find((path) => existsSync(path));
    if (found !== undefined) return { check: program, verdict: "ok", detail: found };
    return {
      check: program,
      verdict: "warn",
      detail: "is not installed; no copy between raw, qcow2 and NBD needs it",
      remedy: `install it where wanted: it ${use}`,
    };
  });
}

async function installed({ io, options: given }: CommandContext): Promise<Finding[]> {
  const findings: Finding[] = [{ check: "provider local", verdict: "ok", detail: "built in" }];
  const known = new Providers(io.cwd);
  const names = new Set(given.list("provider"));
  for (const found of await known.discovered()) {
    if (found.name === "local") continue;
    if (found.problem === undefined) names.add(found.directory);
    else findings.push({ check: `provider ${found.package}`, verdict: "warn", detail: found.problem });
  }
  for (const name of names) {
    await attempt(findings, `provider ${name}`, async () => {
      const definition = await known.named(name);
      findings.push({
        check: `provider ${definition.name}`,
        verdict: "ok",
        detail: `spec ${definition.spec}, ${name}`,
      });
    });
  }
  return findings;
}

/** What a provider says of its place; the names of what it needs too, where it could not ask for what is missing. */
function asFindings(check: string, said: Preflight | undefined): Finding[] {
  if (said === undefined) return [];
  const { needed = [], missing } = said.privileges ?? {};
  const privileges: Finding[] =
    missing !== undefined && missing.length > 0
      ? [
          {
            check,
            verdict: "fail",
            detail: `missing privileges: ${missing.join(", ")}`,
            remedy: "have them granted",
            exitCode: 4,
          },
        ]
      : needed.length > 0 && missing === undefined
        ? [{ check, verdict: "ok", detail: `privileges needed, not asked for: ${needed.join(", ")}` }]
        : [];
  const verdicts = { blocker: "fail", warning: "warn", info: "ok" } as const;
  const findings = said.findings.map(({ severity, subject, message, remedy }): Finding => {
    return { check, verdict: verdicts[severity], detail: `${subject}: ${message}`, remedy };
  });
  return [...privileges, ...findings];
}

/** Opens both ends and looks at the source's machines. Nothing is written. */
async function ends(spec: JobSpec, { output, interrupts }: CommandContext): Promise<Finding[]> {
  const findings: Finding[] = [];
  const context = {
    signal: AbortSignal.any([interrupts.pause, interrupts.stop]),
    notice: (message: string) => output.notice(message, spec.id),
  };
  await attempt(findings, `source of ${spec.id}`, async () => {
    await using source = await openSource(spec.source.definition, spec.source.options, context);
    let machines = 0;
    for await (const machine of source.machines(context)) {
      if (++machines > 10) break;
      const disks = machine.disks.map(
        ({ key, size, ineligible }) =>
          `${key} ${formatBytes(size)}${ineligible === undefined ? "" : ` (${ineligible})`}`,
      );
      findings.push({
        check: `source of ${spec.id}`,
        verdict: "ok",
        detail: `machine ${machine.name}: ${disks.join(", ")}`,
      });
    }
    const said = await source.preflight?.(undefined, { disks: [], ...context });
    findings.push(...asFindings(`source of ${spec.id}`, said));
  });
  await attempt(findings, `target of ${spec.id}`, async () => {
    refuseSameDisk(spec.source, spec.target);
    await using target = await openTarget(spec.target.definition, spec.target.options, context);
    findings.push({
      check: `target of ${spec.id}`,
      verdict: "ok",
      detail: "its options are good; it is written to by the first run only",
    });
    findings.push(...asFindings(`target of ${spec.id}`, await target.preflight?.({ disks: [], ...context })));
  });
  return findings;
}
