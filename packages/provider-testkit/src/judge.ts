import { isProviderError, type ProviderErrorCode } from "@diskferry/core/provider";
import { type ConformanceHarness, NotJudged } from "./harness.ts";

/** A clause of the contract that a provider breaks. */
export class ConformanceError extends Error {
  readonly id: string;
  readonly clause: string;

  constructor(id: string, clause: string, found: string, cause?: unknown) {
    super(`${id}: the contract demands: ${clause} Found: ${found}`, cause === undefined ? undefined : { cause });
    this.name = "ConformanceError";
    this.id = id;
    this.clause = clause;
  }
}

/** What a clause gives its verdict with. */
export class Judge {
  readonly id: string;
  readonly clause: string;
  readonly harness: ConformanceHarness;
  readonly #skip: (reason: string) => never;
  #skipped = false;
  readonly #deferred: (() => Promise<unknown>)[] = [];

  constructor(id: string, clause: string, harness: ConformanceHarness, skip: (reason: string) => never) {
    this.id = id;
    this.clause = clause;
    this.harness = harness;
    this.#skip = skip;
  }

  /** Leaves the clause unjudged, and says why. */
  skip(reason: string): never {
    this.#skipped = true;
    return this.#skip(reason);
  }

  /** The member, or the clause is left unjudged. */
  needs<Member>(member: Member | undefined, name: string): Member {
    return member === undefined ? this.skip(`absent: ${name}`) : member;
  }

  /** Rejects the provider unless `holds`. */
  demand(holds: boolean, found: string): void {
    if (!holds) this.fail(found);
  }

  fail(found: string, cause?: unknown): never {
    throw new ConformanceError(this.id, this.clause, found, cause);
  }

  same(actual: Uint8Array, expected: Uint8Array, what: string): void {
    if (Buffer.compare(actual, expected) === 0) return;
    const at = actual.findIndex((byte, index) => byte !== expected[index]);
    const where =
      actual.byteLength === expected.byteLength
        ? `differs first at byte ${at}`
        : `has ${actual.byteLength} bytes, not ${expected.byteLength}`;
    this.fail(`${what} ${where}`);
  }

  /** Demands a ProviderError with one of the codes. */
  async rejects(what: string, work: Promise<unknown>, ...codes: ProviderErrorCode[]): Promise<void> {
    const error = await this.rejected(what, work);
    const named = `${what} rejected with ${describeError(error)}`;
    this.demand(isProviderError(error), `${named}, which is no ProviderError`);
    this.demand(isProviderError(error) && codes.includes(error.code), `${named}, not with ${codes.join(" or ")}`);
  }

  /** Demands any rejection, and gives it back. */
  async rejected(what: string, work: Promise<unknown>): Promise<unknown> {
    let value: unknown;
    try {
      value = await this.#patiently(what, work);
    } catch (error) {
      if (error instanceof ConformanceError) throw error;
      return error;
    }
    return this.fail(`${what} resolved (${JSON.stringify(value)?.slice(0, 80) ?? "undefined"}) where it has to reject`);
  }

  /** Demands that a call with an aborted signal rejects with the signal's reason. */
  async abortsBefore(what: string, call: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
    const reason = new Error("aborted before the call");
    const error = await this.rejected(`${what} with an aborted signal`, call(AbortSignal.abort(reason)));
    this.demand(
      error === reason,
      `${what} with an aborted signal rejected with ${describeError(error)}, not with the signal's reason`,
    );
  }

  /** Demands that a call whose signal aborts under way settles: with its result, or with the signal's reason. */
  async abortsDuring(what: string, call: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
    const reason = new Error("aborted during the call");
    const controller = new AbortController();
    const work = call(controller.signal).then(
      () => undefined,
      (error: unknown) => error ?? "nothing",
    );
    controller.abort(reason);
    const error = await this.#patiently(`${what} after its signal aborted`, work);
    this.demand(
      error === undefined || error === reason,
      `${what} rejected with ${describeError(error)} after its signal aborted, not with the signal's reason`,
    );
  }

  /** Has something undone when the clause was judged, the last first. */
  defer(undo: () => Promise<unknown>): void {
    this.#deferred.push(undo);
  }

  /** Runs the clause within the harness's patience, and cleans up after it. */
  async conclude(run: () => Promise<void>): Promise<void> {
    try {
      await this.#patiently("the clause", run());
    } catch (error) {
      if (this.#skipped || error instanceof ConformanceError) throw error;
      if (error instanceof NotJudged) this.skip(error.message);
      this.fail(`an unexpected failure: ${describeError(error)}`, error);
    } finally {
      // What cannot be cleaned up was judged by clauses of its own: here it must not hide the verdict.
      for (const undo of this.#deferred.reverse()) await this.#patiently("cleaning up", undo()).catch(() => undefined);
    }
  }

  async #patiently<Result>(what: string, work: Promise<Result>): Promise<Result> {
    const patienceMs = this.harness.patienceMs ?? 60_000;
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new ConformanceError(this.id, this.clause, `${what} did not settle within ${patienceMs} ms`)),
      patienceMs,
    );
    try {
      return await Promise.race([work, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** One line about whatever was thrown. */
export function describeError(error: unknown): string {
  if (isProviderError(error)) return `${error.code} (${error.message})`;
  return error instanceof Error ? `${error.name} (${error.message})` : String(error);
}

/** A handle as a restart would give it back. */
export function roundTrip<Handle>(value: Handle): Handle {
  return JSON.parse(JSON.stringify(value)) as Handle;
}

/** Whether plain JSON loses nothing of the handle. */
export function isPlainJson(value: unknown): boolean {
  if (value === null || typeof value === "string" || typeof value === "boolean") return true;
  if (typeof value === "number") return Number.isFinite(value);
  if (Array.isArray(value)) return value.every(isPlainJson);
  if (typeof value !== "object") return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return false;
  if (Object.getOwnPropertySymbols(value).length > 0) return false;
  return Object.values(value).every((member) => member === undefined || isPlainJson(member));
}

/** Bytes that differ from place to place, hold no zero and are the same for the same seed. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = 1 + ((state >>> 24) % 255);
  }
  return bytes;
}

let serial = 0;

/** A key that no earlier clause and no earlier process used. */
export function freshKey(what: string): string {
  return `conformance-${what}-${process.pid}-${Date.now().toString(36)}-${++serial}`;
}

/** A clause of the contract, over a world of the provider's side that it is about. */
export interface Clause<World> {
  id: string;
  /** What the contract demands, as one sentence. */
  clause: string;
  /** The member of the source's harness that says why the platform cannot do this at all. */
  excuse?: "snapshotless" | "unfixed";
  run(world: World): Promise<void>;
}

/** Gathers what an async iterable gives. */
export async function gather<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}
