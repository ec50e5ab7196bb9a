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
  const properties = await readObject(client, perfManager, ["perfCounter"], wait);
  const counters = properties.get("perfCounter")?.children ?? [];
  const [cpu, memory] = [counterId(counters, "cpu"), counterId(counters, "mem")];
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

function counterId(counters: readonly VimElement[], group: string): number | undefined {
  const found = counters.find(
    (counter) =>
      counter.at("groupInfo", "key")?.text === group &&
      counter.at("nameInfo", "key")?.text === "usage" &&
      counter.string("rollupType") === "average",
  );
  return found?.number("key");
}
