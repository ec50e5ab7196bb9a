import { expect, test, vi } from "vitest";
import { connectVsphere } from "../../src/vsphere-connection.ts";
import { serviceInstance } from "./open-client.ts";
import { answerLogin, ScriptedServer, soapAnswer } from "./scripted-server.ts";

const time = soapAnswer(
  `<CurrentTimeResponse xmlns="urn:vim25"><returnval>2026-01-01T00:00:00Z</returnval></CurrentTimeResponse>`,
);
const login = { username: "u", password: "p", retrySeconds: 0 };

test.for([
  [undefined, 300_000],
  [7, 7_000],
] as const)("timeoutSeconds %s lets a request take %s ms", async ([timeoutSeconds, expected]) => {
  await using server = await ScriptedServer.start((request, response) => {
    if (!answerLogin(request, response, "vmware_soap_session=x")) response.end(time);
  });
  await using connection = await connectVsphere({ ...login, url: server.url.origin, timeoutSeconds });
  expect(connection.client.timeoutMs).toBe(expected);
  const timeout = vi.spyOn(AbortSignal, "timeout");
  try {
    await connection.client.call("CurrentTime", serviceInstance);
    expect(timeout.mock.calls).toEqual([[expected]]);
  } finally {
    timeout.mockRestore();
  }
});

test.for([
  [undefined, 8],
  [3, 3],
] as const)("connections %s: of 50 calls %s run at once", async ([connections, expected]) => {
  const held: (() => void)[] = [];
  let most = 0;
  await using server = await ScriptedServer.start((request, response) => {
    if (answerLogin(request, response, "vmware_soap_session=x")) return;
    held.push(() => response.end(time));
    most = Math.max(most, held.length);
  });
  await using connection = await connectVsphere({ ...login, url: server.url.origin, connections });
  const calls = Promise.all(Array.from({ length: 50 }, () => connection.client.call("CurrentTime", serviceInstance)));
  for (let left = 50; left > 0; left--) {
    // Nothing is answered until as many run as may, or as are left.
    const running = Math.min(expected, left);
    await vi.waitFor(() => expect(held.length).toBeGreaterThanOrEqual(running), { timeout: 30_000, interval: 2 });
    held.shift()!();
  }
  expect(await calls).toHaveLength(50);
  expect(most).toBe(expected);
});
