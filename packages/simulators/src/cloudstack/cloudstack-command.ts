import { once } from "node:events";
import { parseArgs } from "node:util";
import { startCloudstackSimulator } from "./cloudstack-simulator.ts";
import { isReleaseName, releaseNames, type ReleaseName } from "./releases.ts";

/** What `diskferry-simulators cloudstack` understands. */
export const cloudstackUsage: string = `diskferry-simulators cloudstack [--port 0] [--version 4.22.0.0] [--machines 1] [--bus virtio]
  --port      of 127.0.0.1; 0 takes any free one
  --version   ${releaseNames.join(", ")}
  --machines  how many machines of two volumes to make, beside the appliance
  --bus       virtio or scsi: how the appliance sees its volumes`;

/**
 * Runs a simulated CloudStack until the signal fires; `print` gets one line of JSON: where it listens, the keys, and the
 * folder that stands for the appliance's `/`.
 *
 * @throws RangeError for arguments that it does not understand
 */
export async function runCloudstack(
  args: readonly string[],
  print: (line: string) => void,
  options: { signal: AbortSignal },
): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      port: { type: "string", default: "0" },
      version: { type: "string", default: "4.22.0.0" satisfies ReleaseName },
      machines: { type: "string", default: "1" },
      bus: { type: "string", default: "virtio" },
    },
  });
  const { version, bus } = values;
  if (!isReleaseName(version)) throw new RangeError(`no release '${version}'; there are ${releaseNames.join(", ")}`);
  if (bus !== "virtio" && bus !== "scsi") throw new RangeError(`no bus '${bus}'; there are virtio and scsi`);
  const [port, count] = [Number(values.port), Number(values.machines)];
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new RangeError(`no port '${values.port}'`);
  if (!Number.isInteger(count) || count < 0) throw new RangeError(`no count of machines: '${values.machines}'`);
  await using simulator = await startCloudstackSimulator({
    port,
    version,
    devices: { bus },
    machines: Array.from({ length: count }, (_, index) => ({
      name: `machine-${index + 1}`,
      disks: [64 * 2 ** 20, 32 * 2 ** 20],
    })),
  });
  const { url, tenant, admin, zoneId, appliance, machines } = simulator;
  print(
    JSON.stringify({
      version,
      url,
      zoneId,
      tenant,
      admin,
      appliance: { id: appliance.id, root: appliance.root },
      machines,
    }),
  );
  if (!options.signal.aborted) await once(options.signal, "abort");
}
