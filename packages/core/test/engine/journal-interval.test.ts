import { expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { memoryPlace } from "../../src/memory/memory-place.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";

const MIB = 1 << 20;

it("no more than the journal's interval is written between two durable points, however small it is", async () => {
  const place = memoryPlace();
  place.addMachine({ id: "vm", name: "vm", disks: [{ key: "disk", size: 16 * MIB }] });
  place.write("vm", "disk", 0, randomBytes(16 * MIB, 7));
  let flushes = 0;
  place.fault = ({ method }) => void (flushes += method === "writer.flush" ? 1 : 0);
  await replicate({
    id: "job",
    source: place.source,
    machine: "vm",
    target: place.target,
    store: new MemoryStateStore(),
    options: { journal: { bytes: MIB } },
  });
  expect(flushes).toBeGreaterThanOrEqual(16);
});
