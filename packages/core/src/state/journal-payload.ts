import type { Extent, Json } from "../provider/extents.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import type { WrittenExtent } from "../provider/target.ts";
import { digestLength } from "../manifest/digest.ts";

/** Offsets and lengths are kept in units of this many bytes. */
const unit = 512;

/** What a journal belongs to: another run, snapshot or generation voids it. */
export interface JournalHeader {
  run: string;
  /** The source's disk snapshot. */
  snapshot: string;
  /** The writer's generation. */
  generation: string;
  /** Bytes of the disk. */
  size: number;
  /** Bytes per leaf. */
  leaf: number;
  algorithm: DigestAlgorithm;
}

/** One line of a journal. */
export type JournalLine =
  | ({ kind: "open" } & JournalHeader)
  /** These extents are about to be written: until they are durable nobody knows what the target holds there. */
  | { kind: "intent"; extents: Extent[] }
  /** These extents hold the snapshot's content durably; `digests` are of every leaf the extent touches, in order. */
  | { kind: "durable"; extents: WrittenExtent[] }
  | { kind: "note"; note: Json };

const kinds = { open: 1, intent: 2, durable: 3, note: 4 } as const;

/** How many leaves an extent touches. */
export function touchedLeaves(extent: Extent, leaf: number): number {
  if (extent.length === 0) return 0;
  return Math.ceil((extent.offset + extent.length) / leaf) - Math.floor(extent.offset / leaf);
}

/** The payload of a line. @throws RangeError for extents that are no multiples of 512 or with too few digests. */
export function encodeLine(line: JournalLine, leaf: number): Uint8Array {
  if (line.kind === "open") {
    const { kind: _, ...header } = line;
    return Buffer.concat([Buffer.of(kinds.open), Buffer.from(JSON.stringify(header))]);
  }
  if (line.kind === "note") return Buffer.concat([Buffer.of(kinds.note), Buffer.from(JSON.stringify(line.note))]);
  const parts: Uint8Array[] = [Buffer.of(kinds[line.kind]), number(line.extents.length)];
  let end = 0;
  for (const extent of line.extents) {
    checkExtent(extent);
    // Extents mostly ascend, so the step from the end of the one before is small; its lowest bit is its sign.
    const step = (extent.offset - end) / unit;
    parts.push(number(step < 0 ? -step * 2 - 1 : step * 2), number(extent.length / unit));
    end = extent.offset + extent.length;
    if (line.kind === "durable") parts.push(...digestsOf(extent, leaf));
  }
  return Buffer.concat(parts);
}

/** The line of a payload. @throws Error saying what is wrong with it; the reader names the log. */
export function decodeLine(payload: Uint8Array, header: JournalHeader | undefined): JournalLine {
  const kind = payload[0];
  if (kind === kinds.open) return { kind: "open", ...checkHeader(parse(payload)) };
  if (header === undefined) throw new Error("it does not begin with what it belongs to");
  if (kind === kinds.note) return { kind: "note", note: parse(payload) };
  if (kind !== kinds.intent && kind !== kinds.durable) throw new Error(`it holds a line of unknown kind ${kind}`);
  const input = new PayloadReader(payload);
  const extents: WrittenExtent[] = [];
  let end = 0;
  for (let left = input.number(); left > 0; left--) {
    const step = input.number();
    const offset = end + (step % 2 === 1 ? -(step + 1) / 2 : step / 2) * unit;
    const extent: WrittenExtent = { offset, length: input.number() * unit };
    end = offset + extent.length;
    if (offset < 0 || end > header.size) throw new Error("it holds an extent outside the disk");
    if (kind === kinds.durable && input.number() === 1) {
      extent.digests = input.bytes(touchedLeaves(extent, header.leaf) * digestLength);
    }
    extents.push(extent);
  }
  if (!input.ended) throw new Error("it holds a line that is too long");
  return { kind: kind === kinds.intent ? "intent" : "durable", extents };
}

function digestsOf(extent: WrittenExtent, leaf: number): Uint8Array[] {
  if (extent.digests === undefined) return [number(0)];
  if (extent.digests.byteLength !== touchedLeaves(extent, leaf) * digestLength) {
    throw new RangeError(
      `${extent.digests.byteLength} bytes of digests do not fit ${touchedLeaves(extent, leaf)} leaves at ${extent.offset}`,
    );
  }
  return [number(1), extent.digests];
}

function checkExtent({ offset, length }: Extent): void {
  for (const value of [offset, length]) {
    if (!Number.isSafeInteger(value) || value < 0 || value % unit !== 0) {
      throw new RangeError(`a journal's extents are multiples of ${unit} bytes, not ${offset}+${length}`);
    }
  }
}

function checkHeader(json: Json): JournalHeader {
  const given = (typeof json === "object" && json !== null && !Array.isArray(json) ? json : {}) as Record<string, Json>;
  const { run, snapshot, generation, size, leaf, algorithm } = given;
  const positive = (value: Json | undefined): value is number => Number.isSafeInteger(value) && Number(value) > 0;
  if (typeof run !== "string" || typeof snapshot !== "string" || typeof generation !== "string") {
    throw new Error("it lacks its run, snapshot or generation");
  }
  if (!positive(size) || !positive(leaf)) throw new Error("it lacks its size or leaf");
  if (algorithm !== "blake3" && algorithm !== "sha256") throw new Error("it lacks its digest algorithm");
  return { run, snapshot, generation, size, leaf, algorithm };
}

function parse(payload: Uint8Array): Json {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload.subarray(1))) as Json;
}

/** A whole number of up to 53 bits, seven bits per byte, lowest first. */
function number(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
  bytes.push(value);
  return Uint8Array.from(bytes);
}

class PayloadReader {
  readonly #payload: Uint8Array;
  #at = 1;

  constructor(payload: Uint8Array) {
    this.#payload = payload;
  }

  get ended(): boolean {
    return this.#at === this.#payload.byteLength;
  }

  number(): number {
    let value = 0;
    for (let factor = 1; factor <= 2 ** 49; factor *= 0x80) {
      const byte = this.#payload[this.#at++];
      if (byte === undefined) throw new Error("it holds a line that ends too early");
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
    }
    throw new Error("it holds a number that is too large");
  }

  bytes(length: number): Uint8Array {
    if (this.#at + length > this.#payload.byteLength) throw new Error("it holds a line that ends too early");
    this.#at += length;
    // A copy, which `slice` of a Buffer would not be: the frame's memory is large and does not outlive it.
    return new Uint8Array(this.#payload.subarray(this.#at - length, this.#at));
  }
}
