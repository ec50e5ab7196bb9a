import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { defaultNbdPort, serveNbd } from "@diskferry/nbd";
import type { DevicePlaces } from "../device/find-device.ts";
import { cloudstackError } from "../errors.ts";
import { openControlDoor } from "./control-door.ts";
import { EpochFile } from "./epoch-file.ts";
import { defaultControlPort } from "./protocol.ts";
import { VolumeSessions } from "./volume-sessions.ts";

/** What {@link serveAppliance} needs. */
export interface ServeApplianceOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** NBD's; default 10809, 0 for any free one. */
  readonly port?: number;
  /** The control door's; default 10810, 0 for any free one. */
  readonly controlPort?: number;
  /** PEM: the appliance's certificate and key, and the authority that signs its clients' certificates. */
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string };
  /** A folder of its own, which exists: what has to outlive a restart. */
  readonly stateFolder: string;
  /**
   * Stands for `/`: devices are looked for below it, and regular files count as devices there, as a simulated guest has
   * them. Absent: the machine's own, where only block devices count.
   */
  readonly deviceRoot?: string;
  /** How long a device may take to appear, in milliseconds. Default 60 000. */
  readonly patienceMs?: number;
  /** For people who watch: who was refused, and why. */
  notice?(message: string): void;
}

/** A running appliance. Disposing closes it, after what is under way. */
export interface Appliance extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly controlPort: number;
  close(): Promise<void>;
}

/**
 * Lets others write to the volumes that are attached to this machine: NBD over mutual TLS, one export for each volume and
 * job, and the control door that opens them (see `protocol.ts`).
 * @throws ProviderError IN_USE DENIED CONFIG_INVALID when it cannot listen, or its state is not its own
 */
export async function serveAppliance(options: ServeApplianceOptions): Promise<Appliance> {
  const { tls, host = "127.0.0.1" } = options;
  checkCertificates(tls);
  const notice = (message: string): void => options.notice?.(message);
  const places = placesOf(options);
  const sessions = new VolumeSessions(places, await EpochFile.open(join(options.stateFolder, "epochs.json")));
  const nbd = await serveNbd({
    listen: { host, port: options.port ?? defaultNbdPort },
    tls,
    epochs: true,
    exports: (name) => sessions.find(name),
    authorize: (request) => sessions.authorize(request),
    notice,
  });
  sessions.useFences(nbd);
  try {
    const door = await openControlDoor({
      host,
      port: options.controlPort ?? defaultControlPort,
      tls,
      places,
      sessions,
      notice,
    });
    let closing: Promise<void> | undefined;
    const close = async (): Promise<void> => {
      await door.close();
      await nbd.close();
      await sessions.dispose();
    };
    return {
      host,
      port: "port" in nbd.address ? nbd.address.port : 0,
      controlPort: door.port,
      close: () => (closing ??= close()),
      [Symbol.asyncDispose]: () => (closing ??= close()),
    };
  } catch (error) {
    await nbd.close();
    throw error;
  }
}

function checkCertificates({ cert, key, ca }: ServeApplianceOptions["tls"]): void {
  try {
    createSecureContext({ cert, key });
    for (const each of ca.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [""])
      new X509Certificate(each);
  } catch (error) {
    throw cloudstackError(
      "CONFIG_INVALID",
      "The appliance's certificate, its key or its authority is no PEM, or certificate and key are not of one pair.",
      { operation: "appliance", cause: error },
    );
  }
}

function placesOf({ deviceRoot, patienceMs = 60_000 }: ServeApplianceOptions): DevicePlaces {
  const root = deviceRoot ?? "/";
  return {
    byId: join(root, "dev", "disk", "by-id"),
    dev: join(root, "dev"),
    sys: join(root, "sys"),
    files: deviceRoot !== undefined,
    patienceMs,
  };
}
