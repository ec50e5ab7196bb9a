import { formatPath } from "@diskferry/core";
import { didYouMean } from "../near-miss.ts";
import { membersOf } from "./config-problems.ts";

/** What the sections of a vSphere agent's configuration were read into. */
export interface AgentSections {
  /** The configuration with the sections put where they belong. */
  readonly config: unknown;
  /** What was read otherwise than its name says, for people. */
  readonly notes: readonly string[];
}

/** What is collected from the sections. */
interface Reading {
  /** Options of every source of the provider `vsphere`. */
  readonly source: Record<string, unknown>;
  readonly top: Record<string, unknown>;
  readonly defaults: Record<string, unknown>;
  readonly notes: string[];
  refuse(message: string): void;
}

type ReadField = (value: unknown, reading: Reading) => void;

const bytesOfMegabit = 125_000;

/** The fields by section, each with what it means here. */
const sections: Readonly<Record<string, Readonly<Record<string, ReadField>>>> = {
  vmware: {
    vcenter_url: option("url"),
    username: option("username"),
    password: option("password"),
    datacenter: option("datacenter"),
    thumbprint: option("thumbprint"),
    ca: option("ca"),
    validate_ssl: (value, { refuse }) => {
      if (value === false) {
        refuse(
          "certificates are always verified; name the server's own by vmware.thumbprint, or its authority by vmware.ca, and leave this out",
        );
      } else if (value !== true) refuse("has to be true");
    },
  },
  cbt: {
    auto_enable: flag((value, { source }) => nest(source, "tracking", { enable: value })),
    block_size: (value, { notes, refuse }) => {
      if (!isWhole(value, 1)) refuse("has to be a whole number of bytes");
      else {
        notes.push(
          `cbt.block_size: ${value} is not used: the platform tells each changed area with its own length, which differs by disk`,
        );
      }
    },
    initialization_method: (value, { source, refuse }) => {
      if (value === "snapshot") nest(source, "tracking", { enableOnRunning: true });
      else refuse("has to be snapshot: nothing else begins change tracking on a machine that runs");
    },
    cleanup_old_snapshots: flag((value, { source, notes }) => {
      nest(source, "snapshots", { sweep: value });
      if (value) notes.push("cbt.cleanup_old_snapshots: only snapshots that the same job made are removed");
    }),
  },
  performance: {
    max_concurrent_backups: (value, { top, refuse }) => {
      if (isWhole(value, 1)) top["concurrency"] = value;
      else refuse("has to be a whole number of at least 1");
    },
    bandwidth_limit_mbps: (value, { defaults, notes, refuse }) => {
      if (!isWhole(value, 1)) refuse("has to be a whole number of megabits per second");
      else {
        defaults["bandwidth"] = value * bytesOfMegabit;
        notes.push(
          `performance.bandwidth_limit_mbps: ${value} megabits are ${value * bytesOfMegabit} bytes per second, for each job`,
        );
      }
    },
    backup_window: (value, { defaults, refuse }) => {
      if (typeof value === "string" && value !== "") defaults["window"] = value;
      else refuse('has to be text such as "22:00-06:00"');
    },
  },
  tunnel: {
    control_plane_host: refuseTunnel,
    tunnel_port: refuseTunnel,
    ssh_key_path: refuseTunnel,
  },
};

/**
 * Reads the sections `vmware`, `cbt`, `performance` and `tunnel` of a vSphere agent's configuration: they become the options of
 * the jobs' sources and the defaults of their runs, and what stands in a job itself goes before them. A job without a `source`
 * has its `machine` copied from that vCenter. What is wrong is added to `problems`.
 */
export function readAgentSections(given: unknown, problems: string[]): AgentSections {
  const { vmware, cbt, performance, tunnel, ...rest } = membersOf(given);
  const present = Object.entries({ vmware, cbt, performance, tunnel }).filter(([, section]) => section !== undefined);
  if (present.length === 0) return { config: given, notes: [] };
  const source: Record<string, unknown> = {};
  const top: Record<string, unknown> = {};
  const defaults: Record<string, unknown> = {};
  const notes: string[] = [];
  for (const [section, fields] of present) {
    const known = sections[section] ?? {};
    if (fields !== null && (typeof fields !== "object" || Array.isArray(fields))) {
      problems.push(`${section}: has to be a mapping`);
    }
    for (const [name, value] of Object.entries(membersOf(fields))) {
      const path = formatPath([section, name]);
      const read = Object.hasOwn(known, name) ? known[name] : undefined;
      if (read === undefined) {
        const names = Object.keys(known);
        problems.push(`${path}: is not known${didYouMean(name, names) || ` (known: ${names.join(", ")})`}`);
      } else if (value !== undefined && value !== null && value !== "") {
        read(value, { source, top, defaults, notes, refuse: (message) => problems.push(`${path}: ${message}`) });
      }
    }
  }
  const shared = membersOf(rest["defaults"]);
  for (const [name, path] of [
    ["window", "performance.backup_window"],
    ["bandwidth", "performance.bandwidth_limit_mbps"],
  ] as const) {
    if (defaults[name] !== undefined && shared[name] !== undefined) {
      problems.push(`${path}: defaults.${name} says the same; leave one of them out`);
    }
  }
  if (top["concurrency"] !== undefined && rest["concurrency"] !== undefined) {
    problems.push("performance.max_concurrent_backups: concurrency says the same; leave one of them out");
  }
  if (defaults["window"] !== undefined && shared["timeZone"] === undefined) {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    notes.push(`performance.backup_window: is in this machine's time zone, ${zone}; defaults.timeZone states another`);
  }
  const config = {
    ...top,
    ...rest,
    defaults: { ...defaults, ...shared },
    ...(rest["jobs"] === undefined ? {} : { jobs: withSources(rest["jobs"], source, problems) }),
  };
  return { config, notes };
}

/** The jobs, their sources completed by what holds for all of them. */
function withSources(jobs: unknown, shared: Record<string, unknown>, problems: string[]): unknown {
  const given = Object.entries(membersOf(jobs));
  // Whatever is not a mapping is left for the schema to speak of.
  if (given.length === 0 || Object.keys(shared).length === 0) return jobs;
  return Object.fromEntries(
    given.map(([id, job]) => {
      if (typeof job !== "object" || job === null || Array.isArray(job)) return [id, job];
      const { source: end } = membersOf(job);
      if (typeof end === "string" && /^vsphere:/i.test(end)) {
        problems.push(
          `${formatPath(["jobs", id, "source"])}: a URI takes nothing of the sections vmware and cbt; write it as provider: vsphere and its options`,
        );
      }
      const own = membersOf(end);
      const isOfSections = "source" in job ? own["provider"] === "vsphere" : shared["url"] !== undefined;
      if (!isOfSections) return [id, job];
      const source: Record<string, unknown> = { provider: "vsphere", ...shared, ...own };
      for (const name of ["tracking", "snapshots"]) {
        if (shared[name] !== undefined && own[name] !== undefined) {
          source[name] = { ...membersOf(shared[name]), ...membersOf(own[name]) };
        }
      }
      return [id, { ...job, source }];
    }),
  );
}

function option(name: string): ReadField {
  return (value, { source, refuse }) => {
    if (typeof value === "string") source[name] = value;
    else refuse("has to be text");
  };
}

function flag(read: (value: boolean, reading: Reading) => void): ReadField {
  return (value, reading) => {
    if (typeof value === "boolean") read(value, reading);
    else reading.refuse("has to be true or false");
  };
}

function refuseTunnel(_value: unknown, { refuse }: Reading): void {
  refuse(
    "there is no tunnel: writers on other machines are reached by NBD over TLS (nbds://); leave the section out, or give it no value",
  );
}

function nest(into: Record<string, unknown>, name: string, more: Record<string, unknown>): void {
  into[name] = { ...membersOf(into[name]), ...more };
}

function isWhole(value: unknown, least: number): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= least;
}
