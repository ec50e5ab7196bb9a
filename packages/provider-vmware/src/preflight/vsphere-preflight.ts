import type { Finding, Machine, Preflight, PreflightRequest, Wait } from "@diskferry/core/provider";
import { trackingObstacle } from "../inventory/eligibility.ts";
import { readHostLoad } from "../inventory/host-load.ts";
import type { MachineData } from "../inventory/read-machine.ts";
import {
  datastoreTypeOf,
  type LibraryFacts,
  lookAtLibrary,
  type ReaderMeans,
  readersOf,
  serves,
  type Way,
  wayOf,
} from "../readers/reader-fitness.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import { type HostFacts, type MachineFacts, readHosts, readMachineFacts, trackingOf } from "./place-facts.ts";
import { reachPort } from "./ports.ts";
import { type MissingPrivilege, missingPrivileges, type Privilege, privileges } from "./privileges.ts";
import { releaseFindings, trackingBugFindings } from "./releases.ts";
import { libraryFindings } from "./vddk-library.ts";

const httpsPort = 443;
/** A machine's longest chain (KB 1025279 advises 2 to 3; 32 is the limit). */
const mostSnapshots = 32;
/** Hosts whose ports are tried where no machine is asked about, all at once. */
const mostHosts = 16;
const leastFreeBytes = 256 << 20;
/** A delta grows by what the guest writes while its snapshot stands. */
const advisedFreeShare = 0.1;

/**
 * What vSphere has to say before a run: releases, ports, privileges, snapshots in the way, free space, every disk with its reader
 * and its tracking, and what would fall back. Changes nothing.
 */
export async function vspherePreflight(
  connection: VsphereConnection,
  machine: Machine | undefined,
  request: PreflightRequest,
  means: ReaderMeans = {},
): Promise<Preflight> {
  const { client } = connection;
  const { signal } = request;
  const findings = releaseFindings(client.about);
  findings.push({
    severity: "info",
    subject: `${client.http.host}`,
    message: `logged in as ${client.user.userName} by ${client.protocol} ${client.apiVersion}; port ${client.http.origin.port || httpsPort} is reached`,
  });
  const facts = machine === undefined ? undefined : await readMachineFacts(client, machine, { signal });
  const wanted = wantedPrivileges(connection, facts);
  const objects = {
    machine: facts?.ref ?? client.references.rootFolder,
    datastores: facts?.datastores.map(({ ref }) => ref) ?? [],
  };
  const missing = await missingPrivileges(client, wanted, objects, { signal });
  const hosts = machine === undefined ? await hostsOf(connection, findings, { signal }) : [facts?.host ?? []].flat();
  const library = readersOf(connection).includes("vddk")
    ? await lookAtLibrary(connection, hosts, means, { signal })
    : undefined;
  findings.push(...libraryTold(connection, library));
  const ways: Way[] = [];
  for (const name of readersOf(connection)) {
    ways.push(await wayOf(name, { connection, hosts, missing, library, reach: means.reach ?? reachPort }, { signal }));
  }
  findings.push(...privilegeFindings(missing), ...readerFindings(ways, machine !== undefined));
  for (const host of hosts) findings.push(...trackingBugFindings(host));
  if (machine !== undefined && facts !== undefined) {
    findings.push(...machineFindings(machine, facts));
    const chosen = new Set(request.disks.map(({ disk }) => disk));
    findings.push(...diskFindings(connection, { machine, facts, ways, chosen }));
    findings.push(...spaceFindings(machine, facts));
    findings.push(...(await loadFindings(connection, facts, { signal })));
  }
  return {
    calls: machine === undefined ? [] : callsOf(request),
    privileges: {
      needed: wanted.map(({ id }) => id),
      ...(missing === undefined ? {} : { missing: missing.map(({ id }) => id) }),
    },
    findings,
  };
}

function wantedPrivileges(connection: VsphereConnection, facts: MachineFacts | undefined): Privilege[] {
  const readers = readersOf(connection);
  const encrypted = facts?.disks.some(({ backing }) => backing.encrypted) ?? false;
  return privileges.filter(({ purpose }) => {
    if (purpose === "encrypted") return encrypted;
    return purpose === "vddk" || purpose === "nfc" || purpose === "folder" ? readers.includes(purpose) : true;
  });
}

const purposes: Readonly<Record<Privilege["purpose"], { severity: Finding["severity"]; without: string }>> = {
  copy: { severity: "blocker", without: "no snapshot can be made or removed, so nothing can be copied" },
  tracking: { severity: "warning", without: "changes cannot be tracked, so that every run reads whole disks" },
  vddk: { severity: "warning", without: "the reader vddk does not work" },
  nfc: { severity: "warning", without: "the reader nfc does not work" },
  folder: { severity: "warning", without: "the reader folder does not work" },
  power: { severity: "warning", without: "a cutover can neither stop nor start the machine" },
  encrypted: { severity: "blocker", without: "its encrypted disks cannot be read" },
};

function privilegeFindings(missing: readonly MissingPrivilege[] | undefined): Finding[] {
  if (missing === undefined) {
    return [
      { severity: "info", subject: "privileges", message: "the server does not tell which privileges are there" },
    ];
  }
  return missing.map(({ id, purpose, object }) => ({
    severity: purposes[purpose].severity,
    subject: id,
    message: `the account lacks it on ${object}: ${purposes[purpose].without}`,
    remedy: `add ${id} to the account's role, and let the role's permission propagate to the machine`,
  }));
}

/** What is to be said of a library that is there and fits. */
function libraryTold({ client }: VsphereConnection, library: LibraryFacts | undefined): Finding[] {
  if (library?.version === undefined || library.obstacles.length > 0) return [];
  return libraryFindings(library.version, client.about.version);
}

/** The hosts of the place, whose ports are looked at where no machine is asked about. */
async function hostsOf(connection: VsphereConnection, findings: Finding[], wait: Wait): Promise<HostFacts[]> {
  const { hosts, more } = await readHosts(connection.client, mostHosts, wait);
  if (more) {
    const message = `only ${mostHosts} of the hosts are looked at; a plan looks at the one that its machine is on`;
    findings.push({ severity: "info", subject: "hosts", message });
  }
  return hosts;
}

/** `aboutOne`: of one machine and its host, so that a reader with an obstacle does not work for it at all. */
function readerFindings(ways: readonly Way[], aboutOne: boolean): Finding[] {
  if (!aboutOne) {
    return ways.flatMap(({ name, obstacles }) =>
      obstacles.map(({ subject, message, remedy }): Finding => {
        return { severity: "warning", subject, message: `reader ${name}: ${message}`, remedy };
      }),
    );
  }
  const usable = ways.filter(({ obstacles }) => obstacles.length === 0);
  const severity = usable.length === 0 ? "blocker" : "warning";
  return ways.flatMap(({ name, obstacles }, index) => {
    const next = ways.slice(index + 1).find((way) => way.obstacles.length === 0);
    const then =
      usable.length === 0
        ? "no reader is left"
        : next === undefined
          ? `${usable[0]?.name} is used`
          : `disks fall back to the reader ${next.name}`;
    return obstacles.map(({ subject, message, remedy }): Finding => {
      return { severity, subject, message: `reader ${name}: ${message}; ${then}`, remedy };
    });
  });
}

function machineFindings(machine: Machine, facts: MachineFacts): Finding[] {
  const subject = machine.name;
  const findings: Finding[] = [];
  const add = (severity: Finding["severity"], message: string, remedy: string): void => {
    findings.push({ severity, subject, message, remedy });
  };
  if (facts.connectionState !== "connected") {
    add("blocker", `vCenter has no connection to it (${facts.connectionState})`, "see to its host and datastore");
  }
  if (facts.question !== undefined) {
    add("blocker", `it waits for an answer to a question (${facts.question})`, "answer it in the vSphere client");
  }
  if (facts.consolidationNeeded) {
    add("warning", "deltas of removed snapshots are left; they are merged before a run", "consolidate its disks");
  }
  const names = facts.snapshots.map(({ name }) => `'${name}'`).slice(0, 5);
  if (facts.snapshots.length >= mostSnapshots - 1) {
    add("blocker", `it has ${facts.snapshots.length} snapshots, and vSphere allows ${mostSnapshots}`, "remove some");
  } else if (facts.snapshots.length > 0) {
    const waiting = facts.disks.some((disk) => trackingOf(disk, facts.tracking) !== "running");
    const effect = waiting ? "; change tracking cannot begin while they exist (KB 320557)" : "";
    add(
      waiting ? "warning" : "info",
      `it has snapshots: ${names.join(", ")}${effect}`,
      "remove them where nobody needs them",
    );
  }
  if (machine.power === "on" && machine.spec?.guestTools?.startsWith("guestToolsRunning") !== true) {
    add(
      "warning",
      `VMware Tools does not run in the guest (${machine.spec?.guestTools ?? "unknown"}): snapshots are crash-consistent, and a cutover cannot shut it down`,
      "start VMware Tools or open-vm-tools in the guest",
    );
  }
  return findings;
}

function diskFindings(
  { options }: VsphereConnection,
  given: {
    machine: Machine;
    facts: MachineFacts;
    ways: readonly Way[];
    /** The disks of the run; none: all of them. */
    chosen: ReadonlySet<string>;
  },
): Finding[] {
  const { machine, facts, ways, chosen } = given;
  const { hardwareVersion } = (machine.data ?? {}) as Partial<MachineData>;
  return machine.disks.flatMap((disk): Finding[] => {
    const subject = `disk ${disk.key} (${disk.name ?? ""}) of ${machine.name}`;
    if (disk.ineligible !== undefined) {
      return [{ severity: "warning", subject, message: `it is left out: ${disk.ineligible}` }];
    }
    if (chosen.size > 0 && !chosen.has(disk.key)) return [];
    const live = facts.disks.find(({ key }) => String(key) === disk.key);
    if (live === undefined) {
      return [{ severity: "blocker", subject, message: "it was removed from the machine", remedy: "plan again" }];
    }
    const type = datastoreTypeOf(live, facts);
    const on = { suspended: machine.power === "suspended", datastoreType: type };
    const possible = ways.filter(({ name, obstacles }) => obstacles.length === 0 && serves(name, live, on));
    const [first, ...rest] = possible.map(({ name }) => name);
    const reading: Finding =
      first === undefined
        ? {
            severity: "blocker",
            subject,
            message: `no reader is left for it (${type})`,
            remedy: "see what is said of the readers, or name others in readers",
          }
        : { severity: "info", subject, message: `it is read by ${[first, ...rest].join(", else ")}` };
    const obstacle = trackingObstacle(live, hardwareVersion);
    return [reading, trackingFinding(subject, obstacle, { options, facts, state: trackingOf(live, facts.tracking) })];
  });
}

function trackingFinding(
  subject: string,
  obstacle: string | undefined,
  given: { options: VsphereConnection["options"]; facts: MachineFacts; state: "running" | "off" | "waiting" },
): Finding {
  const { options, facts, state } = given;
  const without = "every run reads it whole and sends what differs";
  if (obstacle !== undefined) return { severity: "warning", subject, message: `${obstacle}; ${without}` };
  if (!facts.tracking.supported) {
    return {
      severity: "warning",
      subject,
      message: `the machine does not support change tracking; ${without}`,
      remedy: "upgrade its virtual hardware",
    };
  }
  if (state === "running") return { severity: "info", subject, message: "its changes are tracked" };
  const { enable = true, enableOnRunning = true } = options.tracking ?? {};
  const what = state === "off" ? "change tracking is off" : "change tracking is set and waits for a stun";
  if (!enable) {
    return {
      severity: "warning",
      subject,
      message: `${what}, and tracking.enable is false; ${without}`,
      remedy: "let tracking.enable be true, or turn it on yourself",
    };
  }
  const how = enableOnRunning
    ? "the first run turns it on by a snapshot that it makes and removes"
    : "the first run turns it on, and it begins at the next power cycle";
  return { severity: "info", subject, message: `${what}; ${how}` };
}

function spaceFindings(machine: Machine, facts: MachineFacts): Finding[] {
  return facts.datastores.flatMap((datastore): Finding[] => {
    const subject = `datastore ${datastore.name}`;
    const onIt = facts.disks.filter(({ backing }) => backing.datastore?.value === datastore.ref.value);
    const size = onIt.reduce((sum, { capacity }) => sum + capacity, 0);
    const free = `${gibibytes(datastore.freeSpace)} GiB are free`;
    if (!datastore.accessible) {
      return [{ severity: "blocker", subject, message: "it is not accessible", remedy: "see to the host's storage" }];
    }
    if (datastore.freeSpace < leastFreeBytes) {
      return [
        {
          severity: "blocker",
          subject,
          message: `${free}: a snapshot needs room for what is written`,
          remedy: "free some",
        },
      ];
    }
    if (datastore.freeSpace < size * advisedFreeShare) {
      return [
        {
          severity: "warning",
          subject,
          message: `${free}, less than a tenth of ${machine.name}'s disks there: a snapshot grows by what the guest writes, and stops the machine when the datastore is full`,
          remedy: "free some, or copy while little is written",
        },
      ];
    }
    return [{ severity: "info", subject, message: `${free} (${datastore.type})` }];
  });
}

function gibibytes(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}

/** How busy the host is; for people, and never a reason to stop. */
async function loadFindings(connection: VsphereConnection, facts: MachineFacts, wait: Wait): Promise<Finding[]> {
  const { host } = facts;
  if (host === undefined) return [];
  try {
    const { cpuPercent, memoryPercent } = await readHostLoad(connection.client, host.ref, wait);
    if (cpuPercent === undefined || memoryPercent === undefined) return [];
    const message = `${cpuPercent.toFixed(1)} % of its CPU and ${memoryPercent.toFixed(1)} % of its memory are in use`;
    return [{ severity: "info", subject: `host ${host.name}`, message }];
  } catch (error) {
    wait.signal?.throwIfAborted();
    const message = `its counters cannot be read: ${(error as Error).message}`;
    return [{ severity: "info", subject: `host ${host.name}`, message }];
  }
}

/** Calls of one run, besides reading. */
function callsOf({ disks }: PreflightRequest): NonNullable<Preflight["calls"]> {
  const tracked = disks.filter(({ mode }) => mode === "incremental").length;
  return [
    { operation: "CreateSnapshot_Task", count: { value: 1, kind: "estimate" } },
    { operation: "RemoveSnapshot_Task", count: { value: 1, kind: "estimate" } },
    { operation: "QueryChangedDiskAreas", count: { value: tracked, kind: "estimate" } },
  ];
}
