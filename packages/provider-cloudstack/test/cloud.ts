import { type CloudstackSimulator, startCloudstackSimulator } from "@diskferry/simulators";
import type { CloudstackOptions } from "../src/index.ts";

/** How a simulator starts. */
export type SimulatorOptions = Parameters<typeof startCloudstackSimulator>[0];

/** A simulator and the options that lead to it as its tenant. */
export interface TestCloud extends AsyncDisposable {
  simulator: CloudstackSimulator;
  options: CloudstackOptions;
}

/** Starts a simulator; what is asked of it is asked quickly. */
export async function startCloud(given: SimulatorOptions = {}): Promise<TestCloud> {
  const simulator = await startCloudstackSimulator({ jobMs: 1, ...given, devices: { lagMs: 1, ...given.devices } });
  return { simulator, options: optionsFor(simulator), [Symbol.asyncDispose]: () => simulator.close() };
}

/** Options of the tenant, whose appliance is the simulator's. */
export function optionsFor(simulator: CloudstackSimulator): CloudstackOptions {
  const { root } = simulator.appliance;
  return {
    endpoint: simulator.url,
    apiKey: simulator.tenant.apiKey,
    secretKey: simulator.tenant.secretKey,
    appliance: {
      machine: simulator.appliance.id,
      devices: { byId: `${root}/dev/disk/by-id`, dev: `${root}/dev`, sys: `${root}/sys` },
    },
    diskOffering: "Custom",
    launch: { networks: [{ network: "production" }], testNetwork: "isolated-test" },
    timeouts: { pollMs: 1, pollMostMs: 20, requestMs: 10_000, jobMs: 10_000, deviceMs: 2_000 },
    retryBudgetMs: 2_000,
  };
}
