import { expect, test, vi } from "vitest";
import { randomBytes } from "../../../test/seed.ts";
import { openTicketSession } from "../src/ticket-session.ts";
import { readAll, World } from "./world.ts";

vi.setConfig({ testTimeout: 120_000 });
const size = 1 << 20;

test("a worker with a ticket copies without the password, and each ticket is good for one", async () => {
  await using world = await World.start({ machines: [{ name: "web", disks: [{ size }], tracking: true }] });
  const { simulator } = world;
  simulator.populate("web", 2000, 0, randomBytes(size, 1));
  const session = await openTicketSession(world.options());
  const [one, other] = [await session.ticket(), await session.ticket()];
  expect(one).not.toBe(other);
  const byTicket = { username: undefined, password: undefined };
  for (const protocol of ["soap", "vi-json"] as const) {
    const cloneTicket = protocol === "soap" ? one : other;
    const worker = await world.source({ ...byTicket, cloneTicket, protocol });
    const machine = await worker.machine("web");
    const snapshot = await worker.snapshot(machine, { key: `run-${protocol}` });
    const held = simulator.readDisk("web", 2000, {});
    expect(Buffer.compare(await readAll(worker, snapshot.disks[0]!), held)).toBe(0);
    await worker.release(snapshot);
    await expect(world.source({ ...byTicket, cloneTicket, protocol })).rejects.toMatchObject({ code: "AUTH" });
    await worker[Symbol.asyncDispose]();
  }
  await session[Symbol.asyncDispose]();
  expect(simulator.alive).toEqual({ sessions: 0, leases: 0, tasks: 0 });
});
