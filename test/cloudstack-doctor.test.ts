import { fileURLToPath } from "node:url";
import { afterEach, expect, test, vi } from "vitest";
import { jsonLines, workplace } from "../packages/cli/test/in-process.ts";
import { startCloud } from "../packages/provider-cloudstack/test/cloud.ts";

const provider = fileURLToPath(new URL("../packages/provider-cloudstack", import.meta.url));
afterEach(() => vi.unstubAllEnvs());

// What an operator is told before anything is touched: of the place, the role, quotas and the appliance.
test("doctor and plan look a CloudStack over, name what is missing with its remedy, and change nothing", async () => {
  await using cloud = await startCloud({ machines: [{ name: "db", disks: [3 * 2 ** 20, 2 * 2 ** 20] }] });
  const { simulator } = cloud;
  vi.stubEnv("CLOUDSTACK_KEY", simulator.tenant.apiKey);
  vi.stubEnv("CLOUDSTACK_SECRET", simulator.tenant.secretKey);
  const { host } = new URL(simulator.url);
  const source = `cloudstack+http://${host}/db?appliance=appliance`;
  const target = `cloudstack+http://${host}?appliance=appliance&offering=Custom`;
  const place = await workplace();
  const run = async (...args: string[]): Promise<{ code: number; out: string }> => {
    const said = await place.run([...args, "--provider", provider, "--json"]);
    const all = said.out + said.err;
    for (const secret of [simulator.tenant.apiKey, simulator.tenant.secretKey]) expect(all).not.toContain(secret);
    expect(jsonLines(said.out).length).toBeGreaterThan(0);
    return { code: said.code, out: all };
  };

  const well = await run("doctor", source, target);
  expect(well.out).toMatch(/CloudStack 4\.22\.0\.0/);
  expect(well.code).toBe(0);
  const planned = await run("plan", source, target);
  expect(planned.code).toBe(0);
  expect(planned.out).toMatch(/CloudStack tells nothing of changed blocks/);
  expect(planned.out).toMatch(/one point in time by a VM snapshot with memory/);

  simulator.limit("volume", 3);
  const short = await run("plan", source, target);
  expect(short.out).toMatch(/Volumes of this account: 2 are needed and 0 are left/);
  expect(short.out).toMatch(/Have the account's or project's limit raised/);
  simulator.deny(simulator.tenant.accountId, "createVolume");
  const ill = await run("doctor", source, target);
  expect(ill.code).toBe(4);
  expect(ill.out).toMatch(/lacks the command createVolume/);
  expect(ill.out).toMatch(/Allow createVolume in the account's role/);

  for (const changing of ["createVolume", "createSnapshot", "attachVolume", "createTags", "createVMSnapshot"])
    expect(simulator.calls.get(changing)).toBeUndefined();
}, 120_000);
