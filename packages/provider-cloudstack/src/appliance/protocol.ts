import type { ProviderErrorCode } from "@diskferry/core/provider";

/**
 * What `diskferry appliance` and those who write through it say to each other, version 1.
 *
 * Both doors want a client certificate that the same authority signed. Behind the control door (HTTPS) a client asks for a
 * volume that CloudStack has attached to the machine: the appliance lets its buses look again, waits for the device, checks
 * its size, ends every writer of an older epoch after what it has under way, and answers the name of an export. Behind the
 * other door (NBD, STARTTLS) that export is open to the very certificate that asked for it, until somebody asks again.
 *
 * | request | body | answer |
 * | --- | --- | --- |
 * | `GET /v1/devices` | | {@link DeviceList} |
 * | `POST /v1/rescan` | | {@link DeviceList}, after the buses were asked |
 * | `POST /v1/volumes/<id>/open` | {@link OpenRequest} | {@link OpenReply} |
 * | `POST /v1/volumes/<id>/close` | `{"export": …}`, as {@link OpenReply} named it | `{}` |
 *
 * Whatever fails answers an {@link ErrorReply}.
 */
export const protocolVersion = 1;

/** The control door's port unless another is named; NBD's is 10809. */
export const defaultControlPort = 10_810;

/** An attached disk, as the machine shows it. */
export interface ListedDevice {
  /** The first 20 characters of the volume's id without dashes. */
  readonly serial: string;
  /** The kernel's name, for people. */
  readonly path: string;
  /** Bytes; undefined: the device went away while it was looked at. */
  readonly size: number | undefined;
}

/** The disks that the machine shows. */
export interface DeviceList {
  readonly version: number;
  readonly devices: readonly ListedDevice[];
}

/** Asks for a volume that is attached to the machine. */
export interface OpenRequest {
  /** Bytes, as CloudStack tells them. */
  readonly size: number;
  readonly mode: "read" | "write";
  /** Of the job's lease; for writing alone. An older one is refused, an equal one is of the same client alone. */
  readonly epoch?: number;
}

/** A volume that is open. */
export interface OpenReply {
  /** Its NBD export, epoch of the session included. */
  readonly export: string;
  readonly size: number;
  readonly blockSize: number;
}

/** What failed, in the words of the provider contract. */
export interface ErrorReply {
  readonly error: { readonly code: ProviderErrorCode; readonly message: string; readonly retryable: boolean };
}

/** Bodies of requests are shorter than this, in bytes. */
export const longestRequest = 4096;

/** Bodies of answers are shorter than this, in bytes: a machine has some dozens of disks. */
export const longestReply: number = 256 * 1024;

/** Whether a text has the form of a volume's id; anything else is none. */
export function isVolumeId(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
}
