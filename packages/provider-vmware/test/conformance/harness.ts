import type { SourceConnector } from "@diskferry/core/provider";
import type { MachineSpec } from "@diskferry/simulators";
import type { ConformanceHarness, SourceHarness } from "@diskferry/provider-testkit";
import type { VsphereOptions } from "../../src/options.ts";
import { provider } from "../../src/provider.ts";
import { snapshotIdOf, type World } from "../world.ts";

const mebi = 1 << 20;
/** No multiple of any block but a sector. */
const size = 2 * mebi + 65_536 + 512;
const name = "web";
const disk = 2000;
const foreign = "somebody's";

/** The machine that the suite is run on: two tracked disks that a guest writes. */
export const judgedMachine: MachineSpec = { name: "web", disks: [{ size }, { size: 2 * mebi }], tracking: true };

/** A simulated vCenter as the suite wants it, read in the ways of `options`. */
export function harnessOf(world: World, title: string, options: Partial<VsphereOptions>): ConformanceHarness {
  const { simulator } = world;
  const config = world.options(options);
  let capacity = size;
  const clear = (): void => {
    for (const snapshot of [...simulator.machine(name).snapshots()].reverse()) simulator.removeSnapshot(snapshot.id);
  };
  const source: SourceHarness = {
    async open() {
      // Tracking that begins anew above somebody's snapshot is not trusted, so it does not outlive the clause that it is for.
      for (const { id, name: called } of simulator.machine(name).snapshots()) {
        if (called === foreign) simulator.removeSnapshot(id);
      }
      const opened = await provider.source!(config, { notice: (message) => void world.notices.push(message) });
      const reset = opened.tracker!.reset!.bind(opened.tracker);
      // Tracking begins on disks without snapshots alone; the administrator removes those that the clause still holds.
      opened.tracker!.reset = (...args) => {
        clear();
        return reset(...args);
      };
      return opened;
    },
    machine: `${simulator.instanceUuid}/${simulator.machine(name).instanceUuid}`,
    disk: String(disk),
    writeGuest: (offset, bytes) => simulator.write(name, disk, offset, bytes),
    trimGuest: (offset, length) => simulator.trim(name, disk, offset, length),
    second: { key: "2001", write: (offset, bytes) => simulator.write(name, 2001, offset, bytes) },
    grow: () => {
      clear();
      simulator.grow(name, disk, (capacity += mebi));
    },
    revert: (snapshot) => {
      const id = snapshotIdOf(snapshot);
      const found = [...simulator.machine(name).snapshots()].find((each) => each.id === id);
      if (found === undefined) throw new Error(`no snapshot ${id}`);
      simulator.machine(name).revert(found);
    },
    breakTracking: () => simulator.resetTracking(name),
    foreignSnapshot: async () => {
      const id = simulator.takeSnapshot(name, foreign);
      const connection: SourceConnector = await provider.source!(config);
      try {
        const machine = await connection.machine(name);
        for await (const each of connection.snapshots!(machine)) if (each.data?.["snapshot"] === id) return each;
        throw new Error(`${id} is not listed`);
      } finally {
        await connection[Symbol.asyncDispose]();
      }
    },
    mayPower: true,
  };
  return {
    name: title,
    definition: { provider, config, badConfig: { url: "ftp://nowhere", colour: "blue" } },
    source,
    secrets: [simulator.password],
  };
}
