import { expect } from "vitest";
import { isProviderError } from "../../src/provider/error.ts";
import type { Json } from "../../src/provider/extents.ts";
import { stateKey } from "../../src/state/state-key.ts";
import type { StateStore } from "../../src/state/state-store.ts";

/** Keys of every kind that a store must tell apart, parts that are paths, capitals and long ones among them. */
export const names: readonly string[] = [
  "a",
  "A",
  "a.json",
  "nbd://host:10809/disk one",
  "../../etc/passwd",
  "..",
  "%41",
  "~41",
  "Ünïcödé/💾",
  "x".repeat(300),
  `${"x".repeat(300)}y`,
];

/** What a store must hold: a record by what was acknowledged and, after a cut, what was under way. */
export class StoreModel {
  readonly records: Map<string, Json | undefined> = new Map();
  readonly blobs: Map<string, string | undefined> = new Map();
  readonly logs: Map<string, string> = new Map();
  /** What a call under way may have done to a key. */
  underWay: { kind: "record" | "blob" | "log"; key: string; value: string | undefined } | undefined;
  readonly #store: StateStore;
  readonly #random: () => number;
  #counter = 0;

  constructor(store: StateStore, random: () => number, before?: StoreModel) {
    this.#store = store;
    this.#random = random;
    for (const [key, value] of before?.records ?? []) this.records.set(key, value);
    for (const [key, value] of before?.blobs ?? []) this.blobs.set(key, value);
    for (const [key, value] of before?.logs ?? []) this.logs.set(key, value);
    this.#counter = before === undefined ? 0 : before.#counter;
  }

  /** Does one random thing and checks what it gives. Rejects when the power goes. */
  async step(): Promise<void> {
    const name = names[Math.floor(this.#random() * names.length)]!;
    const value = `${++this.#counter}:${"v".repeat(Math.floor(this.#random() * 3000))}`;
    const dice = this.#random();
    if (dice < 0.3) await this.#set(stateKey("record", name), value);
    else if (dice < 0.5) await this.#put(stateKey("blob", name), value);
    else if (dice < 0.7) await this.#append(stateKey("log", name), value);
    else if (dice < 0.76) await this.#delete("record", this.records, stateKey("record", name));
    else if (dice < 0.8) await this.#delete("blob", this.blobs, stateKey("blob", name));
    else await this.#look(name);
  }

  async #set(key: string, text: string): Promise<void> {
    const value = { text, "7": [1, null, -0.5], __proto__x: true };
    const found = await this.#store.get(key);
    expect(found?.value).toEqual(this.records.get(key));
    this.underWay = { kind: "record", key, value: JSON.stringify(value) };
    const revision = await this.#store.set(key, value, { revision: found?.revision ?? null });
    this.underWay = undefined;
    this.records.set(key, JSON.parse(JSON.stringify(value)) as Json);
    // An older revision, or none, is refused and changes nothing.
    const stale = this.#store.set(key, "stale", { revision: found?.revision ?? null });
    await expect(stale.catch((error: unknown) => Promise.reject(cutOr(error, "IN_USE")))).rejects.toBe("IN_USE");
    expect(await this.#store.get(key)).toEqual({ value: this.records.get(key), revision });
  }

  async #put(key: string, text: string): Promise<void> {
    this.underWay = { kind: "blob", key, value: text };
    await this.#store.put(key, Buffer.from(text));
    this.underWay = undefined;
    this.blobs.set(key, text);
  }

  async #append(key: string, text: string): Promise<void> {
    this.underWay = { kind: "log", key, value: text };
    await this.#store.append(key, Buffer.from(text));
    this.underWay = undefined;
    this.logs.set(key, (this.logs.get(key) ?? "") + text);
  }

  async #delete(kind: "record" | "blob", model: Map<string, unknown>, key: string): Promise<void> {
    this.underWay = { kind, key, value: undefined };
    await this.#store.delete(key);
    this.underWay = undefined;
    model.delete(key);
  }

  async #look(name: string): Promise<void> {
    expect((await this.#store.get(stateKey("record", name)))?.value).toEqual(
      this.records.get(stateKey("record", name)),
    );
    const blob = await this.#store.bytes(stateKey("blob", name));
    expect(blob && Buffer.from(blob).toString()).toBe(this.blobs.get(stateKey("blob", name)));
    expect(await logOf(this.#store, stateKey("log", name))).toBe(this.logs.get(stateKey("log", name)) ?? "");
  }

  /** Compares everything, the listing included. */
  async compare(): Promise<void> {
    for (const name of names) await this.#look(name);
    const held = [...this.records.keys(), ...this.blobs.keys(), ...this.logs.keys()];
    for (const prefix of ["", "record/", "blob/", "log/a", "no/such"]) {
      const listed: string[] = [];
      for await (const key of this.#store.list(prefix)) listed.push(key);
      expect(listed.sort()).toEqual(held.filter((key) => key.startsWith(prefix)).sort());
    }
  }

  /**
   * After a power loss: what was acknowledged is there, what was under way is or is not, and nothing else. Takes over
   * what it found.
   */
  async settle(): Promise<void> {
    const { underWay } = this;
    for (const name of names) {
      const [recordKey, blobKey, logKey] = [stateKey("record", name), stateKey("blob", name), stateKey("log", name)];
      const record = (await this.#store.get(recordKey))?.value;
      const text = record === undefined ? undefined : JSON.stringify(record);
      const acknowledged = this.records.get(recordKey);
      const allowed = [acknowledged === undefined ? undefined : JSON.stringify(acknowledged)];
      if (underWay?.kind === "record" && underWay.key === recordKey) allowed.push(underWay.value);
      expect(allowed).toContain(text);
      this.records.delete(recordKey);
      if (record !== undefined) this.records.set(recordKey, record);

      const bytes = await this.#store.bytes(blobKey);
      const blob = bytes && Buffer.from(bytes).toString();
      const blobs = [this.blobs.get(blobKey)];
      if (underWay?.kind === "blob" && underWay.key === blobKey) blobs.push(underWay.value);
      // A removed blob may come back, and then it is whole: what it held is told by its length and counter alone.
      if (this.blobs.get(blobKey) === undefined && blob !== undefined) expect(blob).toMatch(/^\d+:v*$/);
      else expect(blobs).toContain(blob);
      this.blobs.delete(blobKey);
      if (blob !== undefined) this.blobs.set(blobKey, blob);

      const log = await logOf(this.#store, logKey);
      const appended = this.logs.get(logKey) ?? "";
      expect(log.slice(0, appended.length)).toBe(appended);
      const tail = log.slice(appended.length);
      if (!(underWay?.kind === "log" && underWay.key === logKey)) expect(tail).toBe("");
      expect(tail.length).toBeLessThanOrEqual(underWay?.value?.length ?? 0);
      this.logs.delete(logKey);
      if (log !== "") this.logs.set(logKey, log);
    }
    this.underWay = undefined;
  }
}

export async function logOf(store: StateStore, key: string): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of store.log(key)) pieces.push(piece);
  return Buffer.concat(pieces).toString("latin1");
}

/** The code of a provider's error; anything else, such as the power's, as it is. */
export function cutOr(error: unknown, code: string): unknown {
  return isProviderError(error) && error.code === code ? code : error;
}
