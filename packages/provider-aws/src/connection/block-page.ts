import { AwsFailure } from "../errors.ts";

/** A page of a listing, before anything in it was looked at. */
export interface BlockPage {
  readonly BlockSize?: unknown;
  readonly NextToken?: unknown;
  /**
   * Its entries, some at a time and made as they are asked for: what is made of a whole page at once outlives V8's
   * young generation and has it grow to its largest. Good until the page's memory is used again.
   * @throws AwsFailure for what is no JSON
   */
  readonly entries: Iterable<readonly unknown[]>;
}

/** Memory for the text of one page after the other. */
export interface PageMemory {
  text: Buffer;
}

/** How many entries are made at once. */
const entriesAtOnce = 256;
const [quote, comma, openList, backslash, closeList, open, close] = [34, 44, 91, 92, 93, 123, 125];

/** Where the list of a page begins and ends, and where in it each so-many-eth entry ends. */
interface ListPlace {
  start: number;
  end: number;
  cuts: number[];
}

/**
 * Reads a page of ListSnapshotBlocks (`Blocks`) or ListChangedBlocks (`ChangedBlocks`).
 * @throws AwsFailure for what is no JSON object, and for the other call's list: its blocks would count as freed, or be missed
 */
export function readPage(text: Buffer, list: "Blocks" | "ChangedBlocks"): BlockPage {
  const place = placeOfList(text, new RegExp(`"${list}"\\s*:\\s*$`));
  // The page without its entries is small.
  const rest =
    place === undefined
      ? text.toString()
      : text.toString("utf8", 0, place.start) + text.toString("utf8", place.end, text.byteLength);
  const page = parse(rest, text.byteLength);
  if (typeof page !== "object" || page === null) throw new AwsFailure("InvalidResponse", "The page is no JSON object");
  const other = list === "Blocks" ? "ChangedBlocks" : "Blocks";
  if (other in page) throw new AwsFailure("InvalidResponse", `The page lists ${other} instead of ${list}`);
  const { BlockSize, NextToken } = page as Record<string, unknown>;
  return { BlockSize, NextToken, entries: { [Symbol.iterator]: () => entriesOf(text, place) } };
}

function* entriesOf(text: Buffer, place: ListPlace | undefined): Generator<readonly unknown[]> {
  if (place === undefined) return;
  let from = place.start;
  for (const end of [...place.cuts, place.end]) {
    // Behind a comma an entry has to follow.
    const some = text.toString("utf8", from, end);
    yield parse(from === place.start || /\S/.test(some) ? `[${some}]` : "", text.byteLength) as unknown[];
    from = end + 1;
  }
}

function parse(text: string, bytes: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new AwsFailure("InvalidResponse", `The page of ${bytes} bytes is no JSON`);
  }
}

/** Finds the list by quotes and brackets alone; what stands between them is JSON.parse's to judge. */
function placeOfList(text: Buffer, name: RegExp): ListPlace | undefined {
  let place: ListPlace | undefined;
  let depth = 0;
  let entries = 0;
  let inList = false;
  for (let at = 0; at < text.byteLength; at++) {
    const byte = text[at];
    if (byte === quote) {
      for (at++; at < text.byteLength && text[at] !== quote; at++) if (text[at] === backslash) at++;
    } else if (byte === open || byte === openList) {
      if (
        byte === openList &&
        depth === 1 &&
        place === undefined &&
        name.test(text.toString("latin1", Math.max(0, at - 64), at))
      ) {
        place = { start: at + 1, end: at + 1, cuts: [] };
        inList = true;
      }
      depth++;
    } else if (byte === close || byte === closeList) {
      depth--;
      if (!inList) continue;
      if (depth === 1) {
        place!.end = at;
        inList = false;
      } else if (depth === 2 && ++entries % entriesAtOnce === 0 && text[at + 1] === comma) place!.cuts.push(at + 1);
    }
  }
  if (inList) throw new AwsFailure("InvalidResponse", `The page of ${text.byteLength} bytes is cut off`);
  return place;
}
