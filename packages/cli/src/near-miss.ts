/** What somebody may have meant who wrote `given`: the nearest of `known`, or undefined when none is near. */
export function nearMiss(given: string, known: Iterable<string>): string | undefined {
  if (given.length > mostCharacters) return undefined;
  let best: string | undefined;
  let least = Infinity;
  for (const name of known) {
    const distance = distanceOf(given.toLowerCase(), name.toLowerCase());
    if (distance < least) [best, least] = [name, distance];
  }
  return best !== undefined && least <= Math.max(1, Math.floor(Math.max(given.length, best.length) / 3))
    ? best
    : undefined;
}

/** ` (did you mean …?)`, or nothing. */
export function didYouMean(given: string, known: Iterable<string>): string {
  const near = nearMiss(given, known);
  return near === undefined ? "" : ` (did you mean ${near}?)`;
}

/** Longer words are near nothing: the time grows with the product of the lengths. */
const mostCharacters = 64;

/** Insertions, deletions, replacements and swaps of neighbours that make one word of the other. */
function distanceOf(one: string, other: string): number {
  const [left, right] = [one, other.slice(0, mostCharacters)];
  let before: number[] = [];
  let last = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let row = 1; row <= left.length; row++) {
    const next = [row];
    for (let column = 1; column <= right.length; column++) {
      const replaced = last[column - 1]! + (left[row - 1] === right[column - 1] ? 0 : 1);
      let least = Math.min(replaced, last[column]! + 1, next[column - 1]! + 1);
      const swapped = row > 1 && left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1];
      if (column > 1 && swapped) least = Math.min(least, before[column - 2]! + 1);
      next.push(least);
    }
    [before, last] = [last, next];
  }
  return last[right.length]!;
}
