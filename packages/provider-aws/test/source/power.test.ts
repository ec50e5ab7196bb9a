import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { provider } from "../../src/index.ts";
import { awsWorld } from "../aws-world.ts";
import { place } from "./taken.ts";

test("a guest that does not shut down is an error in time, and is never forced", async () => {
  const asked: URLSearchParams[] = [];
  // An instance that is running, and stays so whatever it is told.
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const form = new URLSearchParams(Buffer.concat(parts).toString());
      asked.push(form);
      const item =
        "<item><instanceId>i-1</instanceId><instanceState><code>16</code><name>running</name></instanceState></item>";
      const body = `<reservationSet><item><instancesSet>${item}</instancesSet></item></reservationSet>`;
      const action = form.get("Action");
      response.end(`<?xml version="1.0"?><${action}Response>${body}</${action}Response>`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await using source = await provider.source!({
      region: "us-east-1",
      endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      credentials: { accessKeyId: "AKIA", secretAccessKey: "s", accountId: "111111111111" },
      timeouts: { powerMs: 60, pollMs: 5 },
    });
    const machine = { id: "i-1", name: "i-1", disks: [] };
    await expect(source.power!.shutdown(machine)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: false,
      message: expect.stringMatching(/i-1 is running and not stopped.*allow power-off/) as string,
    });
    const stops = () => asked.filter((form) => form.get("Action") === "StopInstances");
    expect(stops().map((form) => form.get("Force"))).toEqual([null]);
    await expect(source.power!.powerOff(machine)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(stops().map((form) => form.get("Force"))).toEqual([null, "true"]);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test("an instance is stopped for good before it is snapshotted as off, and started again", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const power = it.source.power!;
  expect(await power.state(it.machine)).toBe("on");
  await power.shutdown(it.machine);
  expect(await power.state(it.machine)).toBe("off");
  expect((await it.snapshot()).disks.length).toBe(3);
  await power.powerOn(it.machine);
  await power.powerOn(it.machine);
  expect(await power.state(it.machine)).toBe("on");
});

test("a volume has no power, and says so", async () => {
  await using world = await awsWorld();
  const volume = world.simulator.addSyntheticVolume({ sizeGib: 1, stride: 1 });
  await using it = await place(world);
  const machine = await it.source.machine(volume);
  await expect(it.source.power!.shutdown(machine)).rejects.toMatchObject({ code: "UNSUPPORTED" });
});
