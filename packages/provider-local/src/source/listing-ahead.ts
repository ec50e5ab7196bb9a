import type { NbdClient, NbdExtent, NbdStatusOptions } from "@diskferry/nbd";

interface Ahead {
  readonly id: string;
  readonly client: NbdClient;
  readonly contexts: readonly string[];
  readonly stop: AbortController;
  readonly extents: AsyncIterator<NbdExtent, unknown>;
  readonly first: Promise<IteratorResult<NbdExtent, unknown> | undefined>;
}

/** What to ask a server about a disk. */
export interface Listing extends NbdStatusOptions {
  from: number;
  to: number;
  contexts: readonly string[];
}

/**
 * A listing of a whole disk that is asked for before anybody wants it: a server may look at all of its disk to answer, and
 * there is much to be done meanwhile. It is given out once, to whoever first lists the same point in time.
 */
export class ListingAhead {
  #ahead: Ahead | undefined;

  /** Asks about a point in time once `when` has come. An error is as if nothing had been asked. */
  begin(id: string, client: NbdClient, contexts: readonly string[], when: Promise<unknown>): void {
    this.drop();
    const stop = new AbortController();
    const status = client.blockStatus(0, client.size, { contexts, signal: stop.signal });
    const extents = status[Symbol.asyncIterator]() as AsyncIterator<NbdExtent, unknown>;
    const first = when.then(() => extents.next()).catch(() => undefined);
    this.#ahead = { id, client, contexts, stop, extents, first };
  }

  /** The extents of a range of a disk, of the point in time of that id. @throws ProviderError; the signal's reason */
  async *list(id: string, client: NbdClient, listing: Listing): AsyncGenerator<NbdExtent, void, void> {
    const { from, to, contexts, signal } = listing;
    const ahead = this.#take(id, client, listing);
    if (ahead !== undefined) {
      const cut = (): void => ahead.stop.abort(signal?.reason);
      signal?.addEventListener("abort", cut, { once: true });
      try {
        for (let next = await ahead.first; next !== undefined; next = await ahead.extents.next()) {
          if (next.done === true) return;
          yield next.value;
        }
        signal?.throwIfAborted();
      } finally {
        signal?.removeEventListener("abort", cut);
        ahead.stop.abort();
      }
    }
    yield* client.blockStatus(from, to - from, { contexts, signal });
  }

  /** Waits for it no more. */
  drop(): void {
    this.#ahead?.stop.abort();
    this.#ahead = undefined;
  }

  #take(id: string, client: NbdClient, { from, to, contexts }: Listing): Ahead | undefined {
    const ahead = this.#ahead;
    const same =
      ahead?.id === id &&
      ahead.client === client &&
      from === 0 &&
      to === client.size &&
      contexts.join() === ahead.contexts.join();
    if (!same) return undefined;
    this.#ahead = undefined;
    return ahead;
  }
}
