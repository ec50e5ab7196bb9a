import { existsSync } from "node:fs";
import { expect, it } from "vitest";
import { runCloudstack } from "../../src/cloudstack/cloudstack-command.ts";

it("prints where it listens and how to get in, serves, and ends with its folder gone", async () => {
  const stop = new AbortController();
  const printed = Promise.withResolvers<string>();
  const args = ["--version", "4.21.0.0", "--machines", "2", "--bus", "scsi"];
  const running = runCloudstack(args, printed.resolve, { signal: stop.signal });
  const { url, version, tenant, appliance, machines } = JSON.parse(await printed.promise) as {
    url: string;
    version: string;
    tenant: { userName: string; password: string };
    appliance: { id: string; root: string };
    machines: string[];
  };
  expect(version).toBe("4.21.0.0");
  expect(machines).toHaveLength(2);
  const form = { command: "login", response: "json", username: tenant.userName, password: tenant.password };
  expect((await fetch(url, { method: "POST", body: new URLSearchParams(form) })).status).toBe(200);
  expect(existsSync(appliance.root)).toBe(true);
  stop.abort();
  await running;
  expect(existsSync(appliance.root)).toBe(false);
});

it.each([
  [["--version", "4.2"], /no release '4.2'; there are 4.19.0.0/],
  [["--port", "70000"], /no port '70000'/],
  [["--machines", "x"], /no count of machines: 'x'/],
  [["--bus", "ide"], /no bus 'ide'/],
  [["--colour"], /colour/],
] as const)("refuses %j", async (args, message) => {
  await expect(runCloudstack(args, () => undefined, { signal: AbortSignal.abort() })).rejects.toThrow(message);
});
