import { resolve } from "node:path";
import type { CommandContext } from "../command.ts";
import { readConfig } from "../config/read-config.ts";
import { Providers } from "../providers.ts";
import { bytesForm, bytesFrom, wholeNumber } from "../quantities.ts";
import { words } from "../shared-options.ts";
import { jobIds, openExistingState, stateFolder, unknownJob } from "../state-folder.ts";
import { usageError } from "../usage-error.ts";
import { defined } from "./defined.ts";
import { absoluteName, jobIdOf } from "./disk-names.ts";
import type { EndSpec, JobSpec } from "./job-spec.ts";
import { recallJob } from "./open-job.ts";

/** The jobs a command is about. */
export interface Selection {
  readonly jobs: readonly JobSpec[];
  /** How many may run at once. */
  readonly concurrency: number;
}

/**
 * Finds the jobs that arguments name: `<source> <target>`, `<job>` of the state directory, or jobs of a configuration
 * file, all of them where none is named.
 */
export async function selectJobs(context: CommandContext): Promise<Selection> {
  const { positionals, options, io, output } = context;
  const config = options.text("config");
  if (config !== undefined) {
    if (options.text("job") !== undefined)
      throw usageError("--job and --config exclude each other; name jobs of the file as arguments");
    const read = await readConfig(resolve(io.cwd, config), {
      io,
      packages: options.list("provider"),
      hide: (secrets) => output.hide(secrets),
    });
    for (const note of read.notes) output.notice(note);
    const chosen = positionals.length === 0 ? read.jobs : positionals.map((name) => named(name, read.jobs, config));
    return { jobs: chosen.map((job) => withOptions(job, context)), concurrency: read.concurrency };
  }
  if (positionals.length === 2) {
    return { jobs: [await jobOfUris(positionals[0]!, positionals[1]!, context)], concurrency: 1 };
  }
  const id = positionals.length === 0 ? options.text("job") : positionals[0];
  if (positionals.length > 2)
    throw usageError(`${positionals.length} arguments are too many: give <source> <target>, or one job`);
  if (id === undefined) throw usageError("name a job: <source> <target>, the id of a job, or --config <file>");
  return { jobs: [await jobOfState(id, context)], concurrency: 1 };
}

/** The one job a command is about. @throws ProviderError CONFIG_INVALID when there are several. */
export async function selectJob(context: CommandContext): Promise<JobSpec> {
  const { jobs } = await selectJobs(context);
  if (jobs.length === 1) return jobs[0]!;
  throw usageError(`this is about one job, and there are ${jobs.map(({ id }) => id).join(", ")}; name one`);
}

/** The job that a source and a target make. */
export async function jobOfUris(from: string, to: string, context: CommandContext): Promise<JobSpec> {
  const { options, io } = context;
  const providers = new Providers(io.cwd, options.list("provider"));
  const source = await endOf(absoluteName(from, io.cwd), providers);
  const target = await endOf(absoluteName(to, io.cwd), providers);
  const id = options.text("job") ?? jobIdOf(source, target);
  const spec: JobSpec = {
    id,
    source,
    target,
    state: stateFolder(options.text("state"), io),
    options: {},
    uris: { source: source.label, target: target.label },
  };
  return withOptions(spec, context);
}

async function endOf(name: string, providers: Providers): Promise<EndSpec> {
  const { definition, options } = await providers.resolve(name);
  return { definition, options, label: name };
}

async function jobOfState(id: string, context: CommandContext): Promise<JobSpec> {
  const { io, options } = context;
  const folder = stateFolder(options.text("state"), io);
  await using store = await openExistingState(folder);
  const found = await recallJob(store, id);
  if (found === undefined) {
    const known = await jobIds(store);
    if (!known.includes(id)) throw unknownJob(id, known, folder);
    throw usageError(
      `job ${id} was not begun with two URIs, so its ends are not remembered: name its file by --config`,
    );
  }
  const providers = new Providers(io.cwd, options.list("provider"));
  const spec: JobSpec = {
    id,
    source: await endOf(found.source, providers),
    target: await endOf(found.target, providers),
    ...(found.machine === undefined ? {} : { machine: found.machine }),
    ...(found.disks === undefined ? {} : { disks: found.disks }),
    state: folder,
    options: {},
    uris: { source: found.source, target: found.target },
  };
  return withOptions(spec, context);
}

function named(name: string, jobs: readonly JobSpec[], config: string): JobSpec {
  const found = jobs.find(({ id }) => id === name);
  if (found !== undefined) return found;
  throw unknownJob(
    name,
    jobs.map(({ id }) => id),
    config,
  );
}

/** What arguments say goes before what a file or an earlier command said. */
function withOptions(spec: JobSpec, { options, io }: CommandContext): JobSpec {
  const count = (name: string, least: number): number | undefined => {
    const text = options.text(name);
    return text === undefined ? undefined : wholeNumber(name, text, least);
  };
  const path = (name: string): string | undefined => {
    const given = options.text(name);
    return given === undefined ? undefined : resolve(io.cwd, given);
  };
  const disks = options.list("disk");
  return {
    ...spec,
    ...defined({
      machine: options.text("machine"),
      disks: disks.length === 0 ? undefined : disks,
      state: path("state"),
      bytesPerSecond: options.read("bandwidth", bytesFrom, bytesForm),
      window: options.text("window"),
      timeZone: options.text("time-zone"),
      receipts: path("receipts"),
      receiptKey: path("receipt-key"),
    }),
    options: {
      ...spec.options,
      ...defined({
        mode: options.choice("mode", words.mode),
        verify: options.choice("verify", words.verify),
        digest: options.choice("digest", words.digest),
        onTrackingLost: options.choice("on-tracking-lost", words.onTrackingLost),
        canary: count("canary", 0),
        consistency: options.choice("consistency", words.consistency),
        parallelDisks: count("parallel-disks", 1),
        workers: count("workers", 0),
      }),
    },
  };
}
