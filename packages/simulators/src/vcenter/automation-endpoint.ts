import { controllerFamily } from "./disk-slot.ts";
import type { Exchange } from "./exchange.ts";
import type { SimulatorCore } from "./simulator-core.ts";
import type { VirtualDisk } from "./virtual-disk.ts";
import type { PowerState, VirtualMachine } from "./virtual-machine.ts";
import { VimFault } from "./vim-fault.ts";

/** Machines in one answer; more is an error, there are no pages (vSphere Automation API, `vcenter/vm` list). */
const listLimit = 4000;

const powerNames: Record<PowerState, string> = {
  poweredOn: "POWERED_ON",
  poweredOff: "POWERED_OFF",
  suspended: "SUSPENDED",
};

/** How a problem is answered: its HTTP status and `error_type`. */
class Problem extends Error {
  readonly status: number;
  readonly type: string;

  constructor(status: number, type: string, message: string) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

/** The vSphere Automation API for inventory: `/api` from 7.0 on, its predecessor `/rest` from 6.5 on. */
export async function serveAutomation(core: SimulatorCore, exchange: Exchange): Promise<void> {
  const legacy = exchange.url.pathname.startsWith("/rest/");
  const { release, kind } = core.service.parts;
  if (kind === "esxi" || !(legacy ? release.rest : release.api)) {
    exchange.send(404, {});
    return;
  }
  const path = legacy
    ? exchange.url.pathname.replace(/^\/rest\/com\/vmware\/cis\/session/, "/session").replace(/^\/rest/, "")
    : exchange.url.pathname.replace(/^\/api/, "");
  const verb = exchange.request.method ?? "GET";
  const pattern = path.replace(/^(\/vcenter\/vm\/)[^/]+/, "$1{vm}").replace(/(\/hardware\/disk\/)[^/]+/, "$1{disk}");
  const actions = await core.interfere(exchange, `${verb} ${legacy ? "/rest" : "/api"}${pattern}`);
  if (actions === "handled") return;
  try {
    const { status, value } = route(core, exchange, { verb, path, legacy });
    if (value === undefined) exchange.send(status, {});
    else exchange.json(status, legacy ? { value } : value);
  } catch (error) {
    const problem =
      error instanceof Problem
        ? error
        : new Problem(error instanceof VimFault ? 400 : 500, "NOT_ALLOWED_IN_CURRENT_STATE", String(error));
    const messages = [{ id: "simulator.error", default_message: problem.message, args: [] }];
    const value = { messages };
    if (legacy)
      exchange.json(problem.status, { type: `com.vmware.vapi.std.errors.${problem.type.toLowerCase()}`, value });
    else exchange.json(problem.status, { error_type: problem.type, messages });
  }
}

interface Routed {
  readonly verb: string;
  readonly path: string;
  readonly legacy: boolean;
}

function route(core: SimulatorCore, exchange: Exchange, routed: Routed): { status: number; value?: unknown } {
  const { parts } = core.service;
  const { verb, path, legacy } = routed;
  if (path === "/session" && verb === "POST") {
    const { basic } = exchange;
    const session =
      basic?.user === parts.userName && basic.password === parts.password
        ? parts.sessions.open(
            basic.user,
            exchange.request.socket.remoteAddress ?? "",
            exchange.header("user-agent") ?? "",
          )
        : undefined;
    if (session === undefined) throw new Problem(401, "UNAUTHENTICATED", "Authentication required.");
    return { status: legacy ? 200 : 201, value: session.key };
  }
  const session = parts.sessions.use(exchange.header("vmware-api-session-id") ?? "");
  if (session === undefined) throw new Problem(401, "UNAUTHENTICATED", "Authentication required.");
  if (path === "/session" && verb === "DELETE") {
    parts.sessions.close(session.key);
    return { status: legacy ? 200 : 204 };
  }
  if (path === "/session") {
    return {
      status: 200,
      value: { user: session.userName, created_time: session.loginTime, last_accessed_time: session.lastActive },
    };
  }
  if (path === "/vcenter/vm" && verb === "GET") return { status: 200, value: listed(core, exchange.url.searchParams) };
  if (path === "/vcenter/datacenter") {
    return {
      status: 200,
      value: parts.inventory.sites.map(({ datacenter: { id, name } }) => ({ datacenter: id, name })),
    };
  }
  if (path === "/vcenter/datastore") {
    const { freeSpace } = parts.inventory.options;
    return {
      status: 200,
      value: parts.inventory.sites
        .flatMap(({ datastores }) => datastores)
        .map(({ id, name, store: { type } }) => ({
          datastore: id,
          name,
          type: type === "vsan" ? "VSAN" : type,
          free_space: freeSpace,
          capacity: 2 ** 43,
        })),
    };
  }
  const [, id = "", rest = ""] = /^\/vcenter\/vm\/([^/]+)(\/.*)?$/.exec(path) ?? [];
  const machine = parts.inventory.machines.get(decodeURIComponent(id));
  if (machine === undefined) throw new Problem(404, "NOT_FOUND", `The object '${path}' was not found.`);
  return ofMachine(core, exchange, { machine, rest, routed });
}

function ofMachine(
  core: SimulatorCore,
  exchange: Exchange,
  asked: { machine: VirtualMachine; rest: string; routed: Routed },
): { status: number; value?: unknown } {
  const { machine, rest, routed } = asked;
  const done = { status: routed.legacy ? 200 : 204 };
  const changed = (): { status: number } => {
    core.service.parts.changed();
    return done;
  };
  const key = /^\/hardware\/disk\/(\d+)$/.exec(rest)?.[1];
  const disk = machine.disks.get(Number(key));
  if (disk !== undefined) return { status: 200, value: diskDetail(disk, [...machine.disks.values()].indexOf(disk)) };
  const action = exchange.url.searchParams.get("action") ?? rest.replace(/^.*power\//, "");
  if (rest === "") return { status: 200, value: detail(machine, routed.legacy) };
  if (rest === "/hardware/disk")
    return { status: 200, value: [...machine.disks.keys()].map((each) => ({ disk: String(each) })) };
  if (rest === "/power" && routed.verb === "GET") return { status: 200, value: { state: powerNames[machine.power] } };
  if (rest === "/guest/power" && routed.verb === "GET") {
    return { status: 200, value: { state: machine.power === "poweredOn" ? "RUNNING" : "NOT_RUNNING" } };
  }
  if (rest.startsWith("/guest/power") && action === "shutdown") {
    machine.demandTools();
    if (!machine.obeysShutdown) return done;
    setTimeout(() => {
      machine.shutDown();
      core.service.parts.changed();
    }, core.service.parts.shutdownMs).unref();
    return done;
  }
  if (rest.startsWith("/power") && routed.verb === "POST") {
    if (action === "start") machine.powerOn();
    else if (action === "stop") machine.powerOff();
    else if (action === "suspend") machine.suspend();
    else throw new Problem(400, "INVALID_ARGUMENT", `no action '${action}'`);
    return changed();
  }
  throw new Problem(404, "NOT_FOUND", `The object '${routed.path}' was not found.`);
}

function listed(core: SimulatorCore, query: URLSearchParams): unknown[] {
  const many = (name: string): string[] => [
    ...query.getAll(name),
    ...[...query].filter(([key]) => key.startsWith(`filter.${name}`)).map(([, value]) => value),
  ];
  const names = many("names");
  const ids = many("vms");
  const states = many("power_states");
  const { inventory } = core.service.parts;
  const found = [...inventory.machines.values()].filter(
    (machine) =>
      !machine.template &&
      (names.length === 0 || names.includes(machine.name)) &&
      (ids.length === 0 || ids.includes(machine.id)) &&
      (states.length === 0 || states.includes(powerNames[machine.power])),
  );
  if (found.length > listLimit) {
    throw new Problem(500, "UNABLE_TO_ALLOCATE_RESOURCE", `Too many virtual machines. Add more filter criteria.`);
  }
  return found.map((machine) => ({
    vm: machine.id,
    name: machine.name,
    power_state: powerNames[machine.power],
    cpu_count: machine.spec.cpus ?? 2,
    memory_size_MiB: machine.spec.memoryMiB ?? 2048,
  }));
}

function detail(machine: VirtualMachine, legacy: boolean): unknown {
  const map = (entries: [string, unknown][]): unknown =>
    legacy ? entries.map(([key, value]) => ({ key, value })) : Object.fromEntries(entries);
  const cpus = machine.spec.cpus ?? 2;
  return {
    name: machine.name,
    identity: { name: machine.name, bios_uuid: machine.biosUuid, instance_uuid: machine.instanceUuid },
    guest_OS: "DEBIAN_12_64",
    power_state: powerNames[machine.power],
    hardware: { version: `VMX_${String(machine.hardware).padStart(2, "0")}`, upgrade_policy: "NEVER" },
    boot: { type: machine.spec.firmware === "efi" ? "EFI" : "BIOS", delay: 0, retry: false, enter_setup_mode: false },
    cpu: { count: cpus, cores_per_socket: 1, hot_add_enabled: false, hot_remove_enabled: false },
    memory: { size_MiB: machine.spec.memoryMiB ?? 2048, hot_add_enabled: false },
    disks: map([...machine.disks.values()].map((disk, index) => [String(disk.key), diskDetail(disk, index)])),
    nics: map(
      (machine.spec.nics ?? []).map((nic, index) => [
        String(4000 + index),
        {
          label: `Network adapter ${index + 1}`,
          type: "VMXNET3",
          mac_address: nic.mac,
          mac_type: "ASSIGNED",
          state: "CONNECTED",
          backing: { type: "STANDARD_PORTGROUP", network: "network-11", network_name: nic.network ?? "VM Network" },
        },
      ]),
    ),
  };
}

function diskDetail(disk: VirtualDisk, index: number): unknown {
  const family = controllerFamily(disk.controller);
  const { bus } = disk.controller;
  const ide = { primary: bus === 0, master: disk.unitNumber === 0 };
  return {
    label: `Hard disk ${index + 1}`,
    type: family.toUpperCase(),
    [family]: family === "ide" ? ide : { bus, unit: disk.unitNumber },
    backing: { type: "VMDK_FILE", vmdk_file: disk.current.fileName },
    capacity: disk.capacity,
  };
}
