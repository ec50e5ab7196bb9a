import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import type { Job } from "../../src/engine/job.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { calm, expectBytes, failing, KIB, MIB, scene } from "./scene.ts";

describe("a provider whose author froze what it returns", () => {
  it("is copied from and to as any other", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const tracker = Object.freeze({ ...place.source.tracker! });
    const source = Object.freeze({ ...place.source, tracker });
    const target = Object.freeze({ ...place.target });
    const frozen: Job = { ...job(), source, target };
    expectEqual(await replicate(frozen));
    place.write("vm", "root", 0, randomBytes(512, 2));
    const report = await replicate(frozen);
    expect(report.disks[0]!.mode).toBe("incremental");
    expectEqual(report);
  });
});

describe("several disks", () => {
  // Invariant 7.
  it("are one point in time, also when the guest writes while they are copied", async () => {
    const it = scene({ source: { consistency: "filesystem" } }, { root: MIB, data: MIB, log: MIB });
    const { place, job, volume } = it;
    for (const disk of ["root", "data", "log"]) place.write("vm", disk, 0, randomBytes(512 * KIB, disk.length));
    const before = Object.fromEntries(["root", "data", "log"].map((disk) => [disk, place.read("vm", disk)]));
    place.fault = ({ method }) => {
      if (method !== "reader.read") return;
      for (const disk of ["root", "data", "log"]) place.write("vm", disk, 0, randomBytes(512, 77));
    };
    const report = await replicate(job({ parallelDisks: 2 }));
    calm(place);
    for (const disk of ["root", "data", "log"]) expectBytes(volume(report, disk), before[disk]!, disk);
    expect(report.snapshot.consistency).toBe("crash");
    it.expectEqual(await replicate(job()));
  });

  it("have no record while one of them fails, though the others are committed, and go on together", async () => {
    const { place, job, store, expectEqual } = scene({ target: { style: "versioned" } }, { root: MIB, data: MIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    place.write("vm", "data", 0, randomBytes(MIB, 2));
    failing(place, "writer.commit", () => new ProviderError("DENIED", "no"), { after: 1 });
    await expect(replicate(job())).rejects.toMatchObject({ code: "DENIED" });
    calm(place);
    expect((await status(store, "job")).record).toBeUndefined();
    place.clearTraffic();
    const report = await replicate(job());
    expect(report).toMatchObject({ resumed: true });
    expect(place.traffic("writer.write").calls).toBe(0);
    expect(place.traffic("writer.commit").calls).toBe(1);
    expectEqual(report);
  });

  it("are known by their keys, whatever their order or names", async () => {
    const { place, job, expectEqual } = scene({}, { root: MIB, data: MIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    place.write("vm", "data", 0, randomBytes(MIB, 2));
    await replicate(job());
    const turned: Job["source"] = {
      ...place.source,
      machine: async (id) => {
        const machine = await place.source.machine(id);
        return { ...machine, disks: machine.disks.reverse().map((disk) => ({ ...disk, name: "sda" })) };
      },
    };
    const report = await replicate({ ...job(), source: turned });
    expect(report.disks.map(({ mode, moved }) => [mode, moved])).toEqual([
      ["incremental", 0],
      ["incremental", 0],
    ]);
    expectEqual(report);
  });
});

describe("a target larger than the disk", () => {
  // Invariant 3.
  it("holds zeroes behind the disk, whatever was there before, and again after the disk shrank", async () => {
    for (const target of [{}, { zero: false }, { blockSize: 64 * KIB }] as const) {
      const size = 3 * MIB + 512;
      const { place, job, expectEqual } = scene(
        { target: { blank: false, ...target, sizeUnit: 4 * MIB } },
        { root: size },
      );
      place.addDisk("old", 4 * MIB, randomBytes(4 * MIB, 9));
      const onOld: Job["target"] = { ...place.target, create: () => place.target.adopt!("old") };
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      place.write("vm", "root", size - 512, randomBytes(512, 2));
      const report = await replicate({ ...job(), target: onOld });
      expectEqual(report);
      expectBytes(place.volumeBytes("old", size), new Uint8Array(4 * MIB - size), JSON.stringify(target));
      place.write("vm", "root", 2 * MIB, randomBytes(MIB, 3));
      await replicate({ ...job(), target: onOld });
      place.shrink("vm", "root", 2 * MIB);
      const shrunk = await replicate({ ...job(), target: onOld });
      expectEqual(shrunk);
      expectBytes(place.volumeBytes("old", 2 * MIB), new Uint8Array(2 * MIB), JSON.stringify(target));
      place.grow("vm", "root", size);
      expectEqual(await replicate({ ...job(), target: onOld }));
    }
  });

  it("is cleared where it grew since, and wholly by a full copy", async () => {
    const { place, job } = scene({ target: { blank: false } }, { root: MIB });
    place.addDisk("small", 2 * MIB, randomBytes(2 * MIB, 8));
    place.addDisk("large", 4 * MIB, randomBytes(4 * MIB, 9));
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate({ ...job(), target: { ...place.target, create: () => place.target.adopt!("small") } });
    // The platform grew the volume with bytes of somebody else behind it.
    const grown: Job["target"] = {
      ...place.target,
      create: () => place.target.adopt!("large"),
      open: (volume, { base: _, ...request }) => place.target.open(volume, request),
    };
    await replicate({ ...job({ mode: "full" }), target: grown });
    expectBytes(place.volumeBytes("large", MIB), new Uint8Array(3 * MIB));
  });

  it("that is too small is refused by name, untouched", async () => {
    const { place, job } = scene({}, { root: 2 * MIB });
    place.addDisk("small", 2 * MIB - 512);
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const target: Job["target"] = { ...place.target, create: () => place.target.adopt!("small") };
    await expect(replicate({ ...job(), target })).rejects.toThrow(/small.*2096640.*2097152/);
    expect(place.traffic("writer.write").calls + place.traffic("writer.zero").calls).toBe(0);
  });
});

describe("a target that wants digests", () => {
  it("is told exactly what was written, over full, incremental, grown and resumed runs", async () => {
    for (const size of [4 * MIB, 3 * MIB + 512, 2 * MIB + 512 * KIB]) {
      const { place, job, expectEqual } = scene(
        { target: { style: "versioned", digest: "sha256", blockSize: 512 * KIB, sizeUnit: MIB } },
        { root: size },
      );
      place.write("vm", "root", 512 * KIB, randomBytes(MIB, 1));
      place.write("vm", "root", size - 512, randomBytes(512, 2));
      const first = await replicate(job());
      expect(first.disks[0]).toMatchObject({ digest: "sha256", leaf: 512 * KIB });
      expectEqual(first);
      place.write("vm", "root", MIB, randomBytes(512, 3));
      place.trim("vm", "root", size - (size % (512 * KIB) || 512 * KIB), 512);
      expectEqual(await replicate(job()));
      place.grow("vm", "root", 5 * MIB + 512);
      place.write("vm", "root", 5 * MIB, randomBytes(512, 4));
      for (const method of ["writer.flush", "writer.commit"]) {
        failing(place, method, () => new Error("killed"), { on: "answer" });
        await expect(replicate(job())).rejects.toThrow("killed");
        calm(place);
      }
      expectEqual(await replicate(job()));
    }
  });

  it("is told so after more than one frame of the journal, of which parts were not sent", async () => {
    // 5000 extents apart, every other of them equal to what the target holds; then a restart reads the journal back.
    const leaf = 64 * KIB;
    const { place, job } = scene(
      { target: { style: "versioned", digest: "sha256", blockSize: leaf }, source: { tracker: { granularity: 512 } } },
      { root: 10_000 * leaf },
    );
    for (let at = 0; at < 10_000; at += 2) place.write("vm", "root", at * leaf, new Uint8Array(512).fill(1));
    await replicate(job({ verify: "none" }));
    for (let at = 0; at < 10_000; at += 2)
      place.write("vm", "root", at * leaf, new Uint8Array(512).fill(at % 4 === 0 ? 1 : 2));
    failing(place, "writer.commit", () => new Error("killed"));
    await expect(replicate(job({ verify: "none" }))).rejects.toThrow("killed");
    calm(place);
    const report = await replicate(job({ verify: "none" }));
    expect(report.disks[0]!.moved).toBe(0);
    for (let at = 0; at < 10_000; at += 498) {
      expectBytes(
        place.volumeBytes(report.disks[0]!.volume!.id, at * leaf, 512),
        place.read("vm", "root", at * leaf, 512),
      );
    }
  });
});

describe("odd sizes", () => {
  it("are copied whole through any blocks on either side", async () => {
    for (const size of [512, 64 * KIB + 512, MIB - 512, MIB + 4096 + 512]) {
      for (const [readBlock, writeBlock] of [
        [512, 512 * KIB],
        [4096, 512],
        [512 * KIB, 4096],
        [64 * KIB, 64 * KIB],
      ] as const) {
        for (const style of ["in-place", "versioned"] as const) {
          const { place, job, expectEqual } = scene(
            { source: { blockSize: readBlock }, target: { blockSize: writeBlock, style, sizeUnit: 512 } },
            { root: size },
          );
          place.write("vm", "root", 0, randomBytes(size, 1));
          expectEqual(await replicate(job()));
          place.write("vm", "root", size - 512, randomBytes(512, 2));
          expectEqual(await replicate(job()));
          place.trim("vm", "root", size - 512, 512);
          expectEqual(await replicate(job()));
          place.grow("vm", "root", size + 512);
          expectEqual(await replicate(job()));
        }
      }
    }
  });

  it("that are no multiple of 512 or nothing at all are refused by name", async () => {
    const { place, job } = scene();
    for (const size of [0, 1000]) {
      const source: Job["source"] = {
        ...place.source,
        snapshot: async (machine, request) => {
          const snapshot = await place.source.snapshot(machine, request);
          return { ...snapshot, disks: snapshot.disks.map((disk) => ({ ...disk, size })) };
        },
      };
      await expect(replicate({ ...job(), source, id: `job-${size}` })).rejects.toThrow(
        new RegExp(`root.*${size} bytes`),
      );
    }
    expect(place.traffic("create").calls).toBe(0);
  });
});

describe("snapshots", () => {
  it("of a tracker that does not keep its base go before the next is taken, or none is", async () => {
    const it = scene();
    const { place, job, expectEqual } = it;
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    failing(place, "release", () => new ProviderError("DENIED", "no right to remove snapshots"), { count: Infinity });
    await expect(replicate(job())).rejects.toMatchObject({ code: "DENIED" });
    // The record counts: only the release is owed.
    expect((await status(it.store, "job")).record).toBeDefined();
    place.write("vm", "root", 0, randomBytes(512, 2));
    await expect(replicate(job())).rejects.toMatchObject({ code: "DENIED" });
    expect(place.traffic("snapshot").calls).toBe(1);
    const calls = it.record();
    expectEqual(await replicate(job()));
    const order = calls.filter((method) =>
      ["snapshot", "release", "tracker.checkpoint", "writer.commit"].includes(method),
    );
    expect(order).toEqual(["release", "snapshot", "writer.commit", "tracker.checkpoint", "release"]);
  });

  it("of a tracker that keeps its base stay until the next record stands on another", async () => {
    const it = scene({ source: { tracker: { keepsBase: true } } });
    const { place, job, expectEqual } = it;
    const owned = async (): Promise<number> => {
      let count = 0;
      for await (const _ of place.source.owned("job")) count++;
      return count;
    };
    for (let run = 0; run < 3; run++) {
      place.write("vm", "root", 0, randomBytes(512, run));
      const report = await replicate(job());
      expect(report.disks[0]!.mode).toBe(run === 0 ? "full" : "incremental");
      expectEqual(report);
      expect(await owned()).toBe(1);
    }
    place.breakTracking("no-checkpoint");
    await replicate(job());
    expect(await owned()).toBe(0);
  });
});

describe("the order of a run", () => {
  // Invariant 1.
  it("is write, flush, verify, commit, record, release, for every target that can be read while it is written", async () => {
    const it = scene({}, { root: MIB });
    it.place.write("vm", "root", 0, randomBytes(MIB, 1));
    const calls: string[] = [];
    it.place.fault = ({ method }) => void calls.push(method);
    const store = new Proxy(it.store, {
      get(object, name): unknown {
        const member = Reflect.get(object, name, object) as unknown;
        if (typeof member !== "function") return member;
        return (...given: unknown[]): unknown => {
          if (name === "set") calls.push((given[1] as { record?: unknown }).record === undefined ? "set" : "record");
          return member.apply(object, given) as unknown;
        };
      },
    });
    await replicate({ ...it.job(), store });
    const last = (method: string): number => calls.lastIndexOf(method);
    const order = [
      last("writer.write"),
      last("writer.flush"),
      last("writer.read"),
      last("writer.commit"),
      calls.indexOf("record"),
      last("release"),
    ];
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(Math.min(...order)).toBeGreaterThan(-1);
    expect(calls.indexOf("set")).toBeLessThan(calls.indexOf("writer.write"));
  });

  // Invariant 4.
  it("finds a single byte in a sea of zeroes wherever it stands", async () => {
    const { place, job, expectEqual } = scene({}, { root: 2 * MIB });
    for (const at of [0, 511, 512, 64 * KIB - 1, MIB - 1, MIB, 2 * MIB - 1]) {
      const block = new Uint8Array(512);
      block[at % 512] = 1;
      place.write("vm", "root", at - (at % 512), block);
    }
    expectEqual(await replicate(job()));
  });
});

describe("ends with blocks of their own", () => {
  it("are read by the hints of their tiles alone, on disks so large that leaves would hold two of them", async () => {
    const GIB = 2 ** 30;
    const { place, job } = scene(
      { source: { blockSize: 512 * KIB, tracker: { granularity: 512 * KIB, hints: "required" } } },
      { root: 300 * GIB },
    );
    const write = (at: number, seed: number): void => place.write("vm", "root", at, randomBytes(512 * KIB, seed));
    write(512 * KIB, 1);
    write(299 * GIB, 2);
    expect((await replicate(job({ leaf: undefined as never, verify: "none" }))).disks[0]!.leaf).toBe(512 * KIB);
    write(0, 3);
    const report = await replicate(job({ verify: "none" }));
    expect(report.disks[0]).toMatchObject({ mode: "incremental", moved: 512 * KIB });
    for (const at of [0, 299 * GIB])
      expectBytes(place.volumeBytes("volume-1", at, MIB), place.read("vm", "root", at, MIB));
  });

  it("are given the digests of zeroes too, and blocks larger than any buffer of zeroes", async () => {
    for (const [blockSize, digest] of [
      [512 * KIB, "sha256"],
      [4 * MIB, undefined],
    ] as const) {
      const { place, job, expectEqual } = scene(
        { target: { blockSize, digest, zero: false, blank: false, sizeUnit: 16 * MIB } },
        { root: 10 * MIB + 512 },
      );
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      let without = 0;
      const target: Job["target"] = {
        ...place.target,
        async open(volume, request) {
          const writer = await place.target.open(volume, request);
          return {
            ...writer,
            write(offset, data, options) {
              if (digest !== undefined && options?.digest?.length !== (data.length / blockSize) * 32) without++;
              return writer.write(offset, data, options);
            },
          };
        },
      };
      expectEqual(await replicate({ ...job(), target }));
      place.trim("vm", "root", 0, MIB);
      expectEqual(await replicate({ ...job(), target }));
      expect(without).toBe(0);
    }
  });
});

describe("a base that is gone from the target", () => {
  it("means a full copy, reported", async () => {
    const { place, job, expectEqual } = scene({ target: { style: "versioned" } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const first = await replicate(job());
    await place.target.remove(first.disks[0]!.volume!);
    place.write("vm", "root", 0, randomBytes(512, 2));
    const report = await replicate(job());
    expect(report).toMatchObject({
      fallbacks: [{ from: "incremental", to: "full" }],
      disks: [{ mode: "full", moved: MIB }],
    });
    expectEqual(report);
  });
});
