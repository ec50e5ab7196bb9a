import { isAbort, isProviderError, ProviderError } from "../provider/error.ts";
import type { Extent, Tile } from "../provider/extents.ts";
import type { BlockReader, DigestAlgorithm } from "../provider/reader.ts";
import type { BlockWriter, WrittenExtent } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { sleep } from "../layers/clock.ts";
import type { Layer } from "../layers/layer.ts";
import { openJournal, type Journal, type JournalHeader } from "../state/journal.ts";
import type { StateStore } from "../state/state-store.ts";
import { attemptLayer, type AttemptPolicy } from "./attempts.ts";
import type { Batch, BatchResult } from "./copier.ts";
import type { Knowledge } from "./knowledge.ts";
import type { Limits } from "./limits.ts";
import type { FarDigests } from "./narrow.ts";
import { ReopeningReader } from "./reopening-reader.ts";
import { isMendable, Session } from "./session.ts";
import { planWork, zeroDigests, type Group } from "./work-plan.ts";

export interface CopyRequest {
  store: StateStore;
  /** Where this attempt's journal goes; a new key for every attempt. */
  journalKey: string;
  header: JournalHeader;
  algorithm: DigestAlgorithm | "none";
  /** Opens the source's disk, every time anew. */
  openReader: (wait: Wait) => Promise<BlockReader>;
  /** Opens the same write again; its generation must be the journal's. */
  openWriter: (wait: Wait) => Promise<BlockWriter>;
  /** The writer that is open already. */
  writer: BlockWriter;
  knowledge: Knowledge;
  /** What changed, from the beginning of the range to its end; proven by the caller. */
  tiles: AsyncIterable<Tile>;
  from: number;
  to: number;
  /** Whether the target proves that it reads as zeroes wherever no run wrote. */
  blank: boolean;
  /** Whether leaves that the target is known to hold are left out. */
  compare: () => boolean;
  /** Whether changed parts of a leaf are enough. */
  parts: boolean;
  workers: number | undefined;
  memory: number;
  attempts: AttemptPolicy;
  limits: Limits | undefined;
  /** The caller's own layers, innermost; they run on this thread. */
  layers: readonly Layer[];
  groupBytes: number;
  groupMs: number;
  /** Checks that no newer worker took over. @throws ProviderError FENCED */
  check: () => Promise<void>;
  /** Asks for a stop at the next durable point. */
  pause: AbortSignal | undefined;
  signal: AbortSignal;
  onProgress: (progress: { settled?: number; result?: BatchResult; bytes?: number; durable?: number }) => void;
  /** Told while a pause or a closed window holds the copy, and once it goes on. */
  onHeld: (phase: "paused" | "waiting" | undefined) => void;
  notice: (message: string) => void;
}

export interface CopyCounts {
  read: number;
  written: number;
  zeroed: number;
  same: number;
  /** Bytes that needed no work: done before, or known to be right. */
  settled: number;
  /** How often a session was opened again. */
  reopened: number;
  threads: number;
}

/** What a copy came to; `writer` is the one that is open now and the caller's to close. After a failure none is. */
export interface CopyOutcome {
  done: boolean;
  counts: CopyCounts;
  writer: BlockWriter;
}

/** How many groups may wait for their durability before more is begun. */
const GROUPS_UNDER_WAY = 2;
/** Groups begin this small and grow with the speed that is measured. */
const FIRST_GROUP = 32 << 20;
const SMALLEST_GROUP = 4 << 20;
const LOCAL_ITEM = 1 << 20;
const LONGEST_ITEM = 4 << 20;
const ZERO_CALL = 256 << 20;
const ZERO_WRITE = 8 << 20;

interface Work {
  group: Group;
  results: Map<Batch, BatchResult>;
  /** The session that copies it: only its own flush says anything of it. */
  session: Session | undefined;
  /** Resolves, batch by batch, once copied. */
  copying: Promise<BatchResult>[];
  /** Batches whose progress was told: one that is copied again is no further progress. */
  counted: Set<Batch>;
  /** Whether every batch was handed to a lane. */
  handedOver: boolean;
}

/**
 * Copies the work that tiles leave onto a writer: intent → read → digest → write → flush → journal, group by group,
 * with the next group planned and journaled while one is copied and another flushed.
 */
export async function copyDisk(request: CopyRequest): Promise<CopyOutcome> {
  const copy = new DiskCopy(request);
  try {
    return await copy.run();
  } catch (error) {
    copy.abandonPlan();
    await copy.close();
    throw error;
  } finally {
    await copy.closeSession();
    await copy.closeFarReader();
  }
}

class DiskCopy {
  readonly #request: CopyRequest;
  readonly #counts: CopyCounts = { read: 0, written: 0, zeroed: 0, same: 0, settled: 0, reopened: 0, threads: 0 };
  #writer: BlockWriter;
  #session: Session | undefined;
  #farReader: ReopeningReader | undefined;
  #groups: AsyncGenerator<Group, void> | undefined;
  /** Aborts what holds the copy back: when it is given up, and when it is to stop at the next durable point. */
  readonly #held: AbortSignal;
  /** Whether a group was cut short because a stop was asked for. */
  #cut = false;
  #journal: Journal | undefined;
  /** Groups whose work is under way or done, but not durable yet; repeated when a session is lost. */
  readonly #open: Work[] = [];
  /** The group that is being made durable while others are copied. */
  #settling: Promise<void> | undefined;
  /** A failure of the plan itself: nothing that is opened again mends a listing. */
  #planFailure: { error: unknown } | undefined;
  #failures = 0;
  #itemLength = LOCAL_ITEM;
  #groupBytes: number;
  #settledAt = 0;

  constructor(request: CopyRequest) {
    this.#request = request;
    const { signal, pause } = request;
    this.#held = pause === undefined ? signal : AbortSignal.any([signal, pause]);
    this.#writer = request.writer;
    this.#groupBytes = Math.min(FIRST_GROUP, request.groupBytes);
  }

  async run(): Promise<CopyOutcome> {
    const request = this.#request;
    this.#journal = await openJournal(request.store, request.journalKey, request.header, request);
    await this.#mending(async () => void (await this.#live()));
    this.#settledAt = performance.now();
    const groups = (this.#groups = this.#planned());
    let ahead = this.#next(groups);
    let done = true;
    for (;;) {
      const group = await ahead;
      if (group === undefined) break;
      if (this.#pausing()) {
        done = false;
        break;
      }
      ahead = this.#next(groups);
      ahead.catch(() => {});
      const work: Work = {
        group,
        session: undefined,
        results: new Map(),
        copying: [],
        counted: new Set(),
        handedOver: false,
      };
      this.#open.push(work);
      await this.#mending(async () => {
        if (!work.handedOver) await this.#handOver(work);
        this.#settleInBackground();
        while (this.#open.length > GROUPS_UNDER_WAY) await this.#settleOldest();
      });
    }
    await this.#mending(async () => {
      while (this.#open.length > 0) await this.#settleOldest();
    });
    if (!done) await groups.return();
    return { done: done && !this.#cut, counts: this.#counts, writer: this.#writer };
  }

  async #next(groups: AsyncGenerator<Group, void>): Promise<Group | undefined> {
    try {
      const next = await groups.next();
      return next.done === true ? undefined : next.value;
    } catch (error) {
      this.#planFailure = { error };
      throw error;
    }
  }

  async *#planned(): AsyncGenerator<Group, void> {
    const request = this.#request;
    const plan = planWork(request.tiles, {
      from: request.from,
      to: request.to,
      knowledge: request.knowledge,
      algorithm: request.algorithm,
      itemLength: this.#itemLength,
      zeroLength: request.writer.zero === undefined ? ZERO_WRITE : ZERO_CALL,
      blank: request.blank,
      compare: request.compare,
      parts: request.parts,
      groupBytes: () => this.#groupBytes,
      groupMs: request.groupMs,
      farDigests: this.#farDigests(),
      same: (bytes) => {
        this.#counts.same += bytes;
      },
      settled: (bytes) => {
        this.#counts.settled += bytes;
        request.onProgress({ settled: bytes });
      },
    });
    for await (const group of plan) {
      await this.#journal!.intent(group.extents, request);
      yield group;
    }
  }

  /**
   * The far side's digests, where the source computes them. They are asked for through a reader of their own: the copy's
   * may be busy with as many calls as it takes, or be opened again together with the writer.
   */
  #farDigests(): FarDigests | undefined {
    const request = this.#request;
    const { algorithm, header, signal, attempts, notice } = request;
    if (algorithm === "none" || this.#session?.reader.digests === undefined) return undefined;
    const layer = attemptLayer(attempts);
    let supported = true;
    return async (offset, length) => {
      let digests: Uint8Array | undefined;
      if (!supported) return undefined;
      try {
        const reader = (this.#farReader ??= new ReopeningReader(await request.openReader(request), request.openReader));
        await layer({ method: "digests", side: "source", offset, length, attempt: 1, signal }, async (call) => {
          digests = await reader.digests!(offset, length, { algorithm, leaf: header.leaf, signal: call.signal });
        });
      } catch (error) {
        if (!isProviderError(error) || error.code !== "UNSUPPORTED") throw error;
        supported = false;
        notice(`The source does not hash for us (${error.message}); it is read instead.`);
      }
      return digests;
    };
  }

  async #live(): Promise<Session> {
    if (this.#session !== undefined) return this.#session;
    const request = this.#request;
    const reader = await request.openReader(request);
    const { leaf } = request.header;
    if (this.#counts.reopened === 0) {
      // Groups that are planned already keep their items, so a session that is opened again keeps their length.
      const wanted = Math.max(reader.preferredLength ?? 0, this.#writer.preferredLength ?? 0, LOCAL_ITEM);
      this.#itemLength = Math.max(leaf, Math.min(wanted, LONGEST_ITEM));
    }
    this.#session = new Session(
      {
        reader,
        reopen: request.openReader,
        writer: this.#writer,
        leaf,
        itemLength: this.#itemLength,
        algorithm: request.algorithm,
        workers: request.workers,
        memory: request.memory,
        attempts: request.attempts,
        layers: request.layers,
      },
      request.signal,
    );
    this.#counts.threads = Math.max(this.#counts.threads, this.#session.threads);
    return this.#session;
  }

  /** Hands a group's batches to the lanes; resolves when the last is handed over. */
  async #handOver(work: Work): Promise<void> {
    const { onProgress } = this.#request;
    const session = await this.#live();
    work.session = session;
    for (const [index, batch] of work.group.batches.entries()) {
      if (!(await this.#mayPass(batch))) {
        // What was handed over becomes durable; the rest stays intended, and is copied when the run goes on.
        work.group.batches.length = index;
        this.#cut = true;
        break;
      }
      const { result } = await session.dispatch(batch);
      result.then(
        (done) => {
          work.results.set(batch, done);
          const again = work.counted.has(batch);
          work.counted.add(batch);
          onProgress({ result: done, bytes: again ? 0 : batch.items.reduce((sum, item) => sum + item.length, 0) });
        },
        () => {},
      );
      work.copying.push(result);
    }
    work.handedOver = true;
  }

  #pausing(): boolean {
    return this.#request.pause?.aborted === true;
  }

  /** Waits for what limits the copy. False: it is to stop at the next durable point instead. */
  async #mayPass(batch: Batch): Promise<boolean> {
    const { limits, signal, onHeld } = this.#request;
    if (this.#pausing()) return false;
    const read = batch.items.reduce((sum, item) => sum + (item.kind === "copy" ? item.length : 0), 0);
    const held = limits?.held;
    if (held !== undefined) onHeld(held);
    try {
      await limits?.pass(read, { signal: this.#held });
      if (held !== undefined) onHeld(undefined);
      return true;
    } catch (error) {
      if (this.#pausing() && !signal.aborted) return false;
      throw error;
    }
  }

  #settleInBackground(): void {
    if (this.#settling !== undefined || this.#open[0]?.handedOver !== true) return;
    const settling = this.#settle(this.#open[0]);
    this.#settling = settling;
    settling.then(
      () => {
        if (this.#settling === settling) this.#settling = undefined;
        this.#settleInBackground();
      },
      () => {},
    );
  }

  async #settleOldest(): Promise<void> {
    this.#settleInBackground();
    await this.#settling;
  }

  /** Makes a group durable and writes that down. */
  async #settle(work: Work): Promise<void> {
    const { session } = work;
    await Promise.all(work.copying);
    if (session === undefined || session !== this.#session) {
      throw new ProviderError("UNAVAILABLE", "the copy's session is being opened again");
    }
    await this.#request.check();
    await session.flush(this.#request);
    await this.#writeDown(work);
    this.#open.shift();
    this.#failures = 0;
    this.#adapt(work.group.bytes);
  }

  /** Keeps the time between durable points near the wanted one on slow links, the bytes near theirs on fast ones. */
  #adapt(bytes: number): void {
    const now = performance.now();
    const tookMs = Math.max(1, now - this.#settledAt);
    this.#settledAt = now;
    if (bytes < this.#groupBytes / 2) return;
    const reachable = (bytes / tookMs) * this.#request.groupMs;
    const wanted = Math.max(SMALLEST_GROUP, Math.min(this.#groupBytes * 4, reachable / 2));
    this.#groupBytes = Math.min(wanted, this.#request.groupBytes);
  }

  async #writeDown(work: Work): Promise<void> {
    const { knowledge, onProgress } = this.#request;
    const durable: WrittenExtent[] = [];
    const sent: Extent[] = [];
    for (const batch of work.group.batches) {
      const result = work.results.get(batch)!;
      for (const [index, item] of batch.items.entries()) {
        const { offset, length } = item;
        const digests = this.#learn(item, result.digests[index]!);
        if (digests === undefined) append(durable, offset, length);
        else durable.push({ offset, length, digests: await digests });
      }
      for (let at = 0; at < result.sent.length; at += 2) append(sent, result.sent[at]!, result.sent[at + 1]!);
      this.#counts.read += result.read;
      this.#counts.written += result.written;
      this.#counts.zeroed += result.zeroed;
      this.#counts.same += result.same;
    }
    const unsent = knowledge.learnSent(durable, sent);
    if (unsent.length > 0) await this.#journal!.note({ unsent }, this.#request);
    await this.#journal!.durable(durable, this.#request);
    onProgress({ durable: work.group.extents.reduce((sum, extent) => sum + extent.length, 0) });
  }

  /** Notes that an item is done, and takes its digests, where there are any, into the manifest in the making. */
  #learn(item: Extent & { kind: "copy" | "zero" }, computed: Uint8Array): Promise<Uint8Array> | undefined {
    const { knowledge, algorithm } = this.#request;
    const [first, count] = knowledge.leavesOf(item);
    knowledge.done.set(first, count);
    knowledge.suspect.clear(first, count);
    const { builder } = knowledge;
    if (builder === undefined || algorithm === "none") return undefined;
    const digests = item.kind === "zero" ? zeroDigests(algorithm, knowledge, first, count) : computed;
    return builder.setMany(first, digests).then(() => digests);
  }

  /** Runs a step, and runs it again after every failure that opening source and target anew may mend. */
  async #mending(step: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        return await step();
      } catch (error) {
        await this.#mend(error);
      }
    }
  }

  /** Opens everything again after a failure that this may mend, and repeats what is not durable. @throws the failure */
  async #mend(error: unknown): Promise<void> {
    const request = this.#request;
    const { signal, attempts } = request;
    if (signal.aborted) throw signal.reason;
    if (this.#planFailure !== undefined) throw this.#planFailure.error;
    let failure = error;
    for (;;) {
      if (isAbort(failure, signal) || !isMendable(failure) || ++this.#failures > attempts.reopens) throw failure;
      request.notice(`The copy was interrupted (${(failure as Error).message}); opening source and target again.`);
      const { generation } = this.#writer;
      await this.close();
      await sleep(Math.min(attempts.maxMs, attempts.baseMs * 2 ** (this.#failures - 1)), { signal });
      try {
        this.#counts.reopened++;
        this.#writer = await request.openWriter(request);
        this.#checkGeneration(generation, failure);
        for (const work of this.#open) {
          work.results.clear();
          work.copying.length = 0;
          work.handedOver = false;
          await this.#handOver(work);
        }
        return;
      } catch (again) {
        failure = again;
      }
    }
  }

  #checkGeneration(generation: string, cause: unknown): void {
    if (this.#writer.generation === generation) return;
    throw new ProviderError(
      "CORRUPT",
      "The target lost its half-written state together with the connection. Nothing of this run is recorded; run the " +
        "job again to begin this copy anew.",
      { operation: "open", cause },
    );
  }

  /** Closes reader and writer. */
  async close(): Promise<void> {
    await this.closeSession();
    // A writer that failed may be unable to close in order; what it had flushed stays.
    await this.#writer[Symbol.asyncDispose]().catch(() => {});
  }

  /** Ends the listing once the call it is at returned; that may hang, and nobody needs its answer. */
  abandonPlan(): void {
    this.#groups?.return().catch(() => {});
  }

  async closeFarReader(): Promise<void> {
    const reader = this.#farReader;
    this.#farReader = undefined;
    await reader?.[Symbol.asyncDispose]();
  }

  /** Closes the reader and the lanes; the writer stays open. */
  async closeSession(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.[Symbol.asyncDispose]();
    await this.#settling?.catch(() => {});
    this.#settling = undefined;
  }
}

/** Adds a range to extents without digests; what goes on where the last ends makes that one longer. */
function append(extents: WrittenExtent[], offset: number, length: number): void {
  const last = extents.at(-1);
  if (last !== undefined && last.digests === undefined && last.offset + last.length === offset) last.length += length;
  else extents.push({ offset, length });
}
