import type { DiskSnapshot, Machine, ProviderContext, Snapshot, SourceConnector } from "@diskferry/core/provider";
import { startVcenterSimulator, type VcenterSimulator, type VcenterSimulatorOptions } from "@diskferry/simulators";
import type { VsphereOptions } from "../src/options.ts";
import { provider } from "../src/provider.ts";

/** A simulated vCenter and connections to it, ended together. */
export class World implements AsyncDisposable {
  readonly simulator: VcenterSimulator;
  /** What the sources had to say. */
  readonly notices: string[] = [];
  readonly #sources: SourceConnector[] = [];

  private constructor(simulator: VcenterSimulator) {
    this.simulator = simulator;
  }

  /** Plain HTTP unless the options say otherwise. */
  static async start(options: VcenterSimulatorOptions = {}): Promise<World> {
    return new World(await startVcenterSimulator({ tls: false, ...options }));
  }

  /** How to reach the simulator. */
  options(more: Partial<VsphereOptions> = {}): VsphereOptions {
    const { url, userName, password, tls } = this.simulator;
    return {
      url,
      username: userName,
      password,
      retrySeconds: 20,
      ...(tls === undefined ? {} : { thumbprint: tls.sha256 }),
      ...more,
    };
  }

  /** Another connection. */
  async source(more: Partial<VsphereOptions> = {}, context: ProviderContext = {}): Promise<SourceConnector> {
    const notice = (message: string): void => {
      this.notices.push(message);
      context.notice?.(message);
    };
    const source = await provider.source!(this.options(more), { ...context, notice });
    this.#sources.push(source);
    return source;
  }

  /** The machine of this name, as a source lists it. */
  async machine(source: SourceConnector, name = "web"): Promise<Machine> {
    return source.machine(name);
  }

  /** Names of the snapshots that a machine has. */
  snapshots(name = "web"): string[] {
    return [...this.simulator.machine(name).snapshots()].map((each) => each.name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const source of this.#sources) await source[Symbol.asyncDispose]();
    await this.simulator.stop();
  }
}

/** Reads all of a disk, forwards. */
export async function readAll(
  source: SourceConnector,
  disk: DiskSnapshot,
  step: number = 1 << 20,
): Promise<Uint8Array> {
  const reader = await source.open(disk);
  try {
    const bytes = new Uint8Array(reader.size).fill(0xa5);
    for (let at = 0; at < reader.size; at += step)
      await reader.read(at, bytes.subarray(at, Math.min(reader.size, at + step)));
    return bytes;
  } finally {
    await reader[Symbol.asyncDispose]();
  }
}

/** The id by which vCenter calls a snapshot. */
export function snapshotIdOf(snapshot: Snapshot): string {
  const id = snapshot.data?.["snapshot"];
  if (typeof id !== "string") throw new TypeError(`${snapshot.id} is no snapshot of vSphere`);
  return id;
}
