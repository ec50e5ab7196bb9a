import { expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { Job } from "../../src/engine/job.ts";
import { replicate } from "../../src/engine/replicate.ts";
import type { SourceConnector, SourceLoad } from "../../src/provider/source.ts";
import { listen } from "../../src/telemetry/channels.ts";
import type { ProgressReport } from "../../src/telemetry/progress.ts";
import { MIB, scene, type Scene } from "./scene.ts";

type Load = NonNullable<SourceConnector["load"]>;

/** A job whose source tells its load, and whose first read waits for `until`. */
function told(load: Load, until: () => boolean, options: Job["options"] = {}): { it: Scene; job: Job } {
  const it = scene();
  it.place.write("vm", "root", 0, randomBytes(MIB, 1));
  const source = new Proxy(it.place.source, {
    get: (place, name): unknown => (name === "load" ? load : Reflect.get(place, name, place)),
  });
  const wait = async (): Promise<void> => {
    while (!until()) await new Promise((resolve) => setTimeout(resolve, 2));
  };
  const layers: NonNullable<Job["options"]>["layers"] = [
    async (call, run) => {
      if (call.method === "read") await wait();
      await run(call);
    },
  ];
  return { it, job: { ...it.job({ loadIntervalMs: 1, layers, ...options }), source } };
}

it("follows how busy the source's host is while a run copies, in progress, on a channel and in the report", async () => {
  const loads = [10, 40, 20, 20];
  let asked = 0;
  const load: Load = (machine) => {
    expect(machine.id).toBe("vm");
    const cpuPercent = loads[Math.min(asked++, loads.length - 1)]!;
    return Promise.resolve({ host: "esx1", cpuPercent, memoryPercent: 50 });
  };
  const { it: world, job } = told(load, () => asked >= 4);
  const published: (SourceLoad & { run?: string | undefined })[] = [];
  const unlisten = listen("diskferry:load-report", (message) => published.push(message));
  const progress: ProgressReport[] = [];
  const report = await replicate(job, { onProgress: (each) => progress.push(each) });
  unlisten();
  world.expectEqual(report);
  expect(published.slice(0, 3)).toMatchObject(
    [10, 40, 20].map((cpuPercent) => ({ host: "esx1", cpuPercent, run: report.run })),
  );
  expect(progress.at(-1)?.load).toMatchObject({ host: "esx1", memoryPercent: 50 });
  expect(report.load).toMatchObject({ host: "esx1", cpuPercent: { first: 10, most: 40 } });
  expect(report.load!.samples).toBeGreaterThanOrEqual(4);
  expect(report.load!.memoryPercent).toEqual({ first: 50, mean: 50, most: 50 });
  const after = asked;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(asked, "after the run").toBe(after);
});

it("fails no run: errors are told, and after three in a row nobody asks any more", async () => {
  let asked = 0;
  const { it: world, job } = told(
    () => (asked++, Promise.reject(new Error("no counters"))),
    () => asked >= 3,
  );
  const report = await replicate(job);
  world.expectEqual(report);
  expect(report.load).toBeUndefined();
  expect(asked).toBe(3);
  expect(world.notices.filter((line) => line.includes("(no counters)"))).toHaveLength(3);
  expect(world.notices.at(-1)).toMatch(/nobody asks any more/);
});

it("fails no run, and leaves no rejection to nobody, where the source throws at once", async () => {
  let asked = 0;
  const { it: world, job } = told(
    () => {
      asked++;
      throw new Error("no counters");
    },
    () => asked >= 3,
  );
  const unheard: unknown[] = [];
  const hear = (reason: unknown): void => void unheard.push(reason);
  process.on("unhandledRejection", hear);
  try {
    world.expectEqual(await replicate(job));
    await new Promise((resolve) => setTimeout(resolve, 20));
  } finally {
    process.off("unhandledRejection", hear);
  }
  expect(asked).toBe(3);
  expect(unheard).toEqual([]);
});

it("does not hold a run up whose source neither answers nor heeds its signal", async () => {
  const { it: world, job } = told(
    () => new Promise(() => {}),
    () => true,
  );
  world.expectEqual(await replicate(job));
});

it("does not hold a run up whose source does not answer", async () => {
  let given = false;
  const load: Load = (_, wait) =>
    new Promise((_resolve, reject) => {
      wait!.signal!.addEventListener("abort", () => ((given = true), reject(wait!.signal!.reason as Error)));
    });
  const { it: world, job } = told(load, () => true);
  world.expectEqual(await replicate(job));
  expect(given).toBe(true);
});

it("is not asked where a job does not want it", async () => {
  let asked = 0;
  const { job } = told(
    () => (asked++, Promise.resolve(undefined)),
    () => true,
    { loadIntervalMs: 0 },
  );
  await replicate(job);
  expect(asked).toBe(0);
  await expect(replicate({ ...job, options: { loadIntervalMs: -1 } })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
  });
});
