/**
 * A name as people write it. vSphere keeps `/`, `\` and `%` in names as `%2f`, `%5c` and `%25`, in any case of the letters
 * (ManagedEntity.name).
 */
export function shownName(stored: string): string {
  return stored.replace(/%(2f|5c|25)/gi, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
}

/** A name as vSphere keeps it, for paths. */
export function storedName(shown: string): string {
  return shown.replace(/[%/\\]/g, (character) => `%${character.charCodeAt(0).toString(16)}`);
}

/** Names that someone may have meant, best first; at most five. */
export function nearNames(wanted: string, known: Iterable<string>): string[] {
  const target = wanted.toLowerCase();
  const most = Math.max(2, Math.floor(target.length / 3));
  const found: { name: string; distance: number }[] = [];
  for (const name of new Set(known)) {
    const candidate = name.toLowerCase();
    const contains = candidate.includes(target) || (candidate.length > 2 && target.includes(candidate));
    // A difference in length is at least that many edits.
    if (!contains && Math.abs(candidate.length - target.length) > most) continue;
    const distance = contains ? 1 : editDistance(target, candidate);
    if (distance <= most) found.push({ name, distance });
  }
  found.sort((one, other) => one.distance - other.distance || one.name.localeCompare(other.name));
  return found.slice(0, mostNearNames).map(({ name }) => name);
}

const mostNearNames = 5;

/** How many letters have to be put in, left out or replaced. */
function editDistance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let index = 1; index <= one.length; index++) {
    const next = [index];
    for (let column = 1; column <= other.length; column++) {
      const same = one[index - 1] === other[column - 1];
      next.push(Math.min(row[column]! + 1, next[column - 1]! + 1, row[column - 1]! + (same ? 0 : 1)));
    }
    row = next;
  }
  return row[other.length]!;
}
