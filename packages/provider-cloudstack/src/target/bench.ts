import type { Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { DeviceIo } from "../device/device-io.ts";
import { openDevice } from "../device/find-device.ts";

/** An attached volume, open on the appliance: on this machine, or over NBD. */
export interface OpenVolume {
  readonly size: number;
  readonly blockSize: number;
  readonly concurrency: number;
  readonly preferredLength: number;
  read(offset: number, into: Uint8Array, wait?: Wait): Promise<void>;
  write(offset: number, data: Uint8Array, wait?: Wait): Promise<void>;
  zero(offset: number, length: number, wait?: Wait): Promise<void>;
  flush(wait?: Wait): Promise<void>;
  /** Lets nothing more begin, for this reason, and resolves when nothing is under way. */
  shut(reason: () => Error): Promise<void>;
  close(): Promise<void>;
}

/** Opens what is attached to the appliance. */
export interface Bench {
  /** Opens a volume that is attached; for writing, nobody else has it open then. */
  open(
    volume: { id: string; size: number },
    purpose: { mode: "read" } | { mode: "write"; epoch: number },
    wait: Wait,
  ): Promise<OpenVolume>;
  close(): Promise<void>;
}

/** Calls at once on one device: as many as Node's thread pool runs. */
const CONCURRENCY = 4;
const PREFERRED = 1024 * 1024;

/** The bench of the machine this runs on. */
export function localBench(cloud: Cloud): Bench {
  return {
    async open(volume, { mode }, wait) {
      const io = new DeviceIo(await openDevice(volume, mode, cloud.devicePlaces(), wait));
      return Object.assign(io, { concurrency: CONCURRENCY, preferredLength: PREFERRED });
    },
    close: async () => {},
  };
}
