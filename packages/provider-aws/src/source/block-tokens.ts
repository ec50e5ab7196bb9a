import type { Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { listBlocks } from "./block-listing.ts";

/** A stretch of a snapshot whose listing is known: blocks in [from, end) that are not in `tokens` hold nothing. */
interface Stretch {
  from: number;
  end: number;
  tokens: Map<number, string>;
}

/** Stretches that are remembered; the least used is forgotten first. */
const mostStretches = 4;
/** Entries asked for by a reader that jumps about, and by one that goes on where a stretch ended. */
const smallPage = 100;
const largePage = 10_000;

/**
 * Tokens of a snapshot's blocks for reads that bring none, or whose own was refused. Listed by the page, shared by all
 * reads that need the same page, and bounded: at most 40 000 tokens, whatever the snapshot's size.
 */
export class BlockTokens {
  readonly #connection: AwsConnection;
  readonly #snapshotId: string;
  readonly #stretches: Stretch[] = [];
  readonly #listing = new Map<number, { end: number; done: Promise<Stretch> }>();

  constructor(connection: AwsConnection, snapshotId: string) {
    this.#connection = connection;
    this.#snapshotId = snapshotId;
  }

  /** What is known of a block by an earlier listing of ours; undefined: nothing, and no call is made. */
  known(index: number): string | undefined {
    return this.#stretchOf(index)?.tokens.get(index);
  }

  /** The token of a block; null: the snapshot holds no such block, which reads as zeroes. `refused`: not that one again. */
  async tokenOf(index: number, options: Wait & { refused?: string } = {}): Promise<string | null> {
    const { signal, refused } = options;
    const known = this.#stretchOf(index);
    const token = known?.tokens.get(index) ?? null;
    if (known !== undefined && (token === null || token !== refused)) return token;
    if (known !== undefined) this.#stretches.splice(this.#stretches.indexOf(known), 1);
    const stretch = await settledOrAborted(this.#list(index), signal);
    if (index < stretch.end) return stretch.tokens.get(index) ?? null;
    // The page that others were waiting for ended before this block.
    return this.tokenOf(index, options);
  }

  #stretchOf(index: number): Stretch | undefined {
    const at = this.#stretches.findIndex(({ from, end }) => index >= from && index < end);
    if (at < 0) return undefined;
    const [found] = this.#stretches.splice(at, 1);
    this.#stretches.push(found!);
    return found;
  }

  #list(index: number): Promise<Stretch> {
    for (const [from, { end, done }] of this.#listing) if (index >= from && index < end) return done;
    const goesOn = index === 0 || this.#stretches.some(({ from, end }) => index >= from && index < end + smallPage);
    const pageSize = goesOn ? largePage : smallPage;
    const done = this.#fetch(index, pageSize).finally(() => this.#listing.delete(index));
    this.#listing.set(index, { end: index + pageSize, done });
    return done;
  }

  async #fetch(from: number, pageSize: number): Promise<Stretch> {
    const stretch: Stretch = { from, end: Number.POSITIVE_INFINITY, tokens: new Map() };
    for await (const blocks of listBlocks(this.#connection, { snapshotId: this.#snapshotId, from, pageSize })) {
      for (const { index, token } of blocks) {
        if (token !== undefined) stretch.tokens.set(index, token);
        stretch.end = index + 1;
      }
      if (stretch.tokens.size === 0) continue;
      // The page may have been the last one, but that is only known by asking for the next; what it held is enough.
      break;
    }
    this.#stretches.push(stretch);
    if (this.#stretches.length > mostStretches) this.#stretches.shift();
    return stretch;
  }
}

/** Waits for what others wait for too: one who gives up leaves it to them. */
function settledOrAborted<Result>(shared: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (signal === undefined) return shared;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    shared.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
