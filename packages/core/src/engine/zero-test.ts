const ZEROES = Buffer.alloc(1 << 20);

/**
 * Whether every byte is zero. Compares whole memory; never samples. Most data says at its first byte that it is not zero,
 * which saves the call of the comparison.
 */
function isZeroWithin(view: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at += ZEROES.length) {
    if (view[at] !== 0) return false;
    const end = Math.min(at + ZEROES.length, to);
    if (view.compare(ZEROES, 0, end - at, at, end) !== 0) return false;
  }
  return true;
}

/** A shared run of zeroes of at most 1 MiB, for writers that know no other way to clear a range. Never write to it. */
export function zeroBytes(length: number): Uint8Array {
  return ZEROES.subarray(0, length);
}

export const MOST_ZERO_BYTES: number = ZEROES.length;

export interface Span {
  start: number;
  end: number;
  zero: boolean;
}

/**
 * Splits [start, end) of `bytes` into runs of data and runs of zeroes, on multiples of `unit` counted from the
 * beginning of `bytes`.
 */
export function spansOf(bytes: Uint8Array, start: number, end: number, unit: number): Span[] {
  const spans: Span[] = [];
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let last: Span | undefined;
  let position = start;
  while (position < end) {
    const stop = Math.min(end, position - (position % unit) + unit);
    const zero = isZeroWithin(view, position, stop);
    if (last !== undefined && last.zero === zero) last.end = stop;
    else spans.push((last = { start: position, end: stop, zero }));
    position = stop;
  }
  return spans;
}
