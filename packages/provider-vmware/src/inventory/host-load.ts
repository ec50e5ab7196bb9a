import type { SourceLoad } from "@diskferry/core/provider";
import type { VimElement } from "../vim/vim-element.ts";
import type { MoRef } from "../vim/moref.ts";
import { readObject } from "../vim/property-collector.ts";
import { vimData } from "../vim/vim-argument.ts";
import type { CallWait, VimClient } from "../vim/vim-client.ts";

/** How busy a host is, in percent; absent: not told. */
export interface HostLoad {
  readonly cpuPercent: number | undefined;
  readonly memoryPercent: number | undefined;
}

/** Seconds between the samples that hosts keep of the last hour (PerformanceManager, real-time interval). */
const realTimeInterval = 20;
/** The last minute. */
const samples = 3;

/**
 * What a host's counters `cpu.usage.average` and `mem.usage.average` say of the last minute (QueryPerf), so that a run's effect on
 * the host can be seen. Their numbers are hundredths of a percent, and their ids differ between servers.
 */
export async function readHostLoad(client: VimClient, host: MoRef, wait: CallWait = {}): Promise<HostLoad> {
  const { perfManager } = client.references;
  if (perfManager === undefined) return { cpuPercent: undefined, memoryPercent: undefined };
  const { cpu, memory } = await usageCounters(client, perfManager, wait);
  const wanted = [cpu, memory].filter((id) => id !== undefined);
  if (wanted.length === 0) return { cpuPercent: undefined, memoryPercent: undefined };
  const querySpec = [
    vimData("PerfQuerySpec", {
      entity: host,
      maxSample: samples,
      metricId: wanted.map((id) => vimData("PerfMetricId", { counterId: id, instance: "" })),
      intervalId: realTimeInterval,
    }),
  ];
  const [metric] = await client.call("QueryPerf", perfManager, { querySpec }, wait);
  const average = (id: number | undefined): number | undefined => {
    const series = metric?.all("value").find((each) => each.child("id")?.number("counterId") === id);
    const values = (series?.all("value") ?? []).map(({ asNumber }) => asNumber).filter((value) => value >= 0);
    if (id === undefined || values.length === 0) return undefined;
    return values.reduce((sum, value) => sum + value, 0) / values.length / 100;
  };
  return { cpuPercent: average(cpu), memoryPercent: average(memory) };
}

interface UsageCounters {
  readonly cpu: number | undefined;
  readonly memory: number | undefined;
}

/** By session: the list of counters is long, and stays as it is. */
const knownCounters = new WeakMap<VimClient, UsageCounters>();

async function usageCounters(client: VimClient, perfManager: MoRef, wait: CallWait): Promise<UsageCounters> {
  const known = knownCounters.get(client);
  if (known !== undefined) return known;
  const properties = await readObject(client, perfManager, ["perfCounter"], wait);
  const counters = properties.get("perfCounter")?.children ?? [];
  const found = { cpu: counterId(counters, "cpu"), memory: counterId(counters, "mem") };
  knownCounters.set(client, found);
  return found;
}

/** How busy the host is that a machine runs on now; undefined where it is on none, or its counters are not told. */
export async function readMachineLoad(
  client: VimClient,
  machine: MoRef,
  wait: CallWait = {},
): Promise<SourceLoad | undefined> {
  const properties = await readObject(client, machine, ["runtime.host"], wait);
  const host = properties.reference("runtime.host");
  if (host === undefined) return undefined;
  const { cpuPercent, memoryPercent } = await readHostLoad(client, host, wait);
  if (cpuPercent === undefined && memoryPercent === undefined) return undefined;
  const name = (await readObject(client, host, ["name"], wait)).string("name") ?? host.value;
  return {
    host: name,
    ...(cpuPercent === undefined ? {} : { cpuPercent }),
    ...(memoryPercent === undefined ? {} : { memoryPercent }),
  };
}

function counterId(counters: readonly VimElement[], group: string): number | undefined {
  const found = counters.find(
    (counter) =>
      counter.at("groupInfo", "key")?.text === group &&
      counter.at("nameInfo", "key")?.text === "usage" &&
      counter.string("rollupType") === "average",
  );
  return found?.number("key");
}
