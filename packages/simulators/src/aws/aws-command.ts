import { once } from "node:events";
import { parseArgs } from "node:util";
import { startAwsSimulator } from "./aws-simulator.ts";

/** What `diskferry-simulators aws` understands. */
export const awsUsage: string = `diskferry-simulators aws [--port 0] [--region us-east-1] [--quota-scale 1] [--latency 0] [--empty]
  --port         of 127.0.0.1; 0 takes any free one
  --region       where the two ready instances are
  --quota-scale  multiplies AWS's default quotas
  --latency      milliseconds that each answer waits
  --empty        no ready instances`;

/**
 * Runs a simulated AWS until the signal fires; `print` gets a line of JSON that says where it listens, and one at the
 * end that says how much processor time it used.
 *
 * @throws RangeError for arguments that it does not understand
 */
export async function runAws(
  args: readonly string[],
  print: (line: string) => void,
  options: { signal: AbortSignal },
): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      port: { type: "string", default: "0" },
      region: { type: "string", default: "us-east-1" },
      "quota-scale": { type: "string", default: "1" },
      latency: { type: "string", default: "0" },
      empty: { type: "boolean", default: false },
    },
  });
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new RangeError(`no port '${values.port}'`);
  const quotaScale = Number(values["quota-scale"]);
  if (!(quotaScale > 0)) throw new RangeError(`no scale of quotas: '${values["quota-scale"]}'`);
  const latencyMs = Number(values.latency);
  if (!(latencyMs >= 0 && latencyMs <= 60_000)) throw new RangeError(`no latency: '${values.latency}'`);
  await using simulator = await startAwsSimulator({
    port,
    quotaScale,
    latencyMs,
    region: values.region,
    readyInstances: !values.empty,
  });
  const { endpoint, credentials, instances } = simulator;
  print(JSON.stringify({ endpoint, region: values.region, credentials, instances }));
  if (!options.signal.aborted) await once(options.signal, "abort");
  const { user, system } = process.cpuUsage();
  print(JSON.stringify({ cpuMs: { user: Math.round(user / 1000), system: Math.round(system / 1000) } }));
}
