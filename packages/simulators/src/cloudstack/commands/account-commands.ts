import { listed, type Call, type CommandDefinition } from "../command.ts";
import { resourceTypes, type Account, type LimitedResource, type Project } from "../entities.ts";

function listResourceLimits(call: Call): object {
  const { world, parameters, caller } = call;
  const owner = world.ownerFor(parameters, caller);
  const type = parameters.integer("resourcetype");
  const names = Object.keys(resourceTypes) as LimitedResource[];
  const found = names.filter((name) => type === undefined || resourceTypes[name] === type);
  return listed(call, "resourcelimit", found, (name) => ({
    ...(owner.kind === "account" ? { account: owner.name } : { projectid: owner.id, project: owner.name }),
    domainid: owner.domainId,
    domain: owner.domain,
    resourcetype: String(resourceTypes[name]),
    resourcetypename: name,
    max: owner.limits.get(name) ?? -1,
  }));
}

function writeAccount({ world }: Call, account: Account): object {
  const amounts = {
    volume: world.amountOf(account, "volume"),
    vm: world.amountOf(account, "machine"),
    snapshot: world.amountOf(account, "snapshot"),
    primarystorage: world.amountOf(account, "primaryStorage"),
  };
  const limits = {
    volume: account.limits.get("volume"),
    vm: account.limits.get("machine"),
    snapshot: account.limits.get("snapshot"),
    primarystorage: account.limits.get("primaryStorage"),
  };
  const fields: Record<string, string> = {};
  for (const [name, amount] of Object.entries(amounts)) {
    const limit = limits[name as keyof typeof limits];
    fields[`${name}total`] = String(Math.ceil(amount));
    fields[`${name}limit`] = limit === undefined ? "Unlimited" : String(limit);
    fields[`${name}available`] = limit === undefined ? "Unlimited" : String(Math.floor(limit - amount));
  }
  return {
    id: account.id,
    name: account.name,
    accounttype: account.rootAdmin ? 1 : 0,
    rolename: account.rootAdmin ? "Root Admin" : "User",
    roletype: account.rootAdmin ? "Admin" : "User",
    domainid: account.domainId,
    domain: account.domain,
    state: "enabled",
    ...fields,
  };
}

function listProjects(call: Call): object {
  const { world, caller, parameters } = call;
  const id = parameters.text("id");
  const name = parameters.text("name")?.toLowerCase();
  const found = [...world.projects.values()].filter(
    (each) =>
      world.mayUse(caller, each) &&
      (id === undefined || each.id === id) &&
      (name === undefined || each.name.toLowerCase() === name),
  );
  return listed(call, "project", found, (each: Project) => ({
    id: each.id,
    name: each.name,
    displaytext: each.name,
    domainid: each.domainId,
    domain: each.domain,
    state: "Active",
    tags: [],
  }));
}

function listUsers(call: Call): object {
  return listed(call, "user", [call.caller], (each) => ({
    id: each.userId,
    username: each.userName,
    account: each.name,
    accountid: each.id,
    domainid: each.domainId,
    domain: each.domain,
    state: "enabled",
    apikey: each.apiKey,
  }));
}

/** Accounts, projects and what they may have. */
export const accountCommands: readonly CommandDefinition[] = [
  {
    name: "listAccounts",
    group: "user.account",
    description: "Lists accounts and provides detailed account information for listed accounts",
    parameters: ["id", "name"],
    answer: (call) => listed(call, "account", [call.caller], (each) => writeAccount(call, each)),
  },
  { name: "listUsers", group: "admin.user", description: "Lists user accounts", parameters: ["id"], answer: listUsers },
  {
    name: "getUserKeys",
    group: "user.user",
    description: "This command allows the user to query the seceret and API keys for the account",
    parameters: ["id"],
    answer: ({ caller, parameters }) => {
      if (parameters.required("id") !== caller.userId) throw parameters.badValue("id", parameters.required("id"));
      return { userkeys: { apikey: caller.apiKey, secretkey: caller.secretKey } };
    },
  },
  {
    name: "listProjects",
    group: "user.project",
    description: "Lists projects and provides detailed information for listed projects",
    parameters: ["id", "name"],
    answer: listProjects,
  },
  {
    name: "listResourceLimits",
    group: "user.resource",
    description: "Lists resource limits.",
    parameters: ["resourcetype", "account", "domainid", "projectid"],
    answer: listResourceLimits,
  },
];
