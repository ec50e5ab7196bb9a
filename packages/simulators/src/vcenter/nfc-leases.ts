import { randomUUID } from "node:crypto";
import type { DiskLayer } from "./disk-layer.ts";
import { leaseSlotName } from "./disk-slot.ts";
import type { Properties } from "./inventory.ts";
import { localizedFault } from "./task-board.ts";
import type { VirtualDisk } from "./virtual-disk.ts";
import type { VirtualMachine } from "./virtual-machine.ts";
import { VimFault } from "./vim-fault.ts";
import { data, enumerated, list, long, reference } from "./vim-value.ts";
import type { Reference } from "./vim-value.ts";

/** A disk that a lease serves. */
export interface LeasedDisk {
  readonly key: number;
  readonly layer: DiskLayer;
  readonly capacity: number;
  readonly name: string;
  readonly target: string;
  /** `ParaVirtualSCSIController0:1`. */
  readonly slot: string;
  /** Whether it is an object of vSAN. */
  readonly vsan: boolean;
}

/** A disk as a lease serves it. */
export function leasedDisk(
  disk: VirtualDisk,
  frozen: { layer: DiskLayer; capacity: number },
  index: number,
): LeasedDisk {
  const name = `disk-${index}.vmdk`;
  const { layer, capacity } = frozen;
  const vsan = disk.datastore.type === "vsan";
  return { key: disk.key, layer, capacity, name, target: name, slot: leaseSlotName(disk), vsan };
}

interface Lease {
  readonly id: string;
  readonly ticket: string;
  readonly machine: VirtualMachine;
  readonly entity: Reference;
  readonly disks: readonly LeasedDisk[];
  readonly streams: Set<() => void>;
  /** The one disk that was fetched first. */
  first: LeasedDisk | undefined;
  state: "initializing" | "ready" | "done" | "error";
  error: VimFault | undefined;
  progress: number;
  timer: NodeJS.Timeout | undefined;
}

/** How leases behave. */
export interface LeaseOptions {
  /** Seconds without HttpNfcLeaseProgress after which a lease ends; vCenter has 300. */
  readonly timeoutSeconds: number;
  /** Milliseconds until a lease is ready. */
  readonly initializeMs: number;
  /** Scheme, host and port of the links; the host is `*` where the simulator is told so. */
  readonly base: () => string;
  readonly thumbprint: () => string | undefined;
  /** The certificate in PEM, which 9.0 gives beside its thumbprint. */
  readonly certificate: () => string | undefined;
  readonly changed: () => void;
}

/** HttpNfcLeases: links to disks, alive for as long as the client reports progress. */
export class NfcLeases {
  readonly #leases = new Map<string, Lease>();
  readonly #options: LeaseOptions;

  constructor(options: LeaseOptions) {
    this.#options = options;
  }

  /** Opens a lease over the disks of a machine or of a snapshot of it. */
  open(machine: VirtualMachine, entity: Reference, disks: readonly LeasedDisk[], sessionKey: string): Reference {
    const lease: Lease = {
      id: `session[${sessionKey}]${randomUUID()}`,
      ticket: randomUUID(),
      machine,
      entity,
      disks,
      streams: new Set(),
      first: undefined,
      state: "initializing",
      error: undefined,
      progress: 0,
      timer: undefined,
    };
    this.#leases.set(lease.id, lease);
    lease.timer = setTimeout(() => {
      lease.state = "ready";
      this.#watch(lease);
      this.#options.changed();
    }, this.#options.initializeMs);
    return reference("HttpNfcLease", lease.id);
  }

  /** Reports progress, which keeps a lease alive. */
  progress(id: string, percent: number): void {
    const lease = this.#ready(id);
    if (!(percent >= 0 && percent <= 100))
      throw new VimFault("InvalidArgument", "percent", { invalidProperty: "percent" });
    lease.progress = percent;
    this.#watch(lease);
  }

  /** Ends a lease well. */
  complete(id: string): void {
    this.#end(this.#ready(id), "done", undefined);
  }

  /** Ends a lease for a reason. */
  abort(id: string): void {
    const lease = this.#find(id);
    this.#end(lease, "error", new VimFault("RequestCanceled", "The lease was aborted."));
  }

  /** Ends every lease on a machine, whose files are about to change. */
  revoke(machine: VirtualMachine): void {
    for (const lease of this.#leases.values()) {
      if (lease.machine === machine && (lease.state === "ready" || lease.state === "initializing")) {
        this.#end(lease, "error", new VimFault("InvalidState", "The disks of the lease have changed."));
      }
    }
  }

  /**
   * The disk that a path of a link names; undefined where no ready lease serves it. A lease over several disks on vSAN serves
   * the first that is fetched, and of any other an answer without a byte (seen in the field by proxcenter).
   */
  find(path: string): { disk: LeasedDisk; emptied: boolean; onEnd: (stop: () => void) => () => void } | undefined {
    const match = /^\/nfc\/([^/]+)\/disk-(\d+)\.vmdk$/.exec(path);
    for (const lease of this.#leases.values()) {
      const disk = lease.disks[Number(match?.[2])];
      if (lease.ticket !== match?.[1] || lease.state !== "ready" || disk === undefined) continue;
      const onEnd = (stop: () => void): (() => void) => {
        lease.streams.add(stop);
        return () => void lease.streams.delete(stop);
      };
      lease.first ??= disk;
      return { disk, emptied: disk.vsan && lease.first !== disk, onEnd };
    }
    return undefined;
  }

  /** A lease's properties; undefined where it does not exist. */
  properties(id: string): Properties | undefined {
    const lease = this.#leases.get(id);
    if (lease === undefined) return undefined;
    return {
      initializeProgress: () => (lease.state === "initializing" ? 0 : 100),
      transferProgress: () => lease.progress,
      mode: () => "pushOrGet",
      info: () => (lease.state === "initializing" ? undefined : this.#info(lease)),
      state: () => enumerated("HttpNfcLeaseState", lease.state),
      error: () => (lease.error === undefined ? undefined : localizedFault(lease.error)),
    };
  }

  /** How many leases serve disks. */
  get ready(): number {
    return [...this.#leases.values()].filter(({ state }) => state === "ready").length;
  }

  /** Ends and forgets every lease. */
  clear(): void {
    for (const lease of this.#leases.values()) this.#end(lease, "error", undefined);
    this.#leases.clear();
  }

  #info(lease: Lease): ReturnType<typeof data> {
    const total = lease.disks.reduce((sum, { capacity }) => sum + capacity, 0);
    return data("HttpNfcLeaseInfo", {
      lease: reference("HttpNfcLease", lease.id),
      entity: lease.entity,
      deviceUrl: list(
        "HttpNfcLeaseDeviceUrl",
        lease.disks.map((disk, index) =>
          data("HttpNfcLeaseDeviceUrl", {
            key: `/${lease.entity.id}/${disk.slot}`,
            importKey: "",
            url: `${this.#options.base()}/nfc/${lease.ticket}/disk-${index}.vmdk`,
            sslThumbprint: this.#options.thumbprint() ?? "",
            sslCertificate: this.#options.certificate(),
            disk: true,
            targetId: disk.target,
            fileSize: long(0),
          }),
        ),
      ),
      totalDiskCapacityInKB: long(Math.floor(total / 1024)),
      leaseTimeout: this.#options.timeoutSeconds,
    });
  }

  #watch(lease: Lease): void {
    clearTimeout(lease.timer);
    lease.timer = setTimeout(() => {
      this.#end(lease, "error", new VimFault("Timedout", "The lease has timed out for want of progress."));
    }, this.#options.timeoutSeconds * 1000);
  }

  #end(lease: Lease, state: "done" | "error", error: VimFault | undefined): void {
    clearTimeout(lease.timer);
    lease.state = state;
    lease.error = error;
    for (const stop of lease.streams) stop();
    lease.streams.clear();
    this.#options.changed();
  }

  #find(id: string): Lease {
    const lease = this.#leases.get(id);
    if (lease === undefined) {
      const object = reference("HttpNfcLease", id);
      throw new VimFault("ManagedObjectNotFound", "The lease has already been deleted", { obj: object });
    }
    return lease;
  }

  #ready(id: string): Lease {
    const lease = this.#find(id);
    if (lease.state !== "ready") throw lease.error ?? new VimFault("InvalidState", `The lease is ${lease.state}.`);
    return lease;
  }
}
