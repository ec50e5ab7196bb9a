/**
 * The seed of a test's random inputs: `DISKFERRY_SEED`, else the one given. Print it with every failure; the same seed
 * gives the same inputs.
 */
export function seedOf(fallback: number): number {
  const given = process.env["DISKFERRY_SEED"];
  return given === undefined ? fallback : Number(given);
}

/** What a fuzz is run with: a seed that is always the same, and one of this run; `DISKFERRY_SEED` alone where it is given. */
export function seedsOf(fixed: number): number[] {
  const given = process.env["DISKFERRY_SEED"];
  return given === undefined ? [fixed, Math.floor(Math.random() * 2 ** 31)] : [Number(given)];
}

/** A small deterministic generator (mulberry32) of numbers in [0, 1). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** `length` bytes that do not compress and hold no zero block, the same for the same seed. */
export function randomBytes(length: number, seed: number): Uint8Array {
  const next = randomFrom(seed);
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let index = 0; index < words.length; index++) words[index] = next() * 4294967296;
  return new Uint8Array(words.buffer, 0, length);
}
