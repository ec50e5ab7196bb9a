import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import type { MemoryPlaceOptions } from "../../src/memory/memory-place.ts";
import { ProviderError } from "../../src/provider/error.ts";
import type { StateStore } from "../../src/state/state-store.ts";
import { calm, KIB, MIB, scene, type Scene } from "./scene.ts";

const SHAPES: Record<string, MemoryPlaceOptions> = {
  "in place": { source: { tracker: { granularity: 4096 } } },
  "in versions, as EBS": {
    source: { tracker: { keepsBase: true, granularity: 512 * KIB, hints: true } },
    target: { style: "versioned", digest: "sha256", blockSize: 512 * KIB, removal: "merge" },
  },
  "without tracker, zero, blank and reading back": {
    source: { tracker: false, order: "ascending" },
    target: { zero: false, blank: false, writerRead: false },
  },
};

const OPTIONS = { journal: { bytes: 512 * KIB }, memory: MIB };

/** A machine of two disks with a record, and changes since. */
async function changed(shape: MemoryPlaceOptions): Promise<Scene> {
  const it = scene(shape, { root: 2 * MIB, data: 512 * KIB + 512 });
  it.place.write("vm", "root", 256 * KIB, randomBytes(MIB, 1));
  await replicate(it.job(OPTIONS));
  change(it);
  return it;
}

function change({ place }: Scene): void {
  place.write("vm", "root", 0, randomBytes(640 * KIB, 2));
  place.trim("vm", "root", MIB, 128 * KIB);
  place.write("vm", "data", 512 * KIB, randomBytes(512, 3));
}

/** Whatever the platforms hold for the job is named by its state. */
async function expectExplained({ place, store }: Scene): Promise<void> {
  const state = (await store.get("jobs/job/state"))!.value as unknown as {
    record?: { snapshot: { id: string }; disks: { volume: { id: string } }[] };
    run?: { snapshotKey: string };
    toRelease: { id: string }[];
  };
  for await (const { id, snapshot } of place.source.owned("job")) {
    const known = [state.record?.snapshot.id, ...state.toRelease.map((each) => each.id)].includes(id);
    expect(known || snapshot?.key === state.run?.snapshotKey, `snapshot ${id}`).toBe(true);
  }
}

const INJECTIONS: Record<string, { error: () => Error; on: "fault" | "answer"; mended: boolean }> = {
  "a passing error": { error: () => new ProviderError("THROTTLED", "too many calls"), on: "fault", mended: true },
  "a lost session": {
    error: () => new ProviderError("UNAVAILABLE", "connection reset", { retryable: false }),
    on: "fault",
    mended: false,
  },
  "a refusal": { error: () => new ProviderError("DENIED", "not allowed"), on: "fault", mended: false },
  "a lost answer": { error: () => new Error("killed"), on: "answer", mended: false },
};

describe("a failure at every call in turn", () => {
  for (const [shape, options] of Object.entries(SHAPES)) {
    for (const [what, { error, on, mended }] of Object.entries(INJECTIONS)) {
      it(`of source and target, ${shape}: after ${what} the bytes are right and nothing is unexplained`, async () => {
        let struck = true;
        let failed = 0;
        let calls = 0;
        for (let n = 0; struck; n++) {
          const it = await changed(options);
          let left = n;
          let method = "";
          struck = false;
          it.place[on] = (call) => {
            if (left-- !== 0) return;
            struck = true;
            method = call.method;
            throw error();
          };
          const first = await replicate(it.job(OPTIONS)).catch((thrown: Error) => thrown);
          calm(it.place);
          if (first instanceof Error) {
            failed++;
            // What a passing error must not fail: all but what is asked for once by its contract.
            if (mended) expect(["writer.commit", "tracker.status"], `${method}: ${first.stack}`).toContain(method);
            await expectExplained(it);
          } else it.expectEqual(first);
          it.expectEqual(await replicate(it.job(OPTIONS)));
          await expectExplained(it);
          expect((await status(it.store, "job")).torn).toEqual([]);
          calls = n;
        }
        console.log(`${shape}, ${what}: ${calls} calls, ${failed} runs failed`);
        expect(calls).toBeGreaterThan(20);
      });
    }
  }

  it("that hangs ends when the run is aborted, and the next run goes on", async () => {
    let struck = true;
    let calls = 0;
    for (let n = 0; struck; n++, calls++) {
      const it = await changed(SHAPES["in place"]!);
      const controller = new AbortController();
      let left = n;
      struck = false;
      it.place.fault = () => {
        if (left-- !== 0) return;
        struck = true;
        setTimeout(() => controller.abort(new Error("given up")), 1);
        return new Promise<void>(() => {});
      };
      const run = replicate(it.job(OPTIONS), { signal: controller.signal });
      if (struck || left < 0) await expect(run, String(n)).rejects.toThrow("given up");
      else await run.catch((error: Error) => expect(error.message).toBe("given up"));
      calm(it.place);
      it.expectEqual(await replicate(it.job(OPTIONS)));
    }
    expect(calls).toBeGreaterThan(20);
  });
});

/** A store whose `n`th call fails, before or after it took effect. */
function failingStore(
  store: StateStore,
  n: number,
  moment: "before" | "after",
): { store: StateStore; struck: () => boolean } {
  let left = n;
  let struck = false;
  const strike = (): boolean => {
    if (left-- !== 0) return false;
    struck = true;
    return true;
  };
  const error = (): Error => new ProviderError("UNAVAILABLE", "the state is out of reach", { retryable: false });
  const methods = ["get", "set", "delete", "put", "bytes", "append"] as const;
  const failing = new Proxy(store, {
    get(object, name): unknown {
      const member = Reflect.get(object, name, object) as unknown;
      if (typeof member !== "function") return member;
      if (!methods.some((method) => method === name)) return member.bind(object) as unknown;
      return async (...given: unknown[]): Promise<unknown> => {
        const now = strike();
        if (now && moment === "before") throw error();
        const result: unknown = await (member.apply(object, given) as Promise<unknown>);
        if (now) throw error();
        return result;
      };
    },
  });
  return { store: failing, struck: () => struck };
}

describe("a failure at every call of the state store in turn", () => {
  for (const moment of ["before", "after"] as const) {
    it(`${moment} it took effect leaves a job that goes on with the right bytes`, async () => {
      let calls = 0;
      for (let struck = true; struck; calls++) {
        const it = await changed(SHAPES["in versions, as EBS"]!);
        const failing = failingStore(it.store, calls, moment);
        const first = await replicate({ ...it.job(OPTIONS), store: failing.store }).catch((thrown: Error) => thrown);
        if (!(first instanceof Error)) it.expectEqual(first);
        struck = failing.struck();
        change(it);
        it.expectEqual(await replicate(it.job(OPTIONS)));
        await expectExplained(it);
      }
      expect(calls).toBeGreaterThan(20);
    });
  }
});
