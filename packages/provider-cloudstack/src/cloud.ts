import { readFile } from "node:fs/promises";
import { type ProviderContext, type Wait } from "@diskferry/core/provider";
import { CloudstackClient, type Parameters } from "./client/cloudstack-client.ts";
import { type AnswerObject, objectIn, textIn } from "./client/decode.ts";
import {
  type CloudChoice,
  type CloudMachine,
  type CloudSnapshot,
  type CloudTemplate,
  type CloudVolume,
  choiceOf,
  machineOf,
  snapshotOf,
  templateOf,
  volumeOf,
} from "./client/entities.ts";
import type { Transport } from "./client/transport.ts";
import { unlessAborted } from "./client/unless-aborted.ts";
import type { DevicePlaces } from "./device/find-device.ts";
import { cloudstackError, isMissing } from "./errors.ts";
import type { CloudstackOptions } from "./options.ts";

/** States in which a volume or machine is as good as gone. */
const goneStates = new Set(["Destroy", "Destroyed", "Expunging", "Expunged"]);

/** One account's, or project's, view of a CloudStack: the lookups that everything here is made of. */
export class Cloud implements AsyncDisposable {
  readonly client: CloudstackClient;
  readonly options: CloudstackOptions;
  readonly #known = new Map<string, Promise<unknown>>();
  readonly #closing = new AbortController();

  constructor(client: CloudstackClient, options: CloudstackOptions) {
    this.client = client;
    this.options = options;
  }

  /** Opens the API; nothing is asked yet. @throws ProviderError CONFIG_INVALID */
  static async open(options: CloudstackOptions, context?: ProviderContext, transport?: Transport): Promise<Cloud> {
    context?.signal?.throwIfAborted();
    const { tls, timeouts = {} } = options;
    const fromEnvironment = options.apiKey === undefined && options.username === undefined;
    const keys = fromEnvironment
      ? { apiKey: process.env["CLOUDSTACK_KEY"], secretKey: process.env["CLOUDSTACK_SECRET"] }
      : { apiKey: options.apiKey, secretKey: options.secretKey };
    const client = new CloudstackClient({
      endpoint: options.endpoint,
      ...keys,
      username: options.username,
      password: options.password,
      domain: options.domain,
      tls: { pin: tls?.pin, ca: await authorityIn(tls, "tls") },
      connectMs: timeouts.connectMs,
      requestMs: timeouts.requestMs,
      pollMs: timeouts.pollMs,
      pollMostMs: timeouts.pollMostMs,
      jobMs: timeouts.jobMs,
      retryBudgetMs: options.retryBudgetMs,
      transport,
      notice: context?.notice?.bind(context),
    });
    return new Cloud(client, options);
  }

  notice(message: string): void {
    this.client.notice(message);
  }

  /** The scope that every command gets: the project, or the account that an administrator acts for, where there is one. */
  async scope(wait: Wait = {}): Promise<Parameters> {
    const { project, owner } = this.options;
    if (owner !== undefined) return { account: owner.account, domainid: owner.domainId };
    if (project === undefined) return {};
    const found = await this.once("project", wait, (own) => this.choice("listProjects", project, "project", {}, own));
    return { projectid: found.id };
  }

  async zoneId(wait: Wait = {}): Promise<string> {
    const { zone } = this.options;
    const found = await this.once("zone", wait, (own) => this.choice("listZones", zone, "zone", {}, own));
    return found.id;
  }

  /** What `listCapabilities` says: version, limits, switches. */
  capabilities(wait: Wait = {}): Promise<AnswerObject> {
    return this.once("capabilities", wait, async (own) =>
      objectIn((await this.client.call("listCapabilities", {}, own))["capability"]),
    );
  }

  /** Whether the server's version is at least this one; an unknown version counts as old. */
  async reaches(version: string, wait: Wait = {}): Promise<boolean> {
    const own = textIn((await this.capabilities(wait))["cloudstackversion"]) ?? "0";
    const [ownParts, parts] = [own, version].map((each) =>
      each.split(".").map((part) => Number.parseInt(part, 10) || 0),
    );
    for (const [index, wanted] of (parts ?? []).entries()) {
      const have = ownParts?.[index] ?? 0;
      if (have !== wanted) return have > wanted;
    }
    return true;
  }

  /** Names of the commands that the account's role has; in lower case. */
  commands(wait: Wait = {}): Promise<ReadonlySet<string>> {
    return this.once("commands", wait, async (own) => {
      const names = new Set<string>();
      for await (const api of this.client.list("listApis", {}, own))
        names.add((textIn(api["name"]) ?? "").toLowerCase());
      return names;
    });
  }

  /** The appliance. @throws ProviderError CONFIG_INVALID without one, NOT_FOUND */
  async appliance(wait: Wait = {}): Promise<CloudMachine> {
    const { appliance } = this.options;
    if (appliance === undefined) {
      throw cloudstackError(
        "CONFIG_INVALID",
        "Volumes are written and read by a machine that they are attached to: name it in appliance.machine (the virtual " +
          "machine this runs on, or one that runs `diskferry appliance`).",
      );
    }
    return this.once("appliance", wait, (own) => this.machineNamed(appliance.machine, own));
  }

  devicePlaces(): DevicePlaces {
    const { devices } = this.options.appliance ?? {};
    return {
      byId: devices?.byId ?? "/dev/disk/by-id",
      dev: devices?.dev ?? "/dev",
      sys: devices?.sys ?? "/sys",
      files: devices?.byId !== undefined,
      patienceMs: this.options.timeouts?.deviceMs ?? 60_000,
    };
  }

  /** Volumes that are there. */
  async *volumes(filter: Parameters, wait: Wait = {}): AsyncGenerator<CloudVolume> {
    for await (const item of this.client.list("listVolumes", { ...filter, ...(await this.scope(wait)) }, wait)) {
      const volume = volumeOf(item);
      if (!goneStates.has(volume.state)) yield volume;
    }
  }

  /** Volumes of whichever account or project, as far as this account may see them; things in projects are listed apart. */
  async *everybodysVolumes(filter: Parameters, wait: Wait = {}): AsyncGenerator<CloudVolume> {
    const seen = new Set<string>();
    for (const projectid of [undefined, "-1"]) {
      for await (const item of this.client.list("listVolumes", { ...filter, listall: true, projectid }, wait)) {
        const volume = volumeOf(item);
        if (goneStates.has(volume.state) || seen.has(volume.id)) continue;
        seen.add(volume.id);
        yield volume;
      }
    }
  }

  /** A volume by id; undefined: it is gone. */
  volume(id: string, wait: Wait = {}): Promise<CloudVolume | undefined> {
    return foundById(id, this.volumes({ id }, wait));
  }

  async *machines(filter: Parameters, wait: Wait = {}): AsyncGenerator<CloudMachine> {
    for await (const item of this.client.list(
      "listVirtualMachines",
      { ...filter, ...(await this.scope(wait)) },
      wait,
    )) {
      const machine = machineOf(item);
      if (!goneStates.has(machine.state)) yield machine;
    }
  }

  machine(id: string, wait: Wait = {}): Promise<CloudMachine | undefined> {
    return foundById(id, this.machines({ id }, wait));
  }

  /** A machine by id or name. @throws ProviderError NOT_FOUND, naming near names; UNSUPPORTED for a name that two have */
  async machineNamed(text: string, wait: Wait = {}): Promise<CloudMachine> {
    const own = isId(text) ? await this.machine(text, wait) : undefined;
    if (own !== undefined) return own;
    const found: CloudMachine[] = [];
    const near: string[] = [];
    for await (const machine of this.machines({ keyword: text }, wait)) {
      if ([machine.name, machine.displayName].includes(text)) found.push(machine);
      else if (near.length < 5) near.push(machine.name);
    }
    const [first] = found;
    if (first !== undefined && found.length === 1) return first;
    if (found.length > 1) {
      throw cloudstackError(
        "UNSUPPORTED",
        `${found.length} machines are called ${text}; name one by its id: ${found.map(({ id }) => id).join(", ")}.`,
      );
    }
    const hint = near.length === 0 ? "Check name, project and account." : `Did you mean ${near.join(", ")}?`;
    throw cloudstackError("NOT_FOUND", `There is no machine ${text}. ${hint}`);
  }

  async *snapshots(filter: Parameters, wait: Wait = {}): AsyncGenerator<CloudSnapshot> {
    for await (const item of this.client.list("listSnapshots", { ...filter, ...(await this.scope(wait)) }, wait)) {
      const snapshot = snapshotOf(item);
      if (!goneStates.has(snapshot.state)) yield snapshot;
    }
  }

  snapshot(id: string, wait: Wait = {}): Promise<CloudSnapshot | undefined> {
    return foundById(id, this.snapshots({ id }, wait));
  }

  /** Templates of this account or project: those that it made. */
  async *templates(filter: Parameters, wait: Wait = {}): AsyncGenerator<CloudTemplate> {
    const all = { templatefilter: "self", ...filter, ...(await this.scope(wait)) };
    for await (const item of this.client.list("listTemplates", all, wait)) yield templateOf(item);
  }

  /** Everything that a list command offers. */
  async *choices(command: string, filter: Parameters, wait: Wait = {}): AsyncGenerator<CloudChoice> {
    for await (const item of this.client.list(command, filter, wait)) yield choiceOf(item);
  }

  /**
   * What a list command offers under an id or name; without one the only thing there is.
   * @throws ProviderError CONFIG_INVALID naming what there is
   */
  async choice(
    command: string,
    text: string | undefined,
    what: string,
    filter: Parameters,
    wait: Wait = {},
  ): Promise<CloudChoice> {
    const all: CloudChoice[] = [];
    for await (const each of this.choices(command, filter, wait)) all.push(each);
    const found = text === undefined ? all : all.filter(({ id, name }) => id === text || name === text);
    const [first] = found;
    if (first !== undefined && found.length === 1) return first;
    const names = all.slice(0, 12).map(({ name }) => name);
    const list = names.length === 0 ? "none" : names.join(", ");
    const problem =
      text === undefined
        ? `Several are a possible ${what}; name one.`
        : found.length > 1
          ? `${found.length} are called ${text}; give the id.`
          : `There is no ${what} ${text}.`;
    throw cloudstackError("CONFIG_INVALID", `${problem} This account sees: ${list}.`, { operation: command });
  }

  /**
   * Asks once, for all who wait and not for the first alone: `ask` is given up when this is disposed. What failed is asked again
   * the next time.
   */
  async once<T>(name: string, { signal }: Wait, ask: (wait: Wait) => Promise<T>): Promise<T> {
    signal?.throwIfAborted();
    let asked = this.#known.get(name) as Promise<T> | undefined;
    if (asked === undefined) {
      asked = ask({ signal: this.#closing.signal });
      this.#known.set(name, asked);
      asked.catch(() => this.#known.delete(name));
    }
    return unlessAborted(asked, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(cloudstackError("UNAVAILABLE", "The connection was closed.", { retryable: false }));
    await this.client[Symbol.asyncDispose]();
  }
}

function isId(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}

/**
 * The item of an id. A number is taken for the database's own (`ParamProcessWorker.translateUuidToInternalId`), and so leads to
 * something of another id, which nobody asked for.
 */
async function foundById<T extends { id: string }>(id: string, items: AsyncGenerator<T>): Promise<T | undefined> {
  try {
    for await (const item of items) if (item.id.toLowerCase() === id.toLowerCase()) return item;
    return undefined;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** The authority that a TLS option names, in PEM. @throws ProviderError CONFIG_INVALID */
export async function authorityIn(
  tls: { caFile?: string | undefined } | undefined,
  option: string,
): Promise<string | undefined> {
  if (tls?.caFile === undefined) return undefined;
  try {
    return await readFile(tls.caFile, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw cloudstackError("CONFIG_INVALID", `${option}.caFile ${tls.caFile} cannot be read (${code}).`, {
      cause: error,
    });
  }
}
