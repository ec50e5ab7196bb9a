import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import { isProviderError } from "../../src/provider/error.ts";
import { openDirectoryState } from "../../src/state/directory-state-store.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import { keyParts, stateKey } from "../../src/state/state-key.ts";
import type { StateStore } from "../../src/state/state-store.ts";
import { LosingFiles } from "./losing-files.ts";
import { logOf, names, StoreModel } from "./store-model.ts";

const undo: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function directoryState(): Promise<StateStore> {
  const directory = await mkdtemp(join(tmpdir(), "diskferry-state-"));
  const store = await openDirectoryState(join(directory, "one", "two"));
  undo.push(async () => {
    await store[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });
  return store;
}

const stores: { [name: string]: () => Promise<StateStore> } = {
  "in memory": async () => new MemoryStateStore(),
  "in a directory": directoryState,
  "in a simulated directory": async () => {
    const files = new LosingFiles(Math.random);
    return await openDirectoryState("/state", { files, identity: files.identity });
  },
};

describe.each(Object.entries(stores))("a state store %s", (_, open) => {
  it("agrees with a model through random calls", async () => {
    const seed = seedOf(41);
    const model = new StoreModel(await open(), randomFrom(seed));
    for (let step = 0; step < 400; step++) await model.step();
    await model.compare();
  });

  it("gives revisions of which only the newest is taken, also when the key was removed meanwhile", async () => {
    const store = await open();
    const first = await store.set("job/one", { n: 1 }, { revision: null });
    await expect(store.set("job/one", 2, { revision: null })).rejects.toMatchObject({ code: "IN_USE" });
    const second = await store.set("job/one", { n: 2 }, { revision: first });
    await expect(store.set("job/one", 3, { revision: first })).rejects.toMatchObject({ code: "IN_USE" });
    await store.delete("job/one");
    await store.delete("job/one");
    await expect(store.set("job/one", 3, { revision: second })).rejects.toMatchObject({ code: "IN_USE" });
    expect(await store.get("job/one")).toBeUndefined();
    const again = await store.set("job/one", { n: 1 }, { revision: null });
    expect([first, second]).not.toContain(again);
  });

  it("lets one of many callers at once win each round", async () => {
    const store = await open();
    await store.set("counter", 0, { revision: null });
    let won = 0;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let round = 0; round < 10; round++) {
          const { value, revision } = (await store.get("counter"))!;
          try {
            await store.set("counter", Number(value) + 1, { revision });
            won++;
          } catch (error) {
            expect(isProviderError(error) && error.code).toBe("IN_USE");
          }
        }
      }),
    );
    expect(won).toBeGreaterThan(0);
    expect((await store.get("counter"))?.value).toBe(won);
  });

  it("keeps no reference to the bytes and values given, and gives none away", async () => {
    const store = await open();
    const value = { list: [1] };
    const bytes = Buffer.from("before");
    await store.set("r", value, { revision: null });
    await store.put("b", bytes);
    await store.append("l", bytes);
    value.list.push(2);
    bytes.fill(0);
    expect((await store.get("r"))?.value).toEqual({ list: [1] });
    (await store.bytes("b"))?.fill(0);
    expect(Buffer.from((await store.bytes("b"))!).toString()).toBe("before");
    expect(await logOf(store, "l")).toBe("before");
  });

  it("appends to more logs at once than it keeps open, each in the order of the calls", async () => {
    const store = await open();
    const appends: Promise<void>[] = [];
    for (let round = 0; round < 3; round++) {
      for (let log = 0; log < 40; log++) appends.push(store.append(`log/${log}`, Buffer.from(`${round}`)));
    }
    await Promise.all(appends);
    for (let log = 0; log < 40; log++) expect(await logOf(store, `log/${log}`)).toBe("012");
  });

  it("grants growing epochs, and an older holder is FENCED at its next check", async () => {
    const store = await open();
    const first = await store.acquire("Job: nbd://x/y");
    expect(first).toMatchObject({ epoch: 1, job: "Job: nbd://x/y" });
    expect(first.previous).toBeUndefined();
    await first.check();
    const second = await store.acquire("Job: nbd://x/y");
    expect(second.epoch).toBe(2);
    expect(second.previous).toMatchObject({ epoch: 1, released: false, alive: true });
    await expect(first.check()).rejects.toMatchObject({ code: "FENCED" });
    await first.release();
    await second.check();
    await second.release();
    await second.release();
    await expect(second.check()).rejects.toMatchObject({ code: "FENCED" });
    const third = await store.acquire("Job: nbd://x/y");
    expect(third.previous).toMatchObject({ epoch: 2, released: true });
    expect(Date.parse(third.previous!.seenAt)).not.toBeNaN();
    expect((await store.acquire("another job")).epoch).toBe(1);
  });

  it("rejects with the signal's reason when it was aborted, and does nothing", async () => {
    const store = await open();
    const signal = AbortSignal.abort(new Error("enough"));
    const calls = [
      store.get("k", { signal }),
      store.set("k", 1, { revision: null, signal }),
      store.delete("k", { signal }),
      store.put("k", Buffer.of(1), { signal }),
      store.bytes("k", { signal }),
      store.append("k", Buffer.of(1), { signal }),
      store.acquire("k", { signal }),
    ];
    for (const call of calls) await expect(call).rejects.toThrow("enough");
    for await (const key of store.list("")) expect.unreachable(key);
    expect((await store.acquire("k")).epoch).toBe(1);
  });

  it("refuses keys that are none", async () => {
    const store = await open();
    for (const key of [
      "",
      "/",
      "a//b",
      "a/",
      "/a",
      "..",
      "a/../b",
      ".",
      "a\u0000b",
      "a\nb",
      "\ud800",
      "x".repeat(2000),
    ]) {
      await expect(store.get(key), key).rejects.toThrow(RangeError);
      await expect(store.put(key, Buffer.of(1)), key).rejects.toThrow(RangeError);
    }
  });
});

describe("a state key", () => {
  it("holds any parts and gives them back", () => {
    expect(keyParts(stateKey(...names))).toEqual(names);
    expect(stateKey("job", "nbd://h/x")).toBe("job/nbd~3a~2f~2fh~2fx");
    expect(() => stateKey("a", "")).toThrow(RangeError);
    expect(() => stateKey("\ud800")).toThrow(RangeError);
  });
});
