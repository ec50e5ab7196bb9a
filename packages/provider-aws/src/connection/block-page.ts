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

/**
 * How many entries are made at once. What V8 finds alive at a collection adds up until it doubles its young generation: over
 * the 33.6 million blocks of 16 TiB that happens with 32 of them, and not with 8.
 */
const entriesAtOnce = 8;
const [quote, comma, openList, backslash, closeList, open, close] = [34, 44, 91, 92, 93, 123, 125];

/** Where the list of a page begins and ends, its brackets left out. */
interface ListPlace {
  start: number;
  end: number;
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
  for (let from = place.start; from <= place.end;) {
    const end = endOfSome(text, from, place.end);
    const some = parse(listText(text, from, end), text.byteLength) as unknown[];
    // Behind a comma an entry has to follow.
    if (some.length === 0 && from !== place.start) throw noJson(text.byteLength);
    yield some;
    from = end + 1;
  }
}

/** Where the comma stands behind the entries that are made next, or the list's end. */
function endOfSome(text: Buffer, from: number, listEnd: number): number {
  let depth = 0;
  let entries = 0;
  for (let at = from; at < listEnd; at++) {
    const byte = text[at];
    if (byte === quote) at = endOfString(text, at);
    else if (byte === open || byte === openList) depth++;
    else if ((byte === close || byte === closeList) && --depth === 0 && ++entries === entriesAtOnce) {
      if (text[at + 1] === comma) return at + 1;
    }
  }
  return listEnd;
}

/** What stands in [from, end) of a list, as a list of its own: the bytes around it are brackets while it is read. */
function listText(text: Buffer, from: number, end: number): string {
  const [before, behind] = [text[from - 1]!, text[end]!];
  text[from - 1] = openList;
  text[end] = closeList;
  const list = text.toString("utf8", from - 1, end + 1);
  text[from - 1] = before;
  text[end] = behind;
  return list;
}

function parse(text: string, bytes: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw noJson(bytes);
  }
}

function noJson(bytes: number): AwsFailure {
  return new AwsFailure("InvalidResponse", `The page of ${bytes} bytes is no JSON`);
}

/** Finds the list by quotes and brackets alone; what stands between them is JSON.parse's to judge. */
function placeOfList(text: Buffer, name: RegExp): ListPlace | undefined {
  let place: ListPlace | undefined;
  let depth = 0;
  for (let at = 0; at < text.byteLength; at++) {
    const byte = text[at];
    if (byte === quote) at = endOfString(text, at);
    else if (byte === open || byte === openList) {
      const isList = byte === openList && depth === 1 && place === undefined;
      if (isList && name.test(text.toString("latin1", Math.max(0, at - 64), at))) place = { start: at + 1, end: -1 };
      depth++;
    } else if (byte === close || byte === closeList) {
      depth--;
      if (place?.end === -1 && depth === 1) place.end = at;
    }
  }
  if (place?.end === -1) throw new AwsFailure("InvalidResponse", `The page of ${text.byteLength} bytes is cut off`);
  return place;
}

/** Where the quote stands that ends a string, by where the one stands that begins it. */
function endOfString(text: Buffer, begin: number): number {
  let at = begin + 1;
  while (at < text.byteLength && text[at] !== quote) at += text[at] === backslash ? 2 : 1;
  return at;
}
