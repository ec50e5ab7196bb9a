import { describe, expect, it, vi } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { Limits } from "../../src/engine/limits.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import { transfer } from "../../src/engine/transfer.ts";
import { PauseGate, type Gate } from "../../src/layers/gate.ts";
import { calm, MIB, scene, type Scene } from "./scene.ts";

const SIZE = 24 * MIB;

function large(): Scene {
  const it = scene({}, { root: SIZE });
  it.place.write("vm", "root", 0, randomBytes(SIZE, 1));
  return it;
}

/** A gate whose owner opens and closes it, as a backup window would. */
function fakeWindow(): { gate: Gate; owner: PauseGate } {
  const owner = new PauseGate();
  const gate: Gate = {
    get open() {
      return owner.open;
    },
    phase: "waiting",
    wait: (wait) => owner.wait(wait),
    listen: (listener) => owner.listen(listener),
  };
  return { gate, owner };
}

describe("a run that is paused", () => {
  it("stops at a durable point, says so, and the next one goes on without copying that again", async () => {
    const { place, job, expectEqual, store } = large();
    const options = { journal: { bytes: 4 * MIB } };
    const controller = new AbortController();
    let writes = 0;
    place.fault = ({ method }) => {
      if (method === "writer.write" && ++writes === 8) controller.abort();
    };
    const paused = await replicate(job(options), { pause: controller.signal });
    expect(paused.status).toBe("paused");
    expect(paused.receipts).toEqual([]);
    calm(place);
    expect(await status(store, "job")).toMatchObject({ run: { id: paused.run }, torn: ["root"] });
    const rest = await replicate(job(options));
    expect(rest).toMatchObject({ status: "done", resumed: true, run: paused.run });
    expect(rest.disks[0]!.settled).toBe(paused.disks[0]!.moved);
    expect(paused.disks[0]!.moved).toBeGreaterThan(0);
    expect(paused.disks[0]!.moved + rest.disks[0]!.moved).toBe(SIZE);
    expectEqual(rest);
  });

  it("stops at once while a closed window holds it", async () => {
    const { place, job, expectEqual } = large();
    const { gate, owner } = fakeWindow();
    const limits = new Limits({ window: gate });
    let writes = 0;
    place.fault = ({ method }) => {
      if (method === "writer.write" && ++writes === 4) owner.pause();
    };
    const paused = await transfer(job({ limits, journal: { bytes: 4 * MIB } }), { deadlineMs: 300 });
    expect(paused.status).toBe("paused");
    expect(limits.held).toBe("waiting");
    calm(place);
    owner.resume();
    const rest = await replicate(job({ limits }));
    expect(paused.disks[0]!.moved + rest.disks[0]!.moved).toBe(SIZE);
    expectEqual(rest);
  });

  it("loses nothing when it is paused again and again, at every write in turn", async () => {
    const { place, job, expectEqual } = large();
    let runs = 0;
    let moved = 0;
    for (let status = "paused"; status === "paused"; runs++) {
      const controller = new AbortController();
      let writes = 0;
      place.fault = ({ method }) => {
        if (method === "writer.write" && ++writes === 3) controller.abort();
      };
      const report = await replicate(job({ journal: { bytes: 2 * MIB }, memory: 2 * MIB }), {
        pause: controller.signal,
      });
      moved += report.disks[0]!.moved;
      status = report.status;
      calm(place);
      if (status === "done") expectEqual(report);
      expect(runs).toBeLessThan(30);
    }
    expect(runs).toBeGreaterThan(1);
    expect(moved).toBe(SIZE);
  });
});

describe("limits", () => {
  it("hold a run while paused and let it go on", async () => {
    const { place, job, expectEqual } = large();
    const limits = new Limits();
    limits.pause.pause();
    const phases = new Set<string>();
    const running = replicate(job({ limits }), { onProgress: ({ phase }) => phases.add(phase) });
    await vi.waitFor(() => expect(phases).toContain("paused"), { timeout: 30_000 });
    expect(place.traffic("writer.write").calls).toBe(0);
    expect(limits.held).toBe("paused");
    limits.pause.resume();
    expectEqual(await running);
  });

  it("hold a run while the window is closed, also one that was put in its place meanwhile", async () => {
    const { place, job, expectEqual } = large();
    const first = fakeWindow();
    const second = fakeWindow();
    first.owner.pause();
    second.owner.pause();
    const limits = new Limits({ window: first.gate });
    const running = replicate(job({ limits }));
    await new Promise((resolve) => setTimeout(resolve, 50));
    limits.window = second.gate;
    first.owner.resume();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(place.traffic("writer.write").calls).toBe(0);
    second.owner.resume();
    expectEqual(await running);
  });

  it.each(["an open one", "none"])("let a run go on when its closed window is replaced by %s", async (by) => {
    const { place, job, expectEqual } = large();
    const closed = fakeWindow();
    closed.owner.pause();
    const limits = new Limits({ window: closed.gate });
    const running = replicate(job({ limits }));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(place.traffic("writer.write").calls).toBe(0);
    expect(limits.held).toBe("waiting");
    limits.window = by === "none" ? undefined : fakeWindow().gate;
    expectEqual(await running);
  });

  it("reject who waits for a window with the reason of its own signal", async () => {
    const closed = fakeWindow();
    closed.owner.pause();
    const limits = new Limits({ window: closed.gate });
    const giving = new AbortController();
    const waiting = limits.pass(1, { signal: giving.signal });
    const reason = new Error("enough");
    giving.abort(reason);
    await expect(waiting).rejects.toBe(reason);
  });

  it("let a rate that is raised while it holds the run take effect at once", async () => {
    const { job, expectEqual } = large();
    const limits = new Limits({ bytesPerSecond: 1 });
    const running = replicate(job({ limits }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(limits.rates.waiting).toBeGreaterThan(0);
    limits.rates.set({});
    expectEqual(await running);
  });

  it("charge bytes that are read, and nothing for zeroes", async () => {
    const { place, job, expectEqual } = scene({ target: { blank: false } }, { root: 512 * MIB });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const limits = new Limits({ bytesPerSecond: 64 * MIB });
    const report = await replicate(job({ limits, verify: "none" }));
    expect(report.disks[0]!.zeroed).toBe(511 * MIB);
    expect(limits.rates.waiting).toBe(0);
    expectEqual(report);
  });
});
