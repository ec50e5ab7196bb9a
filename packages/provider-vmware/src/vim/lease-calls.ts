import { isProviderError } from "@diskferry/core/provider";
import { translateFault, vsphereError } from "../errors.ts";
import type { MoRef } from "./moref.ts";
import { waitForProperties } from "./property-collector.ts";
import type { CallWait, VimClient } from "./vim-client.ts";
import { localizedFault } from "./vim-fault.ts";
import type { VimMethodName } from "./vim-methods.ts";

/** A disk that a lease serves. */
export interface LeasedFile {
  /** `/vm-42/VirtualLsiLogicController0:0` or like it: by the controller's kind, its number and the unit. */
  readonly key: string;
  /** A secret: whoever has it may read the disk. A host written `*` is replaced by the server's own. */
  readonly url: URL;
  /** SHA-1 of the certificate of the host that serves it, which vCenter vouches for. */
  readonly sslThumbprint: string | undefined;
  /** Whether it is a disk, and not a file of firmware variables or the like. */
  readonly disk: boolean;
  /** The file's name in the export. */
  readonly targetId: string | undefined;
  /** Bytes of the file behind, where known; 0 on some servers. */
  readonly fileSize: number | undefined;
}

/** A lease that is ready: links to disks, alive while progress is reported. */
export interface NfcLease {
  readonly ref: MoRef;
  readonly files: readonly LeasedFile[];
  /** Bytes of all disks; an estimate. */
  readonly totalBytes: number;
  /** Seconds without {@link reportLeaseProgress} after which the server ends the lease. */
  readonly timeoutSeconds: number;
}

/**
 * Opens a lease on a snapshot's disks (ExportSnapshot) or on those of a machine that is off (ExportVm), and waits until it is
 * ready. `client` is one that speaks SOAP (`client.soap()`): the links want its cookie.
 *
 * @throws ProviderError where the server refuses, or the lease fails instead of becoming ready
 */
export async function openLease(client: VimClient, object: MoRef, wait: CallWait = {}): Promise<NfcLease> {
  const method = object.type === "VirtualMachineSnapshot" ? "ExportSnapshot" : "ExportVm";
  const ref = await client.callForReference(method, object, {}, wait);
  try {
    return await whenReady(client, ref, method, object, wait);
  } catch (error) {
    // Whoever gave up is not told of it again: it would become ready for nobody, and hold the disks until it lapses.
    await endLease(client, ref, { whole: false, about: wait.about ?? object.value });
    throw error;
  }
}

async function whenReady(
  client: VimClient,
  ref: MoRef,
  method: VimMethodName,
  object: MoRef,
  wait: CallWait,
): Promise<NfcLease> {
  const properties = await waitForProperties(
    client,
    ref,
    ["state", "error", "info"],
    (seen) => seen.string("state") !== undefined && seen.string("state") !== "initializing",
    { ...wait, about: `the lease on ${object.value}` },
  );
  const info = properties.get("info");
  if (properties.string("state") !== "ready" || info === undefined) {
    const error = properties.get("error");
    if (error === undefined) {
      throw vsphereError("UNAVAILABLE", `the lease on ${object.value} ended before it was ready`, {
        operation: method,
      });
    }
    throw translateFault(localizedFault(error), method, object.value);
  }
  return {
    ref,
    totalBytes: (info.number("totalDiskCapacityInKB") ?? 0) * 1024,
    timeoutSeconds: info.number("leaseTimeout") ?? 300,
    files: info.all("deviceUrl").map((file) => ({
      key: file.string("key") ?? "",
      url: leaseLink(file.string("url") ?? "", client.http.origin),
      sslThumbprint: file.string("sslThumbprint"),
      disk: file.boolean("disk") ?? true,
      targetId: file.string("targetId"),
      fileSize: file.number("fileSize"),
    })),
  };
}

/** Keeps a lease alive; `percent` from 0 to 100 is shown to administrators. */
export async function reportLeaseProgress(
  client: VimClient,
  lease: MoRef,
  percent: number,
  wait: CallWait = {},
): Promise<void> {
  await client.call("HttpNfcLeaseProgress", lease, { percent: Math.max(0, Math.min(100, Math.floor(percent))) }, wait);
}

/** Ends a lease well. */
export async function completeLease(client: VimClient, lease: MoRef, wait: CallWait = {}): Promise<void> {
  await client.call("HttpNfcLeaseComplete", lease, {}, wait);
}

/** Ends a lease whose export was given up. */
export async function abortLease(client: VimClient, lease: MoRef, wait: CallWait = {}): Promise<void> {
  await client.call("HttpNfcLeaseAbort", lease, {}, wait);
}

/** A server that is away must not hold up whoever is done; the lease lapses. */
const endTimeoutMs = 10_000;

/** Ends a lease that may be gone already, well where it was read to its end. What fails is told, and no reason to fail. */
export async function endLease(client: VimClient, lease: MoRef, how: { whole: boolean; about: string }): Promise<void> {
  const { whole, about } = how;
  const wait = { about, timeoutMs: endTimeoutMs };
  try {
    await (whole ? completeLease(client, lease, wait) : abortLease(client, lease, wait));
  } catch (error) {
    // A lease ends by itself; one that ended already is what was wanted.
    if (isProviderError(error) && (error.code === "NOT_FOUND" || error.code === "IN_USE")) return;
    client.notice(`${about}: its lease was not ended and lapses by itself (${(error as Error).message})`);
  }
}

/** A link of a lease. A server that does not know its own name writes `*` for it. @throws ProviderError UNEXPECTED */
export function leaseLink(link: string, server: URL): URL {
  const named = link.replace(/^(https?:\/\/)\*(:\d+)?(?=[/?]|$)/, (_, scheme: string, port: string | undefined) =>
    port === undefined ? `${scheme}${server.host}` : `${scheme}${server.hostname}${port}`,
  );
  try {
    return new URL(named);
  } catch {
    // The link is a secret, and so is what the runtime would quote of it.
    throw vsphereError("UNEXPECTED", `${server.host} opened a lease whose link is no address`, { operation: "lease" });
  }
}
