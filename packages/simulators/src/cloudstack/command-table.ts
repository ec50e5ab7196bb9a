import { listed, type Call, type CommandDefinition } from "./command.ts";
import { accountCommands } from "./commands/account-commands.ts";
import { catalogCommands } from "./commands/catalog-commands.ts";
import { deployCommands } from "./commands/deploy-commands.ts";
import { importCommands } from "./commands/import-commands.ts";
import { jobCommands } from "./commands/job-commands.ts";
import { machineCommands } from "./commands/machine-commands.ts";
import { snapshotCommands } from "./commands/snapshot-commands.ts";
import { templateCommands } from "./commands/template-commands.ts";
import { tagCommands } from "./commands/tag-commands.ts";
import { transferCommands } from "./commands/transfer-commands.ts";
import { volumeCommands } from "./commands/volume-commands.ts";
import type { StorageEndpoint } from "./storage-endpoint.ts";
import type { Account } from "./entities.ts";
import { reaches, type ReleaseName } from "./releases.ts";

const pagedParameters = ["page", "pagesize", "keyword", "listall", "account", "domainid", "projectid"];

/** The commands of one release. */
export class CommandTable {
  readonly #commands: ReadonlyMap<string, CommandDefinition>;

  constructor(release: ReleaseName, storage: StorageEndpoint) {
    const all = [
      ...accountCommands,
      ...catalogCommands,
      ...deployCommands,
      ...importCommands,
      ...jobCommands,
      ...machineCommands,
      ...snapshotCommands,
      ...tagCommands,
      ...templateCommands,
      ...transferCommands(storage),
      ...volumeCommands,
      this.#listApis(),
    ].filter((each) => each.since === undefined || reaches(release, each.since));
    this.#commands = new Map(all.map((each) => [each.name, each]));
  }

  /** By its exact name; undefined where the release has no such command. */
  get(name: string): CommandDefinition | undefined {
    return this.#commands.get(name);
  }

  /** Whether the account's role has the command. */
  permits(command: CommandDefinition, account: Account): boolean {
    return (account.rootAdmin || command.rootAdmin !== true) && !account.denied.has(command.name);
  }

  #listApis(): CommandDefinition {
    const write = (each: CommandDefinition): object => {
      const names = [...each.parameters, ...(each.name.startsWith("list") ? pagedParameters : [])];
      return {
        name: each.name,
        description: each.description,
        ...(each.since === undefined ? {} : { since: each.since.split(".").slice(0, 3).join(".") }),
        isasync: "submit" in each,
        params: names.map((name) => ({ name, required: false })),
        response: [],
      };
    };
    return {
      name: "listApis",
      group: "user.discovery",
      description: "lists all available apis on the server, provided by the Api Discovery plugin",
      parameters: ["name"],
      answer: (call: Call) => {
        const name = call.parameters.text("name");
        const found = [...this.#commands.values()].filter(
          (each) => (name === undefined || each.name === name) && this.permits(each, call.caller),
        );
        return listed(call, "api", found, write);
      },
    };
  }
}
