import { isProviderError, type PowerState, type ProviderContext, type Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { VsphereOptions } from "../options.ts";
import type { AutomationClient, DetailedMachine, ListedMachine } from "../rest/automation-client.ts";
import { moRef } from "../vim/moref.ts";
import { powerStateOf, readPowerState } from "../vim/power-calls.ts";
import { listObjects, readObject } from "../vim/property-collector.ts";
import { connectVsphere, type VsphereConnection } from "../vsphere-connection.ts";
import { shownName, storedName } from "./entity-names.ts";
import { machineDetailPaths, readMachine } from "./read-machine.ts";
import { VsphereInventory } from "./vsphere-inventory.ts";

const listPaths: readonly string[] = [
  "name",
  "config.template",
  "runtime.powerState",
  "config.hardware.numCPU",
  "config.hardware.memoryMB",
];

/** The machines of a place without their disks, for lists of thousands; one machine's details and power state by its moref. */
export interface QuickInventory extends AsyncDisposable {
  /** Every machine, or those of exactly these names; templates are left out. */
  list(filter?: { readonly names?: readonly string[] }, wait?: Wait): AsyncIterable<ListedMachine>;
  /** One machine with its disks. @throws ProviderError NOT_FOUND */
  detail(moref: string, wait?: Wait): Promise<DetailedMachine>;
  /** One machine's power state. @throws ProviderError NOT_FOUND */
  power(moref: string, wait?: Wait): Promise<PowerState>;
}

/**
 * Connects to a place for its quick inventory: by the vSphere Automation API, which answers with up to 4,000 machines at once, and by
 * vim25 where that is not there, does not answer or holds more; a notice says so each time.
 *
 * @throws ProviderError as the provider's source does when it connects
 */
export async function openQuickInventory(options: VsphereOptions, context?: ProviderContext): Promise<QuickInventory> {
  const place = await connectVsphere(options, context);
  return new VsphereQuickInventory(place, new VsphereInventory(place));
}

class VsphereQuickInventory implements QuickInventory {
  readonly #connection: VsphereConnection;
  readonly #inventory: VsphereInventory;

  constructor(connection: VsphereConnection, inventory: VsphereInventory) {
    this.#connection = connection;
    this.#inventory = inventory;
  }

  async *list(filter: { readonly names?: readonly string[] } = {}, wait: Wait = {}): AsyncGenerator<ListedMachine> {
    const { options } = this.#connection;
    const names = filter.names?.flatMap((name) => [...new Set([storedName(name), name])]);
    // The Automation API's filter of datacenters wants ids.
    const all =
      options.datacenter === undefined
        ? await this.#byAutomation((client) => client.list(names === undefined ? {} : { names }, wait), wait)
        : undefined;
    if (all === undefined) yield* this.#listByVim(names, wait);
    else for (const machine of all) yield { ...machine, name: shownName(machine.name) };
  }

  async detail(moref: string, wait: Wait = {}): Promise<DetailedMachine> {
    const found = await this.#byAutomation((client) => client.detail(moref, wait), wait);
    if (found !== undefined) return { ...found, name: shownName(found.name) };
    const { client, placeId } = this.#connection;
    const properties = await readObject(client, moRef("VirtualMachine", moref), machineDetailPaths, {
      ...wait,
      about: moref,
    });
    const machine = readMachine(properties, { placeId, folderPath: () => "", canDecrypt: true });
    if (machine === undefined) {
      throw vsphereError("UNAVAILABLE", `vSphere shows no configuration of ${moref}; see to its host and datastore`, {
        retryable: false,
      });
    }
    const { spec = {} } = machine;
    return {
      name: machine.name,
      instanceUuid: properties.string("config.instanceUuid"),
      power: machine.power,
      cpus: spec.cpus,
      memoryBytes: spec.memoryBytes,
      firmware: spec.firmware,
      disks: machine.disks.map(({ key, size, name }) => ({ key, size, label: name })),
      macs: (spec.networkCards ?? []).flatMap(({ mac }) => mac ?? []),
    };
  }

  async power(moref: string, wait: Wait = {}): Promise<PowerState> {
    const found = await this.#byAutomation((client) => client.power(moref, wait), wait);
    return found ?? readPowerState(this.#connection.client, moRef("VirtualMachine", moref), { ...wait, about: moref });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inventory[Symbol.asyncDispose]();
    await this.#connection[Symbol.asyncDispose]();
  }

  /** Undefined where vim25 has to be asked: what does not exist is told by it too. */
  async #byAutomation<Result>(
    ask: (client: AutomationClient) => Promise<Result>,
    wait: Wait,
  ): Promise<Result | undefined> {
    const { automation } = this.#inventory;
    if (automation === undefined) return undefined;
    try {
      return await ask(automation);
    } catch (error) {
      wait.signal?.throwIfAborted();
      if (!isProviderError(error)) throw error;
      this.#connection.notice(`the Automation API did not answer (${error.message}); vim25 is asked instead`);
      return undefined;
    }
  }

  async *#listByVim(names: readonly string[] | undefined, wait: Wait): AsyncGenerator<ListedMachine> {
    const { client } = this.#connection;
    const wanted = { types: ["VirtualMachine"], paths: listPaths };
    for await (const page of listObjects(client, await this.#inventory.scope(wait), wanted, wait)) {
      for (const properties of page) {
        const name = properties.string("name") ?? "";
        if (properties.boolean("config.template") === true || names?.includes(name) === false) continue;
        const mebibytes = properties.number("config.hardware.memoryMB");
        yield {
          moref: properties.object.value,
          name: shownName(name),
          power: powerStateOf(properties.string("runtime.powerState")),
          cpus: properties.number("config.hardware.numCPU"),
          memoryBytes: mebibytes === undefined ? undefined : mebibytes * 2 ** 20,
        };
      }
    }
  }
}
