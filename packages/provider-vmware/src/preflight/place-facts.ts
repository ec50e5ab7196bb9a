import type { Machine, Wait } from "@diskferry/core/provider";
import { referenceOf } from "../inventory/vsphere-inventory.ts";
import type { MoRef } from "../vim/moref.ts";
import { listObjects, readObject, readProperties } from "../vim/property-collector.ts";
import { type SnapshotNode, snapshotTree } from "../vim/snapshot-calls.ts";
import type { VimClient } from "../vim/vim-client.ts";
import type { VimProperties } from "../vim/vim-properties.ts";
import { readDisks, slotOf, type VirtualDisk } from "../vim/virtual-disk.ts";
import { readTrackingState, type TrackingState } from "../vim/tracking-calls.ts";
import type { HostRelease } from "./releases.ts";

/** A datastore and what is left of it. */
export interface DatastoreFacts {
  readonly ref: MoRef;
  readonly name: string;
  /** `VMFS`, `NFS`, `NFS41`, `vsan`, `VVOL`. */
  readonly type: string;
  /** Bytes. */
  readonly freeSpace: number;
  readonly accessible: boolean;
}

/** A host, and where its data ports are. */
export interface HostFacts extends HostRelease {
  readonly ref: MoRef;
  readonly address: string;
}

/** What a pre-flight looks at, read once. */
export interface MachineFacts {
  readonly ref: MoRef;
  readonly disks: readonly VirtualDisk[];
  readonly tracking: TrackingState;
  readonly snapshots: readonly SnapshotNode[];
  readonly consolidationNeeded: boolean;
  readonly connectionState: string;
  /** The text of a question that blocks the machine. */
  readonly question: string | undefined;
  readonly host: HostFacts | undefined;
  readonly datastores: readonly DatastoreFacts[];
}

/** Reads what a pre-flight needs of one machine. Changes nothing. */
export async function readMachineFacts(client: VimClient, machine: Machine, wait: Wait): Promise<MachineFacts> {
  const ref = referenceOf(machine);
  const about = { ...wait, about: machine.name };
  const properties = await readObject(
    client,
    ref,
    [
      "config.hardware.device",
      "snapshot",
      "runtime.consolidationNeeded",
      "runtime.connectionState",
      "runtime.question",
      "runtime.host",
    ],
    about,
  );
  const disks = readDisks(properties.get("config.hardware.device"));
  const stores = new Map(
    disks.flatMap(({ backing: { datastore } }) => (datastore ? [[datastore.value, datastore]] : [])),
  );
  const hostRef = properties.reference("runtime.host");
  return {
    ref,
    disks,
    tracking: await readTrackingState(client, ref, about),
    snapshots: snapshotTree(properties.get("snapshot")),
    consolidationNeeded: properties.boolean("runtime.consolidationNeeded") ?? false,
    connectionState: properties.string("runtime.connectionState") ?? "unknown",
    question: properties.get("runtime.question")?.string("text"),
    host: hostRef === undefined ? undefined : await readHost(client, hostRef, wait),
    datastores: await readDatastores(client, [...stores.values()], wait),
  };
}

const hostPaths: readonly string[] = ["name", "summary.config.product"];

/** One host. */
export async function readHost(client: VimClient, ref: MoRef, wait: Wait): Promise<HostFacts> {
  return hostOf(client, await readObject(client, ref, hostPaths, wait));
}

/** The hosts of a place, at most `most` of them, and whether there are more. */
export async function readHosts(
  client: VimClient,
  most: number,
  wait: Wait,
): Promise<{ hosts: HostFacts[]; more: boolean }> {
  const hosts: HostFacts[] = [];
  const wanted = { types: ["HostSystem"], paths: hostPaths };
  for await (const page of listObjects(client, client.references.rootFolder, wanted, wait)) {
    for (const each of page) {
      if (hosts.length === most) return { hosts, more: true };
      hosts.push(hostOf(client, each));
    }
  }
  return { hosts, more: false };
}

function hostOf(client: VimClient, properties: VimProperties): HostFacts {
  const product = properties.get("summary.config.product");
  const name = properties.string("name") ?? properties.object.value;
  // A host by itself calls itself localhost; it is reached where we reached it.
  const address = client.about.kind === "esxi" ? client.http.origin.hostname.replace(/^\[|\]$/g, "") : name;
  const version = product?.string("version") ?? client.about.version;
  return { ref: properties.object, name, address, version, build: product?.string("build") ?? "" };
}

async function readDatastores(client: VimClient, refs: readonly MoRef[], wait: Wait): Promise<DatastoreFacts[]> {
  const found = await readProperties(client, refs, ["summary"], wait);
  return found.flatMap((each) => {
    const summary = each.get("summary");
    if (summary === undefined) return [];
    return {
      ref: each.object,
      name: summary.string("name") ?? each.object.value,
      type: summary.string("type") ?? "",
      freeSpace: summary.number("freeSpace") ?? 0,
      accessible: summary.boolean("accessible") ?? true,
    };
  });
}

/** Where tracking of a disk stands: `running`, `off` by one of its two flags, or set and waiting for a stun. */
export function trackingOf(disk: VirtualDisk, { enabled, bySlot }: TrackingState): "running" | "off" | "waiting" {
  if (disk.backing.changeId !== undefined) return "running";
  const flag = bySlot.get(slotOf(disk) ?? "");
  return enabled && flag !== false ? "waiting" : "off";
}
