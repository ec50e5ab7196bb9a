import type { ProviderError } from "@diskferry/core/provider";
import { defaultMaximumPayload, infoType } from "../protocol.ts";
import { printable } from "./errors.ts";

/** What lengths a server takes, in bytes. */
export interface BlockSizes {
  minimum: number;
  preferred: number;
  /** Of the payload of one request. */
  maximum: number;
}

/** What holds where the server tells no block sizes ("Size constraints" in the protocol). */
export const defaultBlockSize: BlockSizes = { minimum: 1, preferred: 4096, maximum: defaultMaximumPayload };

/** Collects the info replies to GO. Unknown kinds are ignored, as the protocol demands. */
export class Infos {
  export: { size: number; flags: number } | undefined;
  blockSize: BlockSizes | undefined;
  description: string | undefined;

  add(data: Buffer, refuse: (why: string) => ProviderError): void {
    if (data.byteLength < 2) throw refuse("a malformed info reply");
    const type = data.readUInt16BE(0);
    if (type === infoType.export) {
      this.addExport(data.subarray(2), refuse);
    } else if (type === infoType.blockSize) {
      if (data.byteLength !== 14) throw refuse("a malformed block size info");
      const [minimum, preferred, maximum] = [data.readUInt32BE(2), data.readUInt32BE(6), data.readUInt32BE(10)];
      const sound = isPowerOfTwo(minimum) && minimum <= 65536 && isPowerOfTwo(preferred);
      if (!sound || preferred < minimum || maximum < minimum) {
        throw refuse(`impossible block sizes: minimum ${minimum}, preferred ${preferred}, maximum ${maximum}`);
      }
      this.blockSize = { minimum, preferred, maximum };
    } else if (type === infoType.description) {
      this.description = printable(data.subarray(2));
    }
  }

  addExport(data: Buffer, refuse: (why: string) => ProviderError): void {
    if (data.byteLength !== 10) throw refuse("a malformed export info");
    const high = data.readUInt32BE(0);
    // Offsets are numbers, exact up to 2^53.
    if (high >= 0x20_0000) throw refuse("the export claims to be larger than 8 PiB");
    this.export = { size: high * 0x1_0000_0000 + data.readUInt32BE(4), flags: data.readUInt16BE(8) };
  }
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}
