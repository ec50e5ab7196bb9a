import { ProviderError } from "../provider/error.ts";
import type { Extent, Json } from "../provider/extents.ts";
import type { WrittenExtent } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { encodeFrame, findFrame, frameHeaderLength, nextMagic } from "./frame.ts";
import { decodeLine, encodeLine, type JournalHeader, type JournalLine, touchedLeaves } from "./journal-payload.ts";
import type { StateStore } from "./state-store.ts";

export type { JournalHeader, JournalLine } from "./journal-payload.ts";

/** A line of a journal and the log it stands in. */
export type JournalEntry = JournalLine & { readonly log: string };

/** Extents per frame: with 32 bytes of digest per leaf a frame stays far below its bound. */
const extentsPerFrame = 4096;
const digestBytesPerFrame = 2 * 1024 * 1024;
/** Frames that look right by their header and are not, after which a damaged log is searched no further. */
const candidatesSearched = 256;

/** A journal that is being written; one writer, one log. Each call is durable when it resolves. */
export interface Journal {
  readonly key: string;
  readonly header: JournalHeader;
  /** Bytes appended so far. */
  readonly bytes: number;
  /** Before the extents are written: afterwards nobody trusts what the target holds there. */
  intent(extents: readonly Extent[], wait?: Wait): Promise<void>;
  /**
   * After the target's flush. `digests`: of every leaf that the extent touches, in order, 32 bytes each; absent: not
   * known.
   */
  durable(extents: readonly WrittenExtent[], wait?: Wait): Promise<void>;
  /** Anything else to find again, such as a phase or a target's own map. */
  note(note: Json, wait?: Wait): Promise<void>;
}

/**
 * Begins a journal. Its log is new: a run that goes on after a crash writes a log of its own under the same prefix, as
 * an append after a torn frame would read as damage. @throws ProviderError EXISTS when there is one already.
 */
export async function openJournal(
  store: StateStore,
  key: string,
  header: JournalHeader,
  wait?: Wait,
): Promise<Journal> {
  for await (const piece of store.log(key, wait)) {
    if (piece.byteLength === 0) continue;
    throw new ProviderError("EXISTS", `the journal ${key} exists already; a resumed run writes one of its own`, {
      operation: "open journal",
    });
  }
  const journal = new StoredJournal(store, key, header);
  await journal.write({ kind: "open", ...header }, wait);
  return journal;
}

class StoredJournal implements Journal {
  readonly key: string;
  readonly header: JournalHeader;
  #bytes = 0;
  readonly #store: StateStore;

  constructor(store: StateStore, key: string, header: JournalHeader) {
    this.#store = store;
    this.key = key;
    this.header = header;
  }

  get bytes(): number {
    return this.#bytes;
  }

  async intent(extents: readonly Extent[], wait?: Wait): Promise<void> {
    for (let at = 0; at < extents.length; at += extentsPerFrame) {
      await this.write({ kind: "intent", extents: extents.slice(at, at + extentsPerFrame) }, wait);
    }
  }

  async durable(extents: readonly WrittenExtent[], wait?: Wait): Promise<void> {
    for (const group of this.#groups(extents)) await this.write({ kind: "durable", extents: group }, wait);
  }

  async note(note: Json, wait?: Wait): Promise<void> {
    await this.write({ kind: "note", note }, wait);
  }

  /** Appends a line as one frame in one append: only what is appended at once can be torn. */
  async write(line: JournalLine, wait?: Wait): Promise<void> {
    const frame = encodeFrame(encodeLine(line, this.header.leaf));
    await this.#store.append(this.key, frame, wait);
    this.#bytes += frame.byteLength;
  }

  /** The extents in groups that fit a frame, the longest ones cut at leaves. */
  *#groups(extents: readonly WrittenExtent[]): Generator<WrittenExtent[], void, undefined> {
    let group: WrittenExtent[] = [];
    let digestBytes = 0;
    for (const whole of extents) {
      for (const extent of cut(whole, this.header.leaf)) {
        const added = extent.digests?.byteLength ?? 0;
        if (group.length === extentsPerFrame || (group.length > 0 && digestBytes + added > digestBytesPerFrame)) {
          yield group;
          group = [];
          digestBytes = 0;
        }
        group.push(extent);
        digestBytes += added;
      }
    }
    if (group.length > 0) yield group;
  }
}

/** An extent whose digests would not fit a frame, in pieces that begin at leaves. */
function* cut(extent: WrittenExtent, leaf: number): Generator<WrittenExtent, void, undefined> {
  const { digests } = extent;
  if (digests === undefined || digests.byteLength <= digestBytesPerFrame) return yield extent;
  if (digests.byteLength !== touchedLeaves(extent, leaf) * 32) {
    throw new RangeError(`${digests.byteLength} bytes of digests do not fit the extent at ${extent.offset}`);
  }
  const end = extent.offset + extent.length;
  const leaves = digestBytesPerFrame / 32;
  let offset = extent.offset;
  for (let at = 0; offset < end; at += digestBytesPerFrame) {
    const next = Math.min(end, (Math.floor(offset / leaf) + leaves) * leaf);
    yield { offset, length: next - offset, digests: digests.subarray(at, at + digestBytesPerFrame) };
    offset = next;
  }
}

/**
 * Every line of every journal whose key is `prefix` or goes on with `/` after it, log by log in the order of their keys
 * (numbers by value, so that epochs need no padding), in memory that does not grow with them. Order matters, as a later
 * intent takes back what an earlier line says is durable: where one writer has several logs, their keys must tell which
 * came first. A torn last frame is left out, for nobody was told that it is durable. @throws ProviderError CORRUPT naming the log when a damaged frame is followed by a good one.
 */
export async function* replayJournals(
  store: StateStore,
  prefix: string,
  wait?: Wait,
): AsyncGenerator<JournalEntry, void, undefined> {
  const keys: string[] = [];
  const whole = prefix.replace(/\/$/, "");
  // Whole parts: the journals of disk 2000 are none of disk 200's, though their keys begin the same.
  for await (const key of store.list(whole, wait)) {
    if (whole === "" || key === whole || key.startsWith(`${whole}/`)) keys.push(key);
  }
  if (keys.length > 1) {
    // Not for one: the first collator of a process costs it 10 ms.
    const order = new Intl.Collator("en", { numeric: true, sensitivity: "variant" });
    keys.sort((left, right) => order.compare(left, right) || (left < right ? -1 : 1));
  }
  for (const key of keys) yield* replayLog(store, key, wait);
}

async function* replayLog(
  store: StateStore,
  key: string,
  wait: Wait | undefined,
): AsyncGenerator<JournalEntry, void, undefined> {
  let header: JournalHeader | undefined;
  for await (const payload of framesOf(store.log(key, wait), key)) {
    let line: JournalLine;
    try {
      line = decodeLine(payload, header);
      if (line.kind === "open" && header !== undefined) throw new Error("it begins twice");
    } catch (error) {
      throw corrupt(key, error instanceof Error ? error.message : String(error), error);
    }
    if (line.kind === "open") header = line;
    yield { ...line, log: key };
  }
}

/** The payloads of a log's frames, each valid until the next is asked for. */
async function* framesOf(pieces: AsyncIterable<Uint8Array>, key: string): AsyncGenerator<Uint8Array, void, undefined> {
  let held: Buffer = Buffer.alloc(0);
  let damagedAt: number | undefined;
  let passed = 0;
  let candidates = 0;
  let needed = frameHeaderLength;
  for await (const piece of pieces) {
    held = Buffer.concat([held, piece]);
    if (held.length < needed) continue;
    let at = 0;
    needed = frameHeaderLength;
    while (at < held.length) {
      if (damagedAt !== undefined) {
        // Looking for a good frame behind the damage; the last three bytes may be the beginning of a magic.
        const next = nextMagic(held, at);
        if (next === -1) {
          at = Math.max(at, held.length - 3);
          break;
        }
        at = next;
      }
      const found = findFrame(held.subarray(at));
      if (found.kind === "short") {
        needed = found.needed;
        break;
      }
      if (found.kind === "frame" && damagedAt === undefined) {
        yield found.payload;
        at += found.length;
        continue;
      }
      if (found.kind === "frame" || ++candidates > candidatesSearched) {
        throw corrupt(key, `the frame at byte ${damagedAt} is damaged and more follows`);
      }
      damagedAt ??= passed + at;
      at++;
    }
    passed += at;
    held = held.subarray(at);
  }
}

function corrupt(key: string, what: string, cause?: unknown): ProviderError {
  return new ProviderError(
    "CORRUPT",
    `the journal ${key} is damaged: ${what}; remove the run's state, and the next run compares the whole disk`,
    { operation: "replay journal", cause },
  );
}
