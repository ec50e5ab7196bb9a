import type { Request } from "./request.ts";

/** A range whose status is the same throughout, in each of the contexts asked for. */
export interface NbdExtent {
  readonly offset: number;
  readonly length: number;
  /**
   * By context name. `base:allocation`: 1 hole, 2 reads as zeroes (1 alone promises nothing);
   * `qemu:dirty-bitmap:…`: 1 dirty; `diskferry:changes:…`: 1 changed, 2 what changed is not known;
   * `qemu:allocation-depth`: 0 absent, 1 here, more in a backing file.
   */
  readonly flags: Readonly<Record<string, number>>;
}

/** Reads the descriptors of one context in order. */
class Descriptors {
  readonly #bytes: Buffer;
  readonly #extended: boolean;
  #at = 0;
  /** Bytes left of the current descriptor. */
  left = 0;
  status = 0;

  constructor(bytes: Buffer, extended: boolean) {
    this.#bytes = bytes;
    this.#extended = extended;
  }

  /** Moves to the next descriptor if this one is used up; false: there is none. */
  ready(): boolean {
    if (this.left > 0) return true;
    if (this.#at === this.#bytes.byteLength) return false;
    if (this.#extended) {
      this.left = number64(this.#bytes, this.#at);
      this.status = number64(this.#bytes, this.#at + 8);
      this.#at += 16;
    } else {
      this.left = this.#bytes.readUInt32BE(this.#at);
      this.status = this.#bytes.readUInt32BE(this.#at + 4);
      this.#at += 8;
    }
    return true;
  }
}

/**
 * Where the replies of several contexts all reach, cut at every change of any of them. Contexts may answer with other
 * extents and for different lengths, and the last extent may go beyond `end`: it is clamped.
 */
export function* alignStatuses(
  request: Request,
  contexts: readonly { name: string; id: number }[],
  end: number,
  extended: boolean,
): Generator<NbdExtent, void, undefined> {
  const descriptors = contexts.map(({ id }) => new Descriptors(request.statuses?.get(id) ?? Buffer.alloc(0), extended));
  let offset = request.asked.offset;
  while (offset < end && descriptors.every((each) => each.ready())) {
    const length = Math.min(end - offset, ...descriptors.map((each) => each.left));
    const flags: Record<string, number> = {};
    contexts.forEach(({ name }, index) => {
      const each = descriptors[index];
      if (each === undefined) return;
      flags[name] = each.status;
      each.left -= length;
    });
    yield { offset, length, flags };
    offset += length;
  }
}

/** Joins neighbours whose flags are the same in every context. */
export function joined(left: NbdExtent, right: NbdExtent): NbdExtent | undefined {
  for (const name in right.flags) if (left.flags[name] !== right.flags[name]) return undefined;
  return { offset: left.offset, length: left.length + right.length, flags: left.flags };
}

function number64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4);
}
