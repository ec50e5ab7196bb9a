import { randomUUID } from "node:crypto";
import { ApiError, errorCodes, invalid } from "../api-error.ts";
import { listed, type Call, type CommandDefinition, type Submission } from "../command.ts";
import type { Machine, Network, ServiceOffering } from "../entities.ts";
import { makeNic } from "../inventory.ts";
import { writeMachine } from "../responses.ts";
import { hasTags } from "./tag-commands.ts";
import { expunge, release } from "../volume-life.ts";

function listVirtualMachines(call: Call): object {
  const { world, parameters, caller } = call;
  const scope = world.scopeOf(parameters, caller);
  const matches = (name: string, value: string | undefined): boolean =>
    parameters.text(name) === undefined || parameters.text(name)?.toLowerCase() === value?.toLowerCase();
  const ids = parameters.list("ids");
  const keyword = parameters.text("keyword")?.toLowerCase();
  const found = [...world.machines.values()].filter(
    (each) =>
      scope(each.owner) &&
      // A tenant sees no machine that it destroyed (allow.user.view.destroyed.vm).
      (caller.rootAdmin || each.state !== "Destroyed") &&
      matches("id", each.id) &&
      (ids.length === 0 || ids.includes(each.id)) &&
      matches("name", each.name) &&
      (keyword === undefined || `${each.name} ${each.displayName}`.toLowerCase().includes(keyword)) &&
      matches("state", each.state) &&
      matches("zoneid", each.zoneId) &&
      hasTags(parameters, each.tags),
  );
  return listed(call, "virtualmachine", found, (each) => writeMachine(call, each));
}

/** What a service offering and a client's details make of processors and memory. */
export function sizeOf(
  offering: ServiceOffering,
  details: ReadonlyMap<string, string>,
): { cpuNumber: number; cpuSpeed: number; memory: number } {
  const { cpuNumber, cpuSpeed, memory } = offering;
  if (cpuNumber !== undefined && cpuSpeed !== undefined && memory !== undefined) return { cpuNumber, cpuSpeed, memory };
  const [cpus, speed, megabytes] = ["cpuNumber", "cpuSpeed", "memory"].map((name) => Number(details.get(name)));
  if (!(cpus && speed && megabytes))
    throw invalid("Need to specify custom parameter values cpu, cpu speed and memory when using custom offering");
  return { cpuNumber: cpus, cpuSpeed: speed, memory: megabytes };
}

interface WantedNic {
  readonly network: Network;
  readonly ipAddress: string | undefined;
  readonly macAddress: string | undefined;
}

function wantedNics(call: Call): WantedNic[] {
  const { world, parameters, caller } = call;
  const listOf = parameters.entries("iptonetworklist");
  if (listOf.length > 0 && parameters.list("networkids").length > 0)
    throw invalid("ipToNetworkMap can't be specified along with networkIds or ipAddress");
  const find = (id: string | undefined): Network => {
    const network = world.networks.get(id ?? "");
    if (network === undefined) throw invalid(`Unable to find network by id ${id ?? ""}`);
    if (network.owner !== undefined && !world.mayUse(caller, network.owner))
      throw new ApiError(errorCodes.account, `Unable to use network with id= ${network.id}, permission denied`);
    return network;
  };
  const wanted =
    listOf.length > 0
      ? listOf.map((each) => ({
          network: find(each.get("networkid")),
          ipAddress: each.get("ip"),
          macAddress: each.get("mac"),
        }))
      : parameters.list("networkids").map((id, index) => ({
          network: find(id),
          ipAddress: index === 0 ? parameters.text("ipaddress") : undefined,
          macAddress: index === 0 ? parameters.text("macaddress") : undefined,
        }));
  const seen = new Set<string>();
  for (const { network, ipAddress, macAddress } of wanted) {
    if (macAddress !== undefined && !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(macAddress))
      throw invalid(`Mac address is not valid: ${macAddress}`);
    if (seen.has(network.id)) throw invalid(`Can't deploy Vm with several cards in network ${network.id}`);
    seen.add(network.id);
    checkAddresses(call, network, ipAddress, macAddress);
  }
  return wanted;
}

/** @throws ApiError 431 for addresses that the network does not have or that are taken */
function checkAddresses(
  { world }: Call,
  network: Network,
  ipAddress: string | undefined,
  macAddress: string | undefined,
): void {
  if (ipAddress !== undefined && !ipAddress.startsWith(`${network.prefix}.`))
    throw invalid(`The IP ${ipAddress} is not in the CIDR ${network.prefix}.0/24 of network ${network.id}`);
  for (const machine of world.machines.values()) {
    for (const nic of machine.nics) {
      if (nic.network !== network) continue;
      if (nic.ipAddress === ipAddress)
        throw new ApiError(errorCodes.insufficientCapacity, `Unable to acquire Guest IP address ${ipAddress}`);
      if (nic.macAddress.toLowerCase() === macAddress?.toLowerCase())
        throw invalid(`Mac address ${macAddress} is already used in network ${network.id}`);
    }
  }
}

async function start(machine: Machine, call: Call): Promise<void> {
  if (machine.state === "Running") throw invalid(`The virtual machine ${machine.name} is already running`);
  if (machine.state !== "Stopped") throw invalid(`Unable to start a VM in state ${machine.state}`);
  if (call.world.rootOf(machine) === undefined)
    throw new ApiError(errorCodes.internal, `Unable to start VM instance ${machine.name}: it has no root volume`);
  machine.state = "Running";
  for (const volume of call.world.volumesOf(machine))
    if (volume.disk !== undefined) machine.guest?.plug(volume.id, volume.disk);
  await machine.guest?.appear();
}

/** Ends a running machine; who had its devices open inside reaches the bytes no more. */
async function stop(machine: Machine, call: Call): Promise<void> {
  for (const volume of call.world.volumesOf(machine)) await machine.guest?.unplug(volume.id);
  machine.state = "Stopped";
}

function submissionFor(call: Call, machine: Machine, work: () => Promise<void>): Submission {
  return {
    instanceType: "VirtualMachine",
    instanceId: machine.id,
    queue: machine.id,
    work: async () => {
      await work();
      return { virtualmachine: writeMachine(call, machine) };
    },
  };
}

function startVirtualMachine(call: Call): Submission {
  const machine = call.world.find(call.world.machines, call.parameters, "id", call.caller);
  return submissionFor(call, machine, () => start(machine, call));
}

function stopVirtualMachine(call: Call): Submission {
  const machine = call.world.find(call.world.machines, call.parameters, "id", call.caller);
  return submissionFor(call, machine, async () => {
    if (machine.state !== "Running" && machine.state !== "Stopped")
      throw new ApiError(errorCodes.internal, `Unable to stop a VM in state ${machine.state}`);
    await stop(machine, call);
  });
}

/** Removes a machine for good, its root volume with it. */
export async function expungeMachine(call: Pick<Call, "world">, machine: Machine): Promise<void> {
  const { world } = call;
  machine.state = "Expunging";
  for (const volume of world.volumesOf(machine)) {
    const wasRoot = volume.type === "ROOT";
    await release(volume);
    if (wasRoot) await expunge(world, volume);
  }
  for (const snapshot of world.machineSnapshots.values())
    if (snapshot.machine === machine) world.machineSnapshots.delete(snapshot.id);
  await machine.guest?.close();
  world.machines.delete(machine.id);
}

function mayExpunge(call: Call): boolean {
  return call.caller.rootAdmin || call.world.settings.allowUserExpunge;
}

function destroyVirtualMachine(call: Call): Submission {
  const { world, parameters, caller } = call;
  const machine = world.find(world.machines, parameters, "id", caller);
  const also = parameters.list("volumeids");
  const forGood = parameters.flag("expunge") === true;
  return submissionFor(call, machine, async () => {
    if (forGood && !mayExpunge(call))
      throw new ApiError(errorCodes.internal, "Account does not have permission for expunging.", 4365);
    if (machine.state === "Destroyed" && !forGood) return;
    if (machine.deleteProtection)
      throw invalid(
        `Instance [id = ${machine.id}, name = ${machine.name}] has delete protection enabled and cannot be deleted.`,
      );
    const data = world.volumesOf(machine).filter((each) => each.type === "DATADISK");
    const doomed = also.map((id) => {
      const volume = data.find((each) => each.id === id);
      if (volume === undefined) throw invalid(`Unable to delete volume ${id}: it is no data volume of the VM`);
      return volume;
    });
    if (machine.state === "Running") await stop(machine, call);
    for (const volume of data) await release(volume);
    machine.state = "Destroyed";
    if (forGood) await expungeMachine(call, machine);
    for (const volume of doomed) await expunge(world, volume);
  });
}

function expungeVirtualMachine(call: Call): Submission {
  const machine = call.world.find(call.world.machines, call.parameters, "id", call.caller);
  return {
    instanceType: "VirtualMachine",
    instanceId: machine.id,
    queue: machine.id,
    work: async () => {
      if (!mayExpunge(call))
        throw new ApiError(
          errorCodes.internal,
          "Expunging a vm can only be done by an Admin. Or when the allow.user.expunge.recover.vm key is set.",
        );
      if (machine.state !== "Destroyed") throw invalid("Please destroy vm with specified vmId before expunge");
      await expungeMachine(call, machine);
      return { success: true };
    },
  };
}

function updateVirtualMachine(call: Call): object {
  const { world, parameters, caller } = call;
  const machine = world.find(world.machines, parameters, "id", caller);
  const osTypeId = parameters.text("ostypeid");
  if (osTypeId !== undefined && !world.osTypes.has(osTypeId)) throw parameters.badValue("ostypeid", osTypeId);
  const details = parameters.details("details");
  if (parameters.flag("cleanupdetails") === true) machine.details.clear();
  // The server keeps exactly the details that are sent: one that is left out, UEFI too, is gone.
  else if (details.size > 0) {
    machine.details.clear();
    for (const [name, value] of details) machine.details.set(name, value);
  }
  machine.osTypeId = osTypeId ?? machine.osTypeId;
  machine.displayName = parameters.text("displayname") ?? machine.displayName;
  machine.name = parameters.text("name") ?? machine.name;
  machine.deleteProtection = parameters.flag("deleteprotection") ?? machine.deleteProtection;
  return { virtualmachine: writeMachine(call, machine) };
}

function addNicToVirtualMachine(call: Call): Submission {
  const { world, parameters, caller } = call;
  const machine = world.find(world.machines, parameters, "virtualmachineid", caller);
  const network = world.networks.get(parameters.required("networkid"));
  if (network === undefined || (network.owner !== undefined && !world.mayUse(caller, network.owner)))
    throw parameters.badValue("networkid", parameters.required("networkid"));
  const [ipAddress, macAddress] = [parameters.text("ipaddress"), parameters.text("macaddress")];
  checkAddresses(call, network, ipAddress, macAddress);
  return submissionFor(call, machine, async () => {
    if (machine.nics.some((nic) => nic.network === network))
      throw new ApiError(errorCodes.internal, `A NIC already exists for VM:${machine.name} in network: ${network.id}`);
    machine.nics.push(makeNic(world, network, machine.nics.length, { ipAddress, macAddress }));
  });
}

/** The cards of a machine that is deployed; without any wish one in the owner's first network. */
export function nicsFor(call: Call): (machine: Machine) => void {
  const wanted = wantedNics(call);
  return (machine) => {
    const { world } = call;
    const first = [...world.networks.values()].find((each) => each.owner === machine.owner);
    const all =
      wanted.length > 0 || first === undefined
        ? wanted
        : [{ network: first, ipAddress: undefined, macAddress: call.parameters.text("macaddress") }];
    for (const [index, { network, ...addresses }] of all.entries())
      machine.nics.push(makeNic(world, network, index, addresses));
  };
}

/** Starts what was just deployed. */
export const startDeployed: (machine: Machine, call: Call) => Promise<void> = start;

/** An id for what a root administrator may name itself. */
export function chosenId(call: Call): string {
  const wanted = call.parameters.text("customid");
  if (wanted !== undefined && !call.caller.rootAdmin)
    throw new ApiError(errorCodes.account, "Only Root admin can assign customid");
  return wanted ?? randomUUID();
}

/** Machines and what is done with them. */
export const machineCommands: readonly CommandDefinition[] = [
  {
    name: "listVirtualMachines",
    group: "user.vm",
    description: "List the virtual machines owned by the account.",
    parameters: ["id", "ids", "name", "state", "zoneid", "tags"],
    answer: listVirtualMachines,
  },
  {
    name: "startVirtualMachine",
    group: "user.vm",
    description: "Starts a virtual machine.",
    parameters: ["id", "bootintosetup", "hostid"],
    submit: startVirtualMachine,
  },
  {
    name: "stopVirtualMachine",
    group: "user.vm",
    description: "Stops a virtual machine.",
    parameters: ["id", "forced"],
    submit: stopVirtualMachine,
  },
  {
    name: "destroyVirtualMachine",
    group: "user.vm",
    description: "Destroys a virtual machine. Once destroyed, only the administrator can recover it.",
    parameters: ["id", "expunge", "volumeids"],
    submit: destroyVirtualMachine,
  },
  {
    name: "expungeVirtualMachine",
    group: "admin.vm",
    description: "Expunge a virtual machine. Once expunged, it cannot be recoverd.",
    parameters: ["id"],
    submit: expungeVirtualMachine,
  },
  {
    name: "updateVirtualMachine",
    group: "user.vm",
    description: "Updates properties of a virtual machine.",
    parameters: ["id", "name", "displayname", "ostypeid", "details", "cleanupdetails", "deleteprotection"],
    answer: updateVirtualMachine,
  },
  {
    name: "addNicToVirtualMachine",
    group: "user.vm",
    description: "Adds VM to specified network by creating a NIC",
    parameters: ["virtualmachineid", "networkid", "ipaddress", "macaddress"],
    submit: addNicToVirtualMachine,
  },
];
