import { describe, expect, it } from "vitest";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import { openDirectoryState } from "../../src/state/directory-state-store.ts";
import { isProviderError } from "../../src/provider/error.ts";
import { LosingFiles } from "./losing-files.ts";
import { logOf, StoreModel } from "./store-model.ts";

const losses = 600;

describe("a state directory that loses power", () => {
  it("holds what it acknowledged and nothing torn, at whatever step the power goes", { timeout: 120_000 }, async () => {
    const seed = seedOf(Math.floor(Math.random() * 1e9));
    let cuts = 0;
    let underWay = 0;
    for (let loss = 0; loss < losses;) {
      const random = randomFrom(seed + loss);
      let files = new LosingFiles(random);
      let model: StoreModel | undefined;
      // Several losses of one directory, so that what an earlier one left is in the way of later ones.
      for (let round = 0; round < 4; round++, loss++) {
        files.cutAfter(1 + Math.floor(random() * 250));
        try {
          const store = await openDirectoryState("/srv/state", { files, identity: files.identity });
          model = new StoreModel(store, random, model);
          for (;;) await model.step();
        } catch (error) {
          expect(files.isCut, `seed ${seed}, loss ${loss}: ${String(error)}`).toBe(true);
        }
        if (model?.underWay !== undefined) underWay++;
        cuts++;
        files = files.restart();
        const store = await openDirectoryState("/srv/state", { files, identity: files.identity });
        const survivor: StoreModel = new StoreModel(store, random, model);
        survivor.underWay = model?.underWay;
        await survivor.settle();
        model = survivor;
      }
    }
    console.log(`state directory: ${cuts} power losses, ${underWay} of them within a call that writes; seed ${seed}`);
    expect(underWay).toBeGreaterThan(losses / 4);
  });

  it("never grants an epoch twice, and knows the holder of before for dead", async () => {
    const seed = seedOf(Math.floor(Math.random() * 1e9));
    for (let loss = 0; loss < 150; loss++) {
      const random = randomFrom(seed + loss);
      let files = new LosingFiles(random);
      let granted = 0;
      for (let round = 0; round < 3; round++) {
        files.cutAfter(10 + Math.floor(random() * 120));
        try {
          const store = await openDirectoryState("/state", { files, identity: files.identity });
          for (;;) {
            const lease = await store.acquire("job");
            expect(lease.epoch, `seed ${seed}, loss ${loss}`).toBeGreaterThan(granted);
            granted = lease.epoch;
            await lease.check();
            if (random() < 0.3) await lease.release();
          }
        } catch (error) {
          expect(files.isCut, `seed ${seed}, loss ${loss}: ${String(error)}`).toBe(true);
        }
        files = files.restart();
      }
      const store = await openDirectoryState("/state", { files, identity: files.identity });
      const lease = await store.acquire("job");
      expect(lease.epoch).toBeGreaterThan(granted);
      if (granted > 0) expect(lease.previous?.alive).toBe(false);
    }
  });

  it("says that the file system is full, keeps what it had and goes on when there is room", async () => {
    const files = new LosingFiles(randomFrom(7));
    const store = await openDirectoryState("/state", { files, identity: files.identity });
    const revision = await store.set("record", "old", { revision: null });
    await store.put("blob", Buffer.from("old"));
    await store.append("log", Buffer.from("one"));
    const full = {
      code: "UNAVAILABLE",
      retryable: false,
      message: expect.stringMatching(/\/state\/.*is full/) as string,
    };
    for (const room of [0, 1, 60]) {
      files.room = room;
      await expect(store.put("blob", Buffer.alloc(5000))).rejects.toMatchObject(full);
      files.room = room;
      await expect(store.append("log", Buffer.alloc(5000))).rejects.toMatchObject(full);
      files.room = room;
      await expect(store.set("record", "x".repeat(5000), { revision })).rejects.toMatchObject(full);
    }
    files.room = Infinity;
    await store.append("log", Buffer.from("two"));
    expect(await logOf(store, "log")).toBe("onetwo");
    expect(Buffer.from((await store.bytes("blob"))!).toString()).toBe("old");
    expect((await store.get("record"))?.value).toBe("old");
    await store.set("record", "new", { revision });
    expect(files.paths().filter((path) => path.includes("/new/") || path.includes("/locks/"))).toEqual([]);
  });

  it("refuses to append behind what may be torn, until the log is opened anew", async () => {
    const files = new LosingFiles(randomFrom(7));
    const store = await openDirectoryState("/state", { files, identity: files.identity });
    await store.append("log", Buffer.from("one"));
    files.failingFlushes = 1;
    await expect(store.append("log", Buffer.from("two"))).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(await logOf(store, "log")).toBe("one");
    files.failingFlushes = 2;
    await expect(store.append("log", Buffer.from("two"))).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await expect(store.append("log", Buffer.from("three"))).rejects.toSatisfy(
      (error) => isProviderError(error) && error.message.includes("failed half-way"),
    );
    await store.append("another", Buffer.from("fine"));
  });
});
