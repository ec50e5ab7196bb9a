import { once } from "node:events";
import { parseArgs } from "node:util";
import { generateMachines } from "./inventory.ts";
import type { ReleaseName } from "./releases.ts";
import { isReleaseName, releaseNames } from "./releases.ts";
import { startVcenterSimulator } from "./vcenter-simulator.ts";

/** What `diskferry-simulators vcenter` understands. */
export const vcenterUsage: string = `diskferry-simulators vcenter [--port 0] [--version 8.0.3] [--machines 3] [--plain]
  --port      of 127.0.0.1; 0 takes any free one
  --version   ${releaseNames.join(", ")}
  --machines  how many machines to generate
  --plain     HTTP without TLS`;

/**
 * Runs a simulated vCenter until the signal fires; `print` gets one line of JSON: where it listens and how to log in.
 *
 * @throws RangeError for arguments that it does not understand
 */
export async function runVcenter(
  args: readonly string[],
  print: (line: string) => void,
  options: { signal: AbortSignal },
): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      port: { type: "string", default: "0" },
      version: { type: "string", default: "8.0.3" satisfies ReleaseName },
      machines: { type: "string", default: "3" },
      plain: { type: "boolean", default: false },
    },
  });
  const { version } = values;
  if (!isReleaseName(version)) throw new RangeError(`no release '${version}'; there are ${releaseNames.join(", ")}`);
  const [port, machines] = [Number(values.port), Number(values.machines)];
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new RangeError(`no port '${values.port}'`);
  if (!Number.isInteger(machines) || machines < 0) throw new RangeError(`no count of machines: '${values.machines}'`);
  await using simulator = await startVcenterSimulator({
    port,
    version,
    tls: !values.plain,
    machines: generateMachines(machines),
  });
  const { url, userName, password, tls } = simulator;
  print(JSON.stringify({ version, url, userName, password, authority: tls?.authority, thumbprint: tls?.sha1 }));
  if (!options.signal.aborted) await once(options.signal, "abort");
}
