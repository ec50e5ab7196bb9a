/** How many separate pieces a reply may be in before it counts as an attack on our memory. */
const maximumPieces = 4096;

/** Which bytes of one read have been received. Bytes that come twice, or too many pieces at once, are refused. */
export class Coverage {
  /** Everything before this is there. */
  #contiguous = 0;
  /** What is there beyond it: ascending, disjoint, not touching. */
  #pieces: { from: number; to: number }[] = [];

  /** Notes `[from, to)`; false: it overlaps what came before, or there are too many pieces. */
  add(from: number, to: number): boolean {
    const pieces = this.#pieces;
    if (from < this.#contiguous) return false;
    if (pieces.length === 0 && from === this.#contiguous) {
      this.#contiguous = to;
      return true;
    }
    let index = pieces.length;
    while (index > 0 && (pieces[index - 1]?.from ?? 0) >= from) index--;
    const before = pieces[index - 1];
    const after = pieces[index];
    if ((before !== undefined && before.to > from) || (after !== undefined && after.from < to)) return false;
    pieces.splice(index, 0, { from, to });
    this.#join(index + 1);
    this.#join(index);
    const [first] = pieces;
    if (first !== undefined && first.from === this.#contiguous) {
      this.#contiguous = first.to;
      pieces.shift();
    }
    return pieces.length <= maximumPieces;
  }

  /** Whether `[0, length)` is there, all of it. */
  covers(length: number): boolean {
    return this.#contiguous === length;
  }

  #join(index: number): void {
    const left = this.#pieces[index - 1];
    const right = this.#pieces[index];
    if (left === undefined || right === undefined || left.to !== right.from) return;
    left.to = right.to;
    this.#pieces.splice(index, 1);
  }
}
