import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { Job, JobOptions } from "../../src/engine/job.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { beginRun } from "../../src/engine/transfer.ts";
import { ProviderError } from "../../src/provider/error.ts";
import type { TargetProvider } from "../../src/provider/target.ts";
import { calm, failing, KIB, MIB, scene, type Scene } from "./scene.ts";

/** A job whose target counts its writers. */
function counted(it: Scene, options: JobOptions = {}): { job: Job; opens: string[]; live: Set<string> } {
  const opens: string[] = [];
  const live = new Set<string>();
  const { target } = it.place;
  const open: TargetProvider["open"] = async (volume, request) => {
    const writer = await target.open(volume, request);
    const name = `${volume.id} of ${request.run}, ${opens.filter((each) => each === volume.id).length + 1}`;
    opens.push(volume.id);
    live.add(name);
    const dispose = writer[Symbol.asyncDispose].bind(writer);
    return Object.assign(writer, {
      [Symbol.asyncDispose]: async () => {
        live.delete(name);
        await dispose();
      },
    });
  };
  return { job: { ...it.job(options), target: { ...target, open } }, opens, live };
}

const three = { root: MIB, data: MIB, logs: 512 * KIB };

describe("a run opens the writer of each disk", () => {
  it("once: a full copy, an increment, and one that goes on after a kill", async () => {
    const it = scene({}, three);
    it.place.write("vm", "root", 0, randomBytes(MIB, 1));
    for (const resumed of [false, false, true]) {
      const { job, opens, live } = counted(it);
      if (resumed) {
        it.place.write("vm", "data", 0, randomBytes(64 * KIB, 2));
        failing(it.place, "writer.flush", () => new Error("killed"));
        await expect(replicate(it.job())).rejects.toThrow("killed");
        calm(it.place);
      }
      const report = await replicate(job);
      expect(report.resumed).toBe(resumed);
      it.expectEqual(report);
      expect(opens.toSorted()).toEqual(report.disks.map(({ volume }) => volume!.id).toSorted());
      expect([...live]).toEqual([]);
    }
  });

  it("again where it waits for others to be copied, rather than leave it idle for hours", async () => {
    const it = scene({}, three);
    it.place.write("vm", "logs", 0, randomBytes(64 * KIB, 1));
    const { job, opens, live } = counted(it, { parallelDisks: 1 });
    it.expectEqual(await replicate(job));
    expect(opens).toHaveLength(1 + 2 * 2);
    expect([...live]).toEqual([]);
  });

  it("and closes what it opened where slices are to copy, and where it cannot go on", async () => {
    const it = scene({}, three);
    const first = counted(it);
    await beginRun(first.job);
    expect({ opens: first.opens.length, live: [...first.live] }).toEqual({ opens: 3, live: [] });
    const other = scene({}, three);
    failing(other.place, "create", () => new ProviderError("DENIED", "no more volumes"), { after: 2, count: 9 });
    const second = counted(other);
    await expect(replicate(second.job)).rejects.toThrow("no more volumes");
    expect({ opens: second.opens.length, live: [...second.live] }).toEqual({ opens: 2, live: [] });
  });

  it("of the run it gives up only after it closed those it looked at", async () => {
    const it = scene({}, three);
    it.place.write("vm", "root", 0, randomBytes(MIB, 1));
    failing(it.place, "writer.commit", () => new Error("killed"));
    await expect(replicate(it.job())).rejects.toThrow("killed");
    calm(it.place);
    const { job, live } = counted(it);
    const { open } = job.target;
    const atNewRun: string[][] = [];
    let left = 2;
    const forgetful: TargetProvider["open"] = (volume, request) => {
      left--;
      if (left === 0) return Promise.reject(new ProviderError("NOT_FOUND", "what was written is gone"));
      if (left === -1) atNewRun.push([...live]);
      return open(volume, request);
    };
    const report = await replicate({ ...job, target: { ...job.target, open: forgetful } });
    expect(report.resumed).toBe(false);
    it.expectEqual(report);
    expect(atNewRun).toEqual([[]]);
    expect([...live]).toEqual([]);
  });
});
