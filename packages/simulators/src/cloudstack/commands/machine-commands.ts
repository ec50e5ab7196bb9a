import { listed, type Call, type CommandDefinition } from "../command.ts";
import { writeMachine } from "../responses.ts";
import { hasTags } from "./tag-commands.ts";

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

/** Machines and what is done with them. */
export const machineCommands: readonly CommandDefinition[] = [
  {
    name: "listVirtualMachines",
    group: "user.vm",
    description: "List the virtual machines owned by the account.",
    parameters: ["id", "ids", "name", "state", "zoneid", "tags"],
    answer: listVirtualMachines,
  },
];
