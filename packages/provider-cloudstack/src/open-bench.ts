import { remoteBench } from "./appliance/remote-bench.ts";
import type { Cloud } from "./cloud.ts";
import { type Bench, localBench } from "./target/bench.ts";

/** The bench that the options name: this machine's own devices, or those of an appliance over TLS. */
export function benchOf(cloud: Cloud): Bench {
  const { remote } = cloud.options.appliance ?? {};
  if (remote === undefined) return localBench(cloud);
  return remoteBench({
    ...remote,
    openTimeoutMs:
      cloud.options.timeouts?.deviceMs === undefined ? undefined : cloud.options.timeouts.deviceMs + 10_000,
    notice: (message) => cloud.notice(message),
  });
}
