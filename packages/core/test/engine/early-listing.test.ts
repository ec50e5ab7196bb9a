import { expect, test } from "vitest";
import { replaced } from "../../../../test/replaced.ts";
import { randomBytes } from "../../../../test/seed.ts";
import type { Job } from "../../src/engine/job.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { begun } from "../../src/engine/tile-source.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { KIB, MIB, scene, type Scene } from "./scene.ts";

/** A job of which the listings under way are counted, and every step told. */
function watched(it: Scene): { job: Job; steps: string[]; live: Set<string> } {
  const steps: string[] = [];
  const live = new Set<string>();
  const tracker = it.place.source.tracker!;
  async function* changes(...[disk, options]: Parameters<(typeof tracker)["changes"]>) {
    steps.push(`list ${disk.disk}`);
    live.add(disk.disk);
    try {
      yield* tracker.changes(disk, options);
    } finally {
      live.delete(disk.disk);
    }
  }
  const given = it.job({ parallelDisks: 1 });
  const source = { ...it.place.source, tracker: replaced(tracker, { changes }) };
  const target = {
    ...it.place.target,
    open: async (...[volume, request]: Parameters<Job["target"]["open"]>) => {
      steps.push("open");
      return it.place.target.open(volume, request);
    },
  };
  return { job: { ...given, source, target }, steps, live };
}

test("the first item is asked for at once, and each comes once", async () => {
  const asked: number[] = [];
  async function* counting(): AsyncGenerator<number, void> {
    for (let count = 0; count < 3; count++) {
      asked.push(count);
      yield count;
    }
  }
  const items = begun(counting());
  expect(asked).toEqual([0]);
  const found: number[] = [];
  for await (const item of items) found.push(item);
  expect(found).toEqual([0, 1, 2]);
  await expect(items.next()).resolves.toEqual({ done: true, value: undefined });
});

test("a first item that fails fails where it is waited for, and leaves no rejection to nobody", async () => {
  async function* failing(): AsyncGenerator<number, void> {
    yield* [];
    throw new Error("no listing");
  }
  const items = begun(failing());
  await new Promise((resolve) => setImmediate(resolve));
  await expect(items.next()).rejects.toThrow("no listing");
});

test("the source is asked for its listing before the target of a disk that waited is opened", async () => {
  const it = scene({}, { root: MIB, data: MIB });
  it.place.write("vm", "data", 0, randomBytes(64 * KIB, 1));
  const { job, steps, live } = watched(it);
  it.expectEqual(await replicate(job));
  expect(steps).toEqual(["open", "open", "list root", "list data", "open"]);
  expect([...live]).toEqual([]);
});

test("a listing is given up where the target cannot be opened", async () => {
  const it = scene({}, { root: MIB, data: MIB });
  const { job, steps, live } = watched(it);
  const { open } = job.target;
  const refusing: Job["target"]["open"] = (volume, request) =>
    steps.includes("list data")
      ? Promise.reject(new ProviderError("DENIED", "not a third time"))
      : open(volume, request);
  await expect(replicate({ ...job, target: { ...job.target, open: refusing } })).rejects.toThrow("not a third time");
  expect(steps).toEqual(["open", "open", "list root", "list data"]);
  await new Promise((resolve) => setImmediate(resolve));
  expect([...live]).toEqual([]);
});
