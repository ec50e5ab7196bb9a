import { tracingChannel } from "node:diagnostics_channel";
import { expect, onTestFinished, test } from "vitest";
import {
  listen,
  type ChannelMessages,
  memoryPlace,
  MemoryStateStore,
  ProviderError,
  replicate,
  type Job,
} from "../../src/index.ts";

const size = 1 << 20;

function scene(): { job: Job; place: ReturnType<typeof memoryPlace> } {
  const place = memoryPlace();
  place.addMachine({ id: "vm", disks: [{ key: "sda", size }] });
  place.write("vm", "sda", 0, new Uint8Array(4096).fill(3));
  const options: Job["options"] = { workers: 0, attempts: { baseMs: 1, attempts: 3 } };
  const store = new MemoryStateStore();
  return { place, job: { id: "nightly", source: place.source, machine: "vm", target: place.target, store, options } };
}

const names = ["replication-start", "replication-end", "transfer-start", "transfer-end", "call-retry"] as const;

/** What channels say during a test, by their short names. */
function heard(): { name: string; message: Record<string, unknown> }[] {
  const found: { name: string; message: Record<string, unknown> }[] = [];
  for (const name of names)
    onTestFinished(
      listen(`diskferry:${name}`, (message: ChannelMessages[keyof ChannelMessages]) =>
        found.push({ name, message: { ...message } }),
      ),
    );
  return found;
}

test("a run tells its beginning and its end, and so does each of its disks", async () => {
  const { job } = scene();
  const found = heard();
  await replicate(job);
  expect(found.map(({ name }) => name)).toEqual([
    "replication-start",
    "transfer-start",
    "transfer-end",
    "replication-end",
  ]);
  expect(found[2]!.message).toMatchObject({ job: "nightly", disk: "sda", outcome: "done", movedBytes: 65536 });
  expect(found[3]!.message).toMatchObject({ job: "nightly", outcome: "done", run: found[0]!.message["run"] });
});

test("a run that fails or pauses ends on its channels too, and retries are told with their code", async () => {
  const { job, place } = scene();
  const found = heard();
  place.fault = ({ method }) => {
    if (method === "reader.read") throw new ProviderError("THROTTLED", "slow down");
  };
  await expect(replicate(job)).rejects.toThrow("slow down");
  place.fault = undefined;
  const outcomes = found.filter(({ name }) => name.endsWith("-end")).map(({ message }) => message["outcome"]);
  expect(outcomes).toEqual(["failed", "failed"]);
  const retries = found.filter(({ name }) => name === "call-retry").map(({ message }) => message);
  expect(retries.length).toBeGreaterThanOrEqual(2);
  expect(retries[0]).toMatchObject({ side: "source", method: "read", attempt: 1, code: "THROTTLED" });
  found.length = 0;
  expect((await replicate(job, { pause: AbortSignal.abort() })).status).toBe("paused");
  expect(found.at(-1)).toMatchObject({ name: "replication-end", message: { outcome: "paused" } });
});

test("every attempt of a call passes its tracing channel", async () => {
  const { job } = scene();
  const seen = new Map<string, number>();
  for (const name of ["block-read", "block-write", "target-flush", "volume-commit", "provider-call"]) {
    const channel = tracingChannel<string, object>(`diskferry:${name}`);
    const count = (): void => void seen.set(name, (seen.get(name) ?? 0) + 1);
    const events = { start: count, end() {}, asyncStart() {}, asyncEnd() {}, error() {} };
    channel.subscribe(events);
    onTestFinished(() => channel.unsubscribe(events));
  }
  await replicate(job);
  expect([...seen.keys()].sort()).toEqual([
    "block-read",
    "block-write",
    "provider-call",
    "target-flush",
    "volume-commit",
  ]);
});
