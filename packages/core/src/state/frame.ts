import { crc32 } from "node:zlib";

/** "DfJ1" as it lies in the file. */
const magic = 0x314a6644;

/** Bytes before a frame's payload: magic, payload length, CRC-32 of the payload, CRC-32 of these three. */
export const frameHeaderLength = 16;

/** The longest payload of a frame, in bytes, which bounds what a reader holds. */
export const longestPayload: number = 4 * 1024 * 1024;

/** What the bytes at some place of a log turned out to be. */
export type FrameFound =
  | { kind: "frame"; payload: Uint8Array; length: number }
  /** Not a frame, or one with a wrong checksum. */
  | { kind: "damaged" }
  /** Perhaps a frame: this many bytes have to be there to tell. */
  | { kind: "short"; needed: number };

/** A frame around a payload. */
export function encodeFrame(payload: Uint8Array): Uint8Array {
  if (payload.byteLength > longestPayload) throw new RangeError(`no frame holds ${payload.byteLength} bytes`);
  const frame = Buffer.allocUnsafe(frameHeaderLength + payload.byteLength);
  frame.writeUInt32LE(magic, 0);
  frame.writeUInt32LE(payload.byteLength, 4);
  frame.writeUInt32LE(crc32(payload), 8);
  frame.writeUInt32LE(crc32(frame.subarray(0, 12)), 12);
  frame.set(payload, frameHeaderLength);
  return frame;
}

/** Looks for a frame at the beginning of `bytes`; the payload is a view of them. */
export function findFrame(bytes: Buffer): FrameFound {
  if (bytes.length < frameHeaderLength) return { kind: "short", needed: frameHeaderLength };
  const length = bytes.readUInt32LE(4);
  if (bytes.readUInt32LE(0) !== magic || bytes.readUInt32LE(12) !== crc32(bytes.subarray(0, 12))) {
    return { kind: "damaged" };
  }
  if (length > longestPayload) return { kind: "damaged" };
  if (bytes.length < frameHeaderLength + length) return { kind: "short", needed: frameHeaderLength + length };
  const payload = bytes.subarray(frameHeaderLength, frameHeaderLength + length);
  if (crc32(payload) !== bytes.readUInt32LE(8)) return { kind: "damaged" };
  return { kind: "frame", payload, length: frameHeaderLength + length };
}

/** Where the next magic begins in `bytes` from `from` on, or -1. */
export function nextMagic(bytes: Buffer, from: number): number {
  const text = Buffer.alloc(4);
  text.writeUInt32LE(magic);
  return bytes.indexOf(text, from);
}
