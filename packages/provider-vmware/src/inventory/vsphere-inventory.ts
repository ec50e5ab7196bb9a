import { isProviderError, type Machine, type Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { AutomationClient } from "../rest/automation-client.ts";
import { type MoRef, moRef } from "../vim/moref.ts";
import { listObjects, readObject } from "../vim/property-collector.ts";
import { faultOf } from "../vim/vim-fault.ts";
import type { VimProperties } from "../vim/vim-properties.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import { nearNames, shownName, storedName } from "./entity-names.ts";
import { type MachineData, machineDetailPaths, machinePaths, readMachine } from "./read-machine.ts";

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const qualifiedPattern = /^([0-9a-f-]{36})\/([0-9a-f-]{36})$/i;

/** The machines of a place. */
export class VsphereInventory implements AsyncDisposable {
  readonly #connection: VsphereConnection;
  readonly #automation: AutomationClient | undefined;
  readonly #folders = new Map<string, { name: string; parent: MoRef | undefined }>();
  #container: MoRef | undefined;

  constructor(connection: VsphereConnection) {
    this.#connection = connection;
    const { client, login } = connection;
    if (client.about.kind === "vcenter" && login !== undefined) {
      this.#automation = new AutomationClient(client.http, login);
    }
  }

  /** The client of the Automation API; undefined where there is none to be had: on hosts, and with a ticket. */
  get automation(): AutomationClient | undefined {
    return this.#automation;
  }

  /** Every machine, page by page; templates and machines without a readable configuration are left out. */
  async *machines(wait: Wait = {}): AsyncGenerator<Machine> {
    const { options, client } = this.#connection;
    if (options.machine !== undefined) {
      yield await this.machine(options.machine, wait);
      return;
    }
    await this.#readFolders(wait);
    const wanted = { types: ["VirtualMachine"], paths: machinePaths };
    for await (const page of listObjects(client, await this.scope(wait), wanted, wait)) {
      for (const properties of page) {
        if (properties.boolean("config.template") === true) continue;
        const machine = this.#read(properties);
        if (machine === undefined) {
          const name = properties.string("name") ?? properties.object.value;
          const state = properties.string("runtime.connectionState") ?? "unknown";
          this.#connection.notice(`${name} is left out: vSphere shows no configuration of it (it is ${state})`);
        } else yield machine;
      }
    }
  }

  /**
   * One machine: by the id that `machines` gives, inventory path, moref, instance or BIOS UUID, or name.
   *
   * @throws ProviderError NOT_FOUND, naming near names; CONFIG_INVALID for a name that several machines have, naming their
   * paths; UNSUPPORTED for a template
   */
  async machine(id: string, wait: Wait = {}): Promise<Machine> {
    const object = await this.#find(id, wait);
    const properties = await readObject(this.#connection.client, object, machineDetailPaths, { ...wait, about: id });
    await this.#readAncestors(properties.reference("parent"), wait);
    if (properties.boolean("config.template") === true) throw isTemplate(id);
    const machine = this.#read(properties);
    if (machine === undefined) {
      const state = properties.string("runtime.connectionState") ?? "unknown";
      throw vsphereError(
        "UNAVAILABLE",
        `${id} is there, but vSphere shows no configuration of it (it is ${state}); see to its host and datastore`,
        { retryable: false },
      );
    }
    return machine;
  }

  /** Closes the session of the Automation API, where there is one. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#automation?.[Symbol.asyncDispose]();
    } catch (error) {
      // It ends by itself after its idle time; a server that is gone must not hide why somebody closes.
      this.#connection.notice(`ending the session of the Automation API failed: ${(error as Error).message}`);
    }
  }

  async #find(id: string, wait: Wait): Promise<MoRef> {
    const { placeId, client } = this.#connection;
    const qualified = qualifiedPattern.exec(id);
    if (qualified !== null) {
      if (qualified[1]!.toLowerCase() !== placeId) {
        throw vsphereError(
          "NOT_FOUND",
          `the machine ${qualified[2]} belongs to the vCenter ${qualified[1]}, and ${client.http.host} is ${placeId}; ` +
            `connect to the other one`,
        );
      }
      return this.#byUuid(qualified[2]!, wait);
    }
    if (uuidPattern.test(id)) return this.#byUuid(id, wait);
    const moref = /^(?:moref:|VirtualMachine:)?(vm-\d+|\d+)$/.exec(id)?.[1];
    const byMoref = moref === undefined ? undefined : await this.#exists(moRef("VirtualMachine", moref), wait);
    if (byMoref !== undefined) return byMoref;
    const byPath = await this.#byPath(id, wait);
    if (byPath !== undefined) return byPath;
    return this.#byName(id, wait);
  }

  /** By the instance's UUID, which vCenter keeps unique, and only then by that of the BIOS, which copies share. */
  async #byUuid(uuid: string, wait: Wait): Promise<MoRef> {
    const { client } = this.#connection;
    const index = client.references.searchIndex;
    if (index === undefined) throw vsphereError("UNSUPPORTED", `${client.place} has no search index`);
    const datacenter = this.#connection.options.datacenter === undefined ? undefined : await this.scope(wait);
    for (const instanceUuid of [true, false]) {
      const found = await client.call("FindAllByUuid", index, { datacenter, uuid, vmSearch: true, instanceUuid }, wait);
      const references = found.flatMap((each) => each.asReference ?? []);
      if (references.length > 1) throw await this.#ambiguous(uuid, references, wait);
      if (references[0] !== undefined) return references[0];
    }
    throw vsphereError("NOT_FOUND", `no machine at ${client.http.host} has the UUID ${uuid}; it may have been removed`);
  }

  async #exists(object: MoRef, wait: Wait): Promise<MoRef | undefined> {
    try {
      await readObject(this.#connection.client, object, ["name"], wait);
      return object;
    } catch (error) {
      if (isProviderError(error) && error.code === "NOT_FOUND") return undefined;
      throw error;
    }
  }

  /** A path as it is, and below the datacenter's folder of machines where one is set. */
  async #byPath(path: string, wait: Wait): Promise<MoRef | undefined> {
    const { client, options } = this.#connection;
    const index = client.references.searchIndex;
    const trimmed = path.replace(/^\/+|\/+$/g, "");
    if (index === undefined || trimmed === "") return undefined;
    const candidates = trimmed.includes("/") ? [trimmed] : [];
    if (options.datacenter !== undefined)
      candidates.push(`${options.datacenter.replace(/^\/+|\/+$/g, "")}/vm/${trimmed}`);
    for (const inventoryPath of candidates) {
      const [found] = await client.call("FindByInventoryPath", index, { inventoryPath }, wait);
      const object = found?.asReference;
      if (object === undefined) continue;
      if (object.type === "VirtualMachine") return object;
      throw vsphereError("NOT_FOUND", `${inventoryPath} is a ${object.type} and no machine; name a machine in it`);
    }
    return undefined;
  }

  async #byName(name: string, wait: Wait): Promise<MoRef> {
    const quick = await this.#quickNames(name, wait);
    if (quick.length === 1) return quick[0]!;
    if (quick.length > 1) throw await this.#ambiguous(name, quick, wait);
    const { client } = this.#connection;
    const wanted = { types: ["VirtualMachine"], paths: ["name", "parent", "config.template"] };
    const matches: VimProperties[] = [];
    const others: VimProperties[] = [];
    for await (const page of listObjects(client, await this.scope(wait), wanted, wait)) {
      for (const each of page) (namesMatch(each.string("name") ?? "", name) ? matches : others).push(each);
    }
    const machines = matches.filter((each) => each.boolean("config.template") !== true);
    if (machines.length === 1) return machines[0]!.object;
    if (machines.length > 1)
      throw await this.#ambiguous(
        name,
        machines.map(({ object }) => object),
        wait,
      );
    if (matches.length > 0) throw isTemplate(name);
    await this.#readFolders(wait);
    const inPath = name.includes("/");
    const known = others.flatMap((each) => {
      if (each.boolean("config.template") === true) return [];
      const own = each.string("name") ?? "";
      return inPath ? `${this.#folderPath(each.reference("parent"))}/${own}` : shownName(own);
    });
    const near = nearNames(name, known);
    const hint =
      near.length > 0
        ? `did you mean ${near.join(", ")}?`
        : known.length === 0
          ? "no machine is visible to this user: check its role's propagation"
          : `${known.length} machines are visible, none of a name like it`;
    throw vsphereError("NOT_FOUND", `no machine at ${client.http.host} is called '${name}'; ${hint}`);
  }

  /** By the Automation API where there is one: it finds a name among thousands in one short answer. */
  async #quickNames(name: string, wait: Wait): Promise<MoRef[]> {
    const { options, notice } = this.#connection;
    // Its filter of datacenters wants ids, and a name out of scope must not be found.
    if (this.#automation === undefined || options.datacenter !== undefined) return [];
    try {
      const found = await this.#automation.list({ names: [storedName(name), name] }, wait);
      return found.map(({ moref }) => moRef("VirtualMachine", moref));
    } catch (error) {
      wait.signal?.throwIfAborted();
      if (!isProviderError(error)) throw error;
      notice(`the Automation API did not answer (${error.message}); machines are listed by vim25 instead`);
      return [];
    }
  }

  async #ambiguous(name: string, candidates: readonly MoRef[], wait: Wait): Promise<Error> {
    const { client } = this.#connection;
    await this.#readFolders(wait);
    const paths: string[] = [];
    for (const object of candidates.slice(0, mostCandidates)) {
      const properties = await readObject(client, object, ["name", "parent"], wait);
      const folder = this.#folderPath(properties.reference("parent"));
      paths.push(`${folder}/${properties.string("name") ?? ""} (${object.value})`);
    }
    const more = candidates.length > mostCandidates ? ` and ${candidates.length - mostCandidates} more` : "";
    return vsphereError(
      "CONFIG_INVALID",
      `${candidates.length} machines are called '${name}': ${paths.join(", ")}${more}; name one by its path or moref`,
    );
  }

  #read(properties: VimProperties): Machine | undefined {
    const { placeId, options } = this.#connection;
    return readMachine(properties, {
      placeId,
      folderPath: (parent) => this.#folderPath(parent),
      canDecrypt: options.vddk !== undefined && (options.readers?.includes("vddk") ?? true),
    });
  }

  /** Where machines are looked for: the datacenter of the options, or everything. */
  async scope(wait: Wait): Promise<MoRef> {
    const { client, options } = this.#connection;
    if (options.datacenter === undefined) return client.references.rootFolder;
    if (this.#container !== undefined) return this.#container;
    const index = client.references.searchIndex;
    const inventoryPath = options.datacenter.replace(/^\/+|\/+$/g, "");
    const [found] = index === undefined ? [] : await client.call("FindByInventoryPath", index, { inventoryPath }, wait);
    const object = found?.asReference;
    if (object?.type === "Datacenter") return (this.#container = object);
    const known: string[] = [];
    await this.#readFolders(wait);
    for await (const page of listObjects(
      client,
      client.references.rootFolder,
      { types: ["Datacenter"], paths: ["name", "parent"] },
      wait,
    )) {
      for (const each of page) known.push(this.#folderPath(each.object));
    }
    const list = known.length === 0 ? "none is visible to this user" : `there are ${known.join(", ")}`;
    throw vsphereError("NOT_FOUND", `no datacenter at ${client.http.host} is called '${inventoryPath}'; ${list}`);
  }

  /** Reads the names of all folders anew: few, and needed for the paths of many machines. */
  async #readFolders(wait: Wait): Promise<void> {
    const { client } = this.#connection;
    const wanted = { types: ["Folder", "Datacenter"], paths: ["name", "parent"] };
    for await (const page of listObjects(client, client.references.rootFolder, wanted, wait)) {
      for (const each of page) this.#keepFolder(each);
    }
  }

  /** Reads the folders that lead to one machine. */
  async #readAncestors(parent: MoRef | undefined, wait: Wait): Promise<void> {
    const { client } = this.#connection;
    const root = client.references.rootFolder.value;
    for (let at = parent, depth = 0; at !== undefined && at.value !== root && depth < mostFolders; depth++) {
      if (at.type !== "Folder" && at.type !== "Datacenter") return;
      try {
        const folder = await readObject(client, at, ["name", "parent"], wait);
        this.#keepFolder(folder);
        at = folder.reference("parent");
      } catch (error) {
        wait.signal?.throwIfAborted();
        // A role may show a machine and not its folders: its path is then shorter.
        const unseen =
          isProviderError(error) && (error.code === "NOT_FOUND" || faultOf(error)?.type === "NoPermission");
        if (!unseen) throw error;
        return;
      }
    }
  }

  #keepFolder(folder: VimProperties): void {
    this.#folders.set(folder.object.value, { name: folder.string("name") ?? "", parent: folder.reference("parent") });
  }

  #folderPath(folder: MoRef | undefined): string {
    const names: string[] = [];
    for (let at = folder, depth = 0; at !== undefined && depth < mostFolders; depth++) {
      const known = this.#folders.get(at.value);
      if (known === undefined || at.value === this.#connection.client.references.rootFolder.value) break;
      names.unshift(known.name);
      at = known.parent;
    }
    return names.join("/");
  }
}

const mostCandidates = 10;
const mostFolders = 64;

function namesMatch(stored: string, wanted: string): boolean {
  return stored === wanted || shownName(stored) === wanted;
}

function isTemplate(name: string): Error {
  return vsphereError(
    "UNSUPPORTED",
    `${name} is a template, which cannot be snapshotted; deploy a machine from it, or convert it to a machine`,
  );
}

/** The reference to a machine that this provider listed. */
export function referenceOf(machine: Machine): MoRef {
  const { moref } = (machine.data ?? {}) as Partial<MachineData>;
  if (moref === undefined) {
    throw vsphereError("CONFIG_INVALID", `the machine ${machine.id} does not come from this provider: it has no moref`);
  }
  return moRef("VirtualMachine", moref);
}
