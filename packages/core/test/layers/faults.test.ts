import { describe, expect, test } from "vitest";
import { faults } from "../../src/layers/faults.ts";
import type { Fault, FaultRule } from "../../src/layers/faults.ts";
import { compose } from "../../src/layers/layer.ts";
import { retry } from "../../src/layers/retry.ts";
import { timeout } from "../../src/layers/timeout.ts";
import { verifyWrites } from "../../src/layers/verify.ts";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { makeCall } from "./call.ts";
import { FakeClock, settle } from "./fake-clock.ts";

/** A disk in memory behind the bytes of its calls. */
function memoryDisk(size: number): { bytes: Uint8Array; run: (call: ReturnType<typeof makeCall>) => Promise<void> } {
  const bytes = new Uint8Array(size);
  return {
    bytes,
    run: async ({ method, offset = 0, length = 0, data }) => {
      await Promise.resolve();
      if (method === "read") data?.set(bytes.subarray(offset, offset + length));
      else if (method === "zero") bytes.fill(0, offset, offset + length);
      else if (data !== undefined) bytes.set(data, offset);
    },
  };
}

describe("faults", () => {
  test("strikes the calls it is told to, and no others", async () => {
    const layer = faults({
      rules: [{ fault: { kind: "error", code: "THROTTLED" }, method: "write", side: "target", at: [2, 4] }],
    });
    const outcomes: string[] = [];
    for (const method of ["write", "read", "write", "write", "write"] as const) {
      const call = makeCall({ method, side: "target" });
      await layer(call, () => Promise.resolve()).then(
        () => outcomes.push("done"),
        (error: { code: string }) => outcomes.push(error.code),
      );
    }
    expect(outcomes).toEqual(["done", "done", "THROTTLED", "done", "THROTTLED"]);
  });

  test("strikes the same calls for the same seed, about as often as its probability says", async () => {
    const struck = async (seed: number): Promise<number[]> => {
      const found: number[] = [];
      const layer = faults({
        rules: [{ fault: { kind: "error" }, probability: 0.2, times: 1000 }],
        random: randomFrom(seed),
        onFault: (call) => void found.push(call.offset ?? 0),
      });
      for (let offset = 0; offset < 1000; offset++) await layer(makeCall({ offset }), settle).catch(() => undefined);
      return found;
    };
    const seed = seedOf(7);
    const first = await struck(seed);
    expect(await struck(seed)).toEqual(first);
    expect(await struck(seed + 1)).not.toEqual(first);
    expect(first.length).toBeGreaterThan(130);
    expect(first.length).toBeLessThan(270);
  });

  test("fails after the call was done, as when an answer is lost, and retry repeats it", async () => {
    const clock = new FakeClock();
    const disk = memoryDisk(4096);
    const data = randomBytes(512, seedOf(1));
    const rules: FaultRule[] = [{ fault: { kind: "error", when: "after", retryAfterMs: 77 }, at: [1] }];
    const layer = compose([retry({ clock, random: () => 0 }), faults({ rules, clock })]);
    let runs = 0;
    const call = makeCall({ method: "write", side: "target", offset: 512, length: 512, data });
    await clock.finish(
      layer(call, (given) => {
        runs++;
        return disk.run(given);
      }),
    );
    expect(runs).toBe(2);
    expect(clock.now()).toBe(77);
    expect(disk.bytes.subarray(512, 1024)).toEqual(data);
  });

  test("delays, hangs until aborted, and hangs although aborted", async () => {
    const clock = new FakeClock();
    const struck = (fault: Fault): Promise<void> => {
      const layer = compose([
        timeout({ perAttemptMs: 1000, graceMs: 100, clock }),
        faults({ rules: [{ fault }], clock }),
      ]);
      return clock.finish(layer(makeCall(), () => Promise.resolve()));
    };
    await struck({ kind: "delay", delayMs: 900 });
    expect(clock.now()).toBe(900);
    await expect(struck({ kind: "hang" })).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
    await expect(struck({ kind: "hang", deaf: true })).rejects.toMatchObject({ retryable: false });
  });

  test("corrupts one bit of what is read, and of what is written but not of the caller's bytes", async () => {
    const disk = memoryDisk(4096);
    const written = randomBytes(4096, seedOf(2));
    const kept = written.slice();
    const layer = faults({ rules: [{ fault: { kind: "corrupt" } }], random: randomFrom(seedOf(3)) });
    await layer(makeCall({ method: "write", side: "target", offset: 0, length: 4096, data: written }), disk.run);
    expect(written).toEqual(kept);
    expect(differingBits(disk.bytes, written)).toBe(1);
    const data = new Uint8Array(4096);
    await layer(makeCall({ offset: 0, length: 4096, data }), disk.run);
    expect(differingBits(data, disk.bytes)).toBe(1);
    await expect(layer(makeCall(), disk.run)).rejects.toThrow(TypeError);
  });

  test("throws the error that it is given", async () => {
    const error = Object.assign(new Error("no space"), { code: "ENOSPC" });
    const layer = faults({ rules: [{ fault: { kind: "error", error } }] });
    await expect(layer(makeCall(), settle)).rejects.toBe(error);
  });
});

describe("verifyWrites", () => {
  const read = (disk: { bytes: Uint8Array }) => (offset: number, into: Uint8Array) => {
    into.set(disk.bytes.subarray(offset, offset + into.length));
    return Promise.resolve();
  };

  test("passes writes and zeroes that arrived, and leaves other calls alone", async () => {
    const disk = memoryDisk(4 << 20);
    disk.bytes.fill(9);
    const layer = verifyWrites({ read: read(disk) });
    const data = randomBytes(8192, seedOf(4));
    await layer(makeCall({ method: "write", side: "target", offset: 512, length: 8192, data }), disk.run);
    await layer(makeCall({ method: "zero", side: "target", offset: 0, length: (2 << 20) + 512 }), disk.run);
    await layer(makeCall({ method: "flush", side: "target" }), () => Promise.resolve());
    expect(disk.bytes.indexOf(9)).toBe((2 << 20) + 512);
  });

  test.each([0, 4095, 8191])("finds one wrong bit in byte %d of a write and names it", async (index) => {
    const disk = memoryDisk(16384);
    const layer = verifyWrites({ read: read(disk) });
    const data = randomBytes(8192, seedOf(5));
    const call = makeCall({ method: "write", side: "target", offset: 4096, length: 8192, data, disk: "sda" });
    const wrong = layer(call, async (given) => {
      await disk.run(given);
      disk.bytes[4096 + index]! ^= 1;
    });
    await expect(wrong).rejects.toMatchObject({
      code: "CORRUPT",
      retryable: false,
      message: expect.stringContaining(
        `writing 8 KiB at offset 4096 of target disk sda: byte ${4096 + index} reads back`,
      ),
    });
  });

  test.each([0, 1048576, 2 << 20, (2 << 20) + 511])("finds a byte that was not zeroed, at %d", async (index) => {
    const disk = memoryDisk(4 << 20);
    const layer = verifyWrites({ read: read(disk) });
    const wrong = layer(makeCall({ method: "zero", side: "target", offset: 0, length: (2 << 20) + 512 }), async () => {
      disk.bytes[index] = 1;
    });
    await expect(wrong).rejects.toThrow(`byte ${index} reads back`);
  });

  test("catches what the faults layer corrupts", async () => {
    const disk = memoryDisk(8192);
    const layer = compose([
      verifyWrites({ read: read(disk) }),
      faults({ rules: [{ fault: { kind: "corrupt" } }], random: randomFrom(seedOf(6)) }),
    ]);
    const data = randomBytes(8192, seedOf(6));
    const call = makeCall({ method: "write", side: "target", offset: 0, length: 8192, data });
    await expect(layer(call, disk.run)).rejects.toMatchObject({ code: "CORRUPT" });
  });

  test("refuses a write whose bytes it cannot compare", async () => {
    const layer = verifyWrites({ read: () => Promise.resolve() });
    await expect(layer(makeCall({ method: "write" }), settle)).rejects.toThrow(TypeError);
  });
});

function differingBits(one: Uint8Array, other: Uint8Array): number {
  let bits = 0;
  for (let index = 0; index < one.length; index++) {
    for (let rest = one[index]! ^ other[index]!; rest !== 0; rest &= rest - 1) bits++;
  }
  return bits;
}
