import { type Consistency, isProviderError, type Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { guestFamily } from "../inventory/guest-family.ts";
import type { SnapshotOptions } from "../options.ts";
import { demandPrivileges } from "../preflight/privileges.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import type { MoRef } from "../vim/moref.ts";
import { patiently } from "../vim/patiently.ts";
import { readObject } from "../vim/property-collector.ts";
import {
  consolidate,
  createSnapshot,
  listSnapshots,
  needsConsolidation,
  type QuiesceWish,
  removeSnapshot,
  type SnapshotNode,
} from "../vim/snapshot-calls.ts";
import { consistencyOf, describeWay, notQuiesced, waysToQuiesce } from "./quiescing.ts";
import { markedSnapshot, markOf, type SnapshotMark } from "./snapshot-mark.ts";

/** A machine as this file speaks of it. */
export interface SnapshotMachine {
  readonly ref: MoRef;
  readonly name: string;
}

/** A snapshot that exists, and what it is worth. */
export interface TakenSnapshot {
  readonly node: SnapshotNode;
  readonly consistency: Consistency;
}

/** What the machine says about itself that decides how it is quiesced, and what that was worth. */
interface GuestState {
  readonly windows: boolean;
  readonly cleanPowerOff: boolean | undefined;
}

async function readGuest({ client }: VsphereConnection, machine: SnapshotMachine, wait: Wait): Promise<GuestState> {
  const paths = ["config.guestId", "runtime.cleanPowerOff"];
  const properties = await readObject(client, machine.ref, paths, { ...wait, about: machine.name });
  return {
    windows: guestFamily(properties.string("config.guestId") ?? "") === "windows",
    cleanPowerOff: properties.boolean("runtime.cleanPowerOff"),
  };
}

/** What an existing snapshot is worth. */
export async function worthOf(
  connection: VsphereConnection,
  machine: SnapshotMachine,
  node: SnapshotNode,
  wait: Wait,
): Promise<Consistency> {
  const { windows, cleanPowerOff } = await readGuest(connection, machine, wait);
  return consistencyOf({ quiesced: node.quiesced, powerState: node.powerState, windows, cleanPowerOff });
}

/**
 * Finds the snapshot of this key or makes it. The machine's guest is quiesced where more than crash consistency is asked
 * for, by one method after the other; what was achieved is read back from the snapshot itself.
 *
 * @throws ProviderError IN_USE while deltas of removed snapshots wait to be merged; UNAVAILABLE where the guest does not
 * come to rest and that was asked for
 */
export async function takeSnapshot(
  connection: VsphereConnection,
  machine: SnapshotMachine,
  request: SnapshotMark & {
    consistency: Consistency | undefined;
    /** Refuses before anything is changed what could not be read afterwards. */
    demand: (wait: Wait) => Promise<void>;
  } & Wait,
): Promise<TakenSnapshot> {
  const { key, job, signal } = request;
  const wait = { signal, about: machine.name };
  const found = await ofKey(connection, machine, key, wait);
  if (found[0] !== undefined) {
    return { node: found[0], consistency: await worthOf(connection, machine, found[0], wait) };
  }
  await demandPrivileges(connection.client, machine, [], wait);
  await request.demand(wait);
  if (connection.options.snapshots?.sweep !== false && job !== undefined) await sweep(connection, machine, job, wait);
  await mergeLeftOvers(connection, machine, wait);
  const guest = await readGuest(connection, machine, wait);
  const ways = waysFor(connection, guest, request.consistency);
  const demanded = request.consistency === "application" || request.consistency === "filesystem";
  for (const [index, way] of ways.entries()) {
    const next = ways[index + 1];
    const isLast = index === ways.length - 1;
    try {
      const node = await create(connection, machine, request, way, wait);
      if (way === undefined || node.quiesced || node.powerState !== "poweredOn") {
        return { node, consistency: await worthOf(connection, machine, node, wait) };
      }
      // vSphere makes a plain snapshot without a word where VMware Tools is not running; no other way helps there.
      if (!demanded && connection.options.snapshots?.onQuiesceFailure !== "fail") {
        connection.notice(`${machine.name} was not quiesced (${describeWay(way)}): its snapshot is crash-consistent`);
        return { node, consistency: "crash" };
      }
      await remove(connection, machine, node.ref, wait);
      throw unquiesced(machine, way, undefined);
    } catch (error) {
      if (way === undefined || !notQuiesced(error)) throw error;
      if (isLast) throw unquiesced(machine, way, error);
      connection.notice(
        `${machine.name} did not come to rest by ${describeWay(way)} (${(error as Error).message}); trying ` +
          (next === undefined ? "a crash-consistent snapshot" : describeWay(next)),
      );
    }
  }
  throw new Error("no way to take a snapshot");
}

/** Makes a crash-consistent snapshot that belongs to no job; for the stun that it is. */
export async function takePlainSnapshot(
  connection: VsphereConnection,
  machine: SnapshotMachine,
  key: string,
  wait: Wait,
): Promise<void> {
  await create(connection, machine, { key, job: undefined }, undefined, wait);
}

/** The ways to try, best first; undefined is a crash-consistent snapshot. */
function waysFor(
  { client, options }: VsphereConnection,
  guest: GuestState,
  wanted: Consistency | undefined,
): (QuiesceWish | undefined)[] {
  const policy: SnapshotOptions = options.snapshots ?? {};
  const demanded = wanted === "application" || wanted === "filesystem";
  const asked = policy.quiesce ?? "auto";
  if (asked === "never" || (!demanded && policy.quiesce === undefined)) return [undefined];
  const all = waysToQuiesce(
    { windows: guest.windows, apiVersion: client.apiVersion },
    { timeoutMinutes: policy.quiesceMinutes, backup: policy.vssBackup },
  );
  const kinds = { auto: undefined, tools: "default", windows: "windows", guest: "guest" } as const;
  const kind = kinds[asked];
  const ways = kind === undefined ? all : all.filter((way) => way.kind === kind);
  if (ways.length === 0) {
    throw vsphereError(
      "CONFIG_INVALID",
      `snapshots.quiesce is '${asked}', which this guest or this version of vSphere does not have; leave it out, or 'tools'`,
    );
  }
  if (policy.onQuiesceFailure === "fail") return ways.slice(0, 1);
  return demanded ? ways : [...ways, undefined];
}

function unquiesced(machine: SnapshotMachine, way: QuiesceWish, cause: unknown): Error {
  return vsphereError(
    "UNAVAILABLE",
    `${machine.name} did not come to rest for its snapshot (${describeWay(way)}), and nothing less was allowed. See that ` +
      "VMware Tools runs in the guest and what its log says, or ask for crash consistency.",
    { operation: "CreateSnapshot", retryable: false, cause },
  );
}

async function ofKey(
  { client }: VsphereConnection,
  machine: SnapshotMachine,
  key: string,
  wait: Wait,
): Promise<SnapshotNode[]> {
  const nodes = await listSnapshots(client, machine.ref, { ...wait, about: machine.name });
  return nodes.filter((node) => markOf(node)?.key === key);
}

/** Makes one snapshot. A connection that breaks leaves it open whether it was made, so it is looked for first. */
async function create(
  connection: VsphereConnection,
  machine: SnapshotMachine,
  mark: SnapshotMark,
  quiesce: QuiesceWish | undefined,
  wait: Wait,
): Promise<SnapshotNode> {
  const { client } = connection;
  return patiently(wait, async () => {
    const [there] = await ofKey(connection, machine, mark.key, wait);
    if (there !== undefined) return there;
    const ref = await createSnapshot(
      client,
      machine.ref,
      { ...markedSnapshot(mark), quiesce },
      {
        ...wait,
        about: machine.name,
      },
    );
    const nodes = await listSnapshots(client, machine.ref, { ...wait, about: machine.name });
    const node = nodes.find((each) => each.ref.value === ref.value);
    if (node !== undefined) return node;
    throw vsphereError(
      "NOT_FOUND",
      `the snapshot of ${machine.name} was removed as soon as it was made; find out by whom`,
    );
  });
}

/** Removes what earlier runs of the job left: there is never a second snapshot of ours under which the first one changes. */
async function sweep(connection: VsphereConnection, machine: SnapshotMachine, job: string, wait: Wait): Promise<void> {
  const nodes = await listSnapshots(connection.client, machine.ref, { ...wait, about: machine.name });
  for (const node of nodes) {
    if (markOf(node)?.job !== job) continue;
    connection.notice(`${machine.name}: removing ${node.ref.value}, which a lost run of job ${job} left behind`);
    await remove(connection, machine, node.ref, wait);
  }
}

/**
 * Gives up every snapshot of this key, merged back into the disks. One that somebody else removed is given up already; one
 * that somebody else made is left alone.
 */
export async function removeOfKey(
  connection: VsphereConnection,
  machine: SnapshotMachine,
  key: string,
  wait: Wait,
): Promise<void> {
  let nodes: SnapshotNode[];
  try {
    nodes = await ofKey(connection, machine, key, wait);
  } catch (error) {
    if (isProviderError(error) && error.code === "NOT_FOUND") return;
    throw error;
  }
  for (const node of nodes) await remove(connection, machine, node.ref, wait);
  if (nodes.length === 0) return;
  try {
    await mergeLeftOvers(connection, machine, wait);
  } catch (error) {
    if (!isProviderError(error) || error.code !== "IN_USE") throw error;
    // The snapshot is gone, which is what was asked for; the next one is not taken before this is mended.
    connection.notice(error.message);
  }
}

async function remove(connection: VsphereConnection, machine: SnapshotMachine, ref: MoRef, wait: Wait): Promise<void> {
  const { client } = connection;
  await patiently(wait, async () => {
    const nodes = await listSnapshots(client, machine.ref, { ...wait, about: machine.name });
    if (nodes.some((node) => node.ref.value === ref.value)) {
      await removeSnapshot(client, ref, { ...wait, about: `${ref.value} of ${machine.name}` });
    }
  });
}

/** Merges deltas whose snapshot is gone: a snapshot on top of them would freeze a disk that is about to change. */
async function mergeLeftOvers(connection: VsphereConnection, machine: SnapshotMachine, wait: Wait): Promise<void> {
  const { client } = connection;
  const about = { ...wait, about: machine.name };
  if (!(await needsConsolidation(client, machine.ref, about))) return;
  connection.notice(`${machine.name}: deltas of a removed snapshot are left; merging them`);
  try {
    await patiently(wait, async () => {
      if (await needsConsolidation(client, machine.ref, about)) await consolidate(client, machine.ref, about);
    });
  } catch (cause) {
    wait.signal?.throwIfAborted();
    if (isProviderError(cause) && cause.code !== "IN_USE") throw cause;
  }
  if (!(await needsConsolidation(client, machine.ref, about))) return;
  throw vsphereError(
    "IN_USE",
    `${machine.name} needs its disks consolidated, and that fails: something else holds their files (a backup proxy that ` +
      "has them attached, a stuck task). Free them and consolidate the disks in the vSphere client; no snapshot is taken before.",
    { operation: "ConsolidateVMDisks" },
  );
}
