import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { cutover, finalizeCutover, revertCutover } from "../../src/engine/cutover.ts";
import { launch, terminate } from "../../src/engine/launch.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { calm, expectBytes, failing, KIB, MIB, scene, type Scene } from "./scene.ts";

const power = async ({ place }: Scene): Promise<string> => (await place.source.machine("vm")).power!;

/** A machine whose replica is recorded, and which wrote on since. */
async function replicated(options: Parameters<typeof scene>[0] = {}): Promise<Scene> {
  const it = scene(options);
  it.place.write("vm", "root", 0, randomBytes(MIB, 1));
  await replicate(it.job());
  it.place.write("vm", "root", 512 * KIB, randomBytes(64 * KIB, 2));
  return it;
}

/** What the launched machine booted from. */
const booted = ({ place }: Scene, machine: string): Uint8Array => place.volumeBytes(`${machine}/root`);

/** The source runs, nothing that was launched is left, and the next run copies all, equal. */
async function expectTakenBack(it: Scene): Promise<void> {
  expect(it.place.launchedIds()).toEqual([]);
  expect(await power(it)).toBe("on");
  const report = await replicate(it.job());
  expect(report.disks[0]!.mode).toBe("full");
  it.expectEqual(report);
}

describe("cutover", () => {
  // Invariant 10.
  it("remembers what it launched though a test launch is ended in the same moment", async () => {
    const { place, job, store } = scene({ target: { style: "versioned" } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate(job());
    const tested = await launch(job());
    let ending: Promise<void> | undefined;
    place.answer = async ({ method }) => {
      if (method !== "launch" || ending !== undefined) return;
      await (ending = terminate(job(), tested.id));
    };
    const { machine } = await cutover(job(), { allowPowerOff: true });
    calm(place);
    expect((await status(store, "job")).launches.map(({ id }) => id)).toEqual([machine.id]);
    expect((await status(store, "job")).cutover).toMatchObject({ step: "launched", machine: { id: machine.id } });
    await revertCutover(job());
    expect(place.launchedIds()).toEqual([]);
  });

  it("stops the source, sends the last increment, launches, and leaves the source off", async () => {
    const it = await replicated();
    const { machine, run } = await cutover(it.job());
    expect(await power(it)).toBe("off");
    expect(run!.disks[0]).toMatchObject({ mode: "incremental", moved: 64 * KIB });
    expectBytes(booted(it, machine.id), it.place.read("vm", "root"));
    expect(machine.consumed).toBe(true);
    expect((await cutover(it.job())).machine).toEqual(machine);
    await expect(replicate(it.job())).rejects.toMatchObject({ code: "IN_USE" });
  });

  it("does not take the snapshot of a run that was interrupted before the source stopped for the last one", async () => {
    const it = await replicated();
    failing(it.place, "writer.flush", () => new Error("killed"));
    await expect(replicate(it.job())).rejects.toThrow("killed");
    calm(it.place);
    it.place.write("vm", "root", 1536 * KIB, randomBytes(64 * KIB, 3));
    const { machine } = await cutover(it.job());
    expectBytes(booted(it, machine.id), it.place.read("vm", "root"));
  });

  it("nor where the source was stopped by hand after that run was interrupted", async () => {
    const it = await replicated();
    failing(it.place, "writer.flush", () => new Error("killed"));
    await expect(replicate(it.job())).rejects.toThrow("killed");
    calm(it.place);
    it.place.write("vm", "root", 1536 * KIB, randomBytes(64 * KIB, 3));
    it.place.setPower("vm", "off");
    const { machine } = await cutover(it.job());
    expectBytes(booted(it, machine.id), it.place.read("vm", "root"));
  });

  it("sends what the source wrote when somebody started it in the middle of an interrupted cutover", async () => {
    for (const method of ["writer.flush", "writer.commit"]) {
      const it = await replicated();
      const controller = new AbortController();
      it.place.fault = ({ method: called }) => {
        if (called !== method) return;
        controller.abort(new Error("killed"));
        throw new Error("killed");
      };
      await expect(cutover(it.job(), { signal: controller.signal })).rejects.toThrow("killed");
      calm(it.place);
      expect(await power(it), method).toBe("off");
      it.place.setPower("vm", "on");
      it.place.write("vm", "root", 1536 * KIB, randomBytes(64 * KIB, 3));
      const { machine } = await cutover(it.job());
      expectBytes(booted(it, machine.id), it.place.read("vm", "root"), method);
      expect(await power(it)).toBe("off");
    }
  });

  it("refuses to go on, the source running again, where the target may have launched the replica", async () => {
    const it = await replicated();
    failing(it.place, "launch", () => new Error("killed"), { on: "answer" });
    await expect(cutover(it.job())).rejects.toThrow("killed");
    calm(it.place);
    it.place.setPower("vm", "on");
    await expect(cutover(it.job())).rejects.toMatchObject({ code: "IN_USE" });
    expect(await power(it)).toBe("on");
    await revertCutover(it.job());
    expect(it.place.launchedIds()).toEqual([]);
  });

  it("does not start the source again where another worker took the cutover over and went on with it", async () => {
    for (const method of ["writer.write", "writer.flush", "writer.commit", "power.shutdown"]) {
      const it = await replicated();
      let young: ReturnType<typeof cutover> | undefined;
      it.place.fault = async ({ method: called }) => {
        if (called !== method || young !== undefined) return;
        // The older worker stands still at this call while the younger does all the rest.
        await (young = cutover(it.job()));
        if (method === "power.shutdown") throw new ProviderError("UNSUPPORTED", "the guest does not answer");
      };
      await expect(cutover(it.job()), method).rejects.toThrow();
      const { machine } = await young!;
      calm(it.place);
      expect(await power(it), method).toBe("off");
      expect((await status(it.store, "job")).cutover, method).toMatchObject({ step: "launched" });
      expect(it.place.launchedIds()).toEqual([machine.id]);
    }
  });

  it("sends what was written between two attempts where the source can only be quiesced", async () => {
    const it = await replicated({ source: { power: false } });
    failing(it.place, "launch", () => new ProviderError("DENIED", "no capacity"));
    await expect(cutover(it.job())).rejects.toThrow("no capacity");
    calm(it.place);
    it.place.write("vm", "root", 1536 * KIB, randomBytes(64 * KIB, 3));
    const { machine } = await cutover(it.job());
    expectBytes(booted(it, machine.id), it.place.read("vm", "root"));
  });

  // Invariant 5.
  it("fails and starts the source again when tracking is lost", async () => {
    for (const fault of ["lost", "lost-midway", "no-checkpoint"] as const) {
      const it = scene();
      it.place.write("vm", "root", 0, randomBytes(MIB, 1));
      if (fault === "no-checkpoint") it.place.breakTracking(fault);
      await replicate(it.job());
      it.place.write("vm", "root", 0, randomBytes(64 * KIB, 2));
      if (fault !== "no-checkpoint") it.place.breakTracking(fault);
      await expect(cutover(it.job()), fault).rejects.toMatchObject({ code: "TRACKING_LOST" });
      expect(await power(it), fault).toBe("on");
      expect((await status(it.store, "job")).cutover!.step).toBe("reverted");
      it.expectEqual(await replicate(it.job()));
    }
  });

  it("never escalates a shutdown that fails to a power-off unless allowed", async () => {
    const it = await replicated();
    const refusing = (): { struck: number } =>
      failing(it.place, "power.shutdown", () => new ProviderError("UNSUPPORTED", "no guest tools"), {
        count: Infinity,
      });
    refusing();
    await expect(cutover(it.job())).rejects.toThrow("no guest tools");
    expect(it.place.traffic("power.powerOff").calls).toBe(0);
    expect(await power(it)).toBe("on");
    refusing();
    await cutover(it.job(), { allowPowerOff: true });
    expect(await power(it)).toBe("off");
    expect(it.notices.some((line) => line.includes("powered off"))).toBe(true);
  });

  it("does not take a guest for running that was asked to shut down when its caller gave up", async () => {
    for (const next of ["go on", "revert"] as const) {
      const it = await replicated();
      const caller = new AbortController();
      it.place.fault = async ({ method }) => {
        if (method === "power.shutdown") caller.abort(new Error("given up"));
      };
      await expect(cutover(it.job(), { signal: caller.signal })).rejects.toThrow("given up");
      calm(it.place);
      expect((await status(it.store, "job")).cutover).toMatchObject({ step: "begun", wasRunning: true });
      // What it was asked to do, it does now.
      it.place.setPower("vm", "off");
      if (next === "revert") await revertCutover(it.job());
      else await cutover(it.job());
      expect(await power(it), next).toBe(next === "revert" ? "on" : "off");
    }
  });

  it("ends with the source running again, or goes on when called again, wherever a call fails", async () => {
    const count = (
      await (async () => {
        const it = await replicated();
        const calls = it.record();
        await cutover(it.job());
        return calls;
      })()
    ).length;
    expect(count).toBeGreaterThan(15);
    let goneBack = 0;
    let resumed = 0;
    for (const on of ["fault", "answer"] as const) {
      for (let n = 0; n < count; n++) {
        const it = await replicated();
        let calls = 0;
        it.place[on] = () => {
          if (calls++ === n) throw new ProviderError("DENIED", "no right to do this");
        };
        const failed = await cutover(it.job()).then(
          () => undefined,
          (error: Error) => error,
        );
        calm(it.place);
        const { cutover: state } = await status(it.store, "job");
        const step = state?.step;
        const off = (await power(it)) === "off";
        if (failed !== undefined && (step === undefined || step === "reverted")) {
          expect(off, `${on} ${n} ${step}`).toBe(false);
          goneBack++;
          it.place.write("vm", "root", 1536 * KIB, randomBytes(64 * KIB, 3));
        } else resumed++;
        const { machine } = await cutover(it.job());
        expectBytes(booted(it, machine.id), it.place.read("vm", "root"), `${on} ${n}`);
        expect(it.place.launchedIds()).toEqual([machine.id]);
        expect(await power(it)).toBe("off");
      }
    }
    console.log(`cutover: ${count} calls × 2: ${goneBack} went back, ${resumed} went on`);
    expect(goneBack).toBeGreaterThan(0);
    expect(resumed).toBeGreaterThan(0);
  });
});

describe("taking a cutover back", () => {
  it("ends the machine, starts the source, and the next run is full where the replica was consumed", async () => {
    for (const [how, mode] of [
      ["consume", "full"],
      ["clone", "incremental"],
    ] as const) {
      const it = await replicated({ target: { cutover: how } });
      const { machine } = await cutover(it.job());
      it.place.writeLaunched(machine.id, "root", 0, randomBytes(64 * KIB, 9));
      await revertCutover(it.job());
      await revertCutover(it.job());
      expect(it.place.launchedIds()).toEqual([]);
      expect(await power(it)).toBe("on");
      it.place.write("vm", "root", 0, randomBytes(512, 4));
      const report = await replicate(it.job());
      expect(report.disks[0]!.mode, how).toBe(mode);
      it.expectEqual(report);
    }
  });

  it("ends a machine whose launch was never answered", async () => {
    const it = await replicated();
    failing(it.place, "launch", () => new Error("killed"), { on: "answer" });
    await expect(cutover(it.job())).rejects.toThrow("killed");
    calm(it.place);
    expect(it.place.launchedIds()).toHaveLength(1);
    await revertCutover(it.job());
    expect(it.place.launchedIds()).toEqual([]);
    expect(await power(it)).toBe("on");
    it.expectEqual(await replicate(it.job()));
  });

  it("ends a machine whose launch was never answered though asking for it again was refused", async () => {
    const it = await replicated();
    failing(it.place, "launch", () => new Error("killed"), { on: "answer" });
    await expect(cutover(it.job())).rejects.toThrow("killed");
    calm(it.place);
    failing(it.place, "launch", () => new ProviderError("DENIED", "the credentials expired"));
    await expect(cutover(it.job())).rejects.toThrow("expired");
    calm(it.place);
    await revertCutover(it.job());
    await expectTakenBack(it);
  });

  it("starts the source again only once it is known whether the replica was launched", async () => {
    const it = await replicated();
    failing(it.place, "launch", () => new ProviderError("UNEXPECTED", "no answer"));
    await expect(cutover(it.job())).rejects.toThrow("no answer");
    failing(it.place, "launch", () => new ProviderError("DENIED", "the credentials expired"));
    await expect(revertCutover(it.job())).rejects.toThrow("expired");
    expect(await power(it)).toBe("off");
    calm(it.place);
    await revertCutover(it.job());
    expect(it.place.launchedIds()).toEqual([]);
    expect(await power(it)).toBe("on");
  });

  it("goes on wherever it fails", async () => {
    for (const on of ["fault", "answer"] as const) {
      for (const method of ["terminate", "machine", "power.state", "power.powerOn"]) {
        const it = await replicated();
        const { machine } = await cutover(it.job());
        it.place.writeLaunched(machine.id, "root", 0, randomBytes(64 * KIB, 9));
        failing(it.place, method, () => new Error("killed"), { on });
        await expect(revertCutover(it.job())).rejects.toThrow("killed");
        calm(it.place);
        await expect(cutover(it.job())).rejects.toMatchObject({ code: "IN_USE" });
        await revertCutover(it.job());
        await expectTakenBack(it);
      }
    }
  });

  it("is denied once it is final, and finalizing needs a launched one", async () => {
    const it = await replicated();
    await expect(finalizeCutover(it.job())).rejects.toMatchObject({ code: "NOT_FOUND" });
    await cutover(it.job());
    await finalizeCutover(it.job());
    await finalizeCutover(it.job());
    await expect(revertCutover(it.job())).rejects.toMatchObject({ code: "DENIED" });
    expect((await status(it.store, "job")).cutover!.step).toBe("finalized");
  });
});
