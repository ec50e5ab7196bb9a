import { randomUUID } from "node:crypto";
import { jsonAnswer, type Answer } from "./answer.ts";
import { AwsError } from "./aws-error.ts";
import type { Ec2Scope } from "./ec2-scope.ts";
import { takeSnapshot } from "./ec2-snapshots.ts";
import type { Guest, GuestCommand, GuestOutcome } from "./guest-commands.ts";
import type { Instance, Tags } from "./resources.ts";
import type { Caller } from "./signature.ts";

const type = "application/x-amz-json-1.1";

/** Documents and what they run on and take (AWS Systems Manager; EC2 user guide, VSS snapshots). */
const documents: Readonly<Record<string, { platform?: "windows" | "linux"; parameters: string[]; plugin: string }>> = {
  "AWS-RunShellScript": {
    platform: "linux",
    parameters: ["commands", "workingDirectory", "executionTimeout"],
    plugin: "aws:runShellScript",
  },
  "AWS-RunPowerShellScript": {
    parameters: ["commands", "workingDirectory", "executionTimeout"],
    plugin: "aws:runPowerShellScript",
  },
  "AWSEC2-CreateVssSnapshot": {
    platform: "windows",
    parameters: [
      "ExcludeBootVolume",
      "NoWriters",
      "CopyOnly",
      "CreateAmi",
      "AmiName",
      "description",
      "tags",
      "executionTimeout",
      "CollectDiagnosticLogs",
      "SaveVssMetadata",
      "VssVersion",
    ],
    plugin: "runPowerShellScript",
  },
};

/** Tags that the VSS document sets itself and refuses from the caller (EC2 user guide, VSS snapshots). */
const vssTags = ["Device", "AppConsistent", "AwsVssConfig"];

interface Invocation {
  command: GuestCommand;
  accountId: string;
  region: string;
  sentAt: number;
  comment: string;
  status: GuestOutcome["status"] | "Pending" | "InProgress" | "Cancelling";
  outcome?: GuestOutcome;
}

/** An error as SSM writes it. */
export function ssmErrorAnswer(error: AwsError): Answer {
  const body = { __type: error.code, Message: error.message, message: error.message };
  const answer = jsonAnswer(error.status, body, type);
  return { ...answer, headers: { ...answer.headers, "x-amzn-errortype": error.code } };
}

const refuse = (code: string, message: string): AwsError => new AwsError(400, code, message);

/** The operations of Systems Manager that run something in a guest. */
export class SsmEndpoint {
  readonly #scope: Ec2Scope;
  readonly #guest: () => Guest;
  readonly #invocations = new Map<string, Invocation>();

  constructor(scope: Ec2Scope, guest: () => Guest) {
    this.#scope = scope;
    this.#guest = guest;
  }

  /** The commands sent so far, in their order. */
  commands(): GuestCommand[] {
    return [...this.#invocations.values()].map(({ command }) => command);
  }

  /** Answers one operation. @throws AwsError */
  async answer(operation: string, body: Buffer, caller: Caller): Promise<Answer> {
    const { world } = this.#scope;
    world.authorize(caller.accountId, `ssm:${operation}`, "*");
    world.settle();
    const input = JSON.parse(body.toString() || "{}") as Record<string, unknown>;
    switch (operation) {
      case "SendCommand":
        return jsonAnswer(200, await this.#send(input, caller), type);
      case "GetCommandInvocation":
        return jsonAnswer(200, this.#get(input, caller), type);
      case "CancelCommand":
        return jsonAnswer(200, this.#cancel(input, caller), type);
      case "DescribeInstanceInformation":
        return jsonAnswer(200, this.#describe(input, caller), type);
      default:
        throw refuse("UnknownOperationException", `The operation ${operation} is not modelled.`);
    }
  }

  async #send(input: Record<string, unknown>, caller: Caller): Promise<unknown> {
    const { world } = this.#scope;
    const name = textOf(input, "DocumentName");
    const document = Object.hasOwn(documents, name) ? documents[name] : undefined;
    if (document === undefined) throw refuse("InvalidDocument", `document with name ${name} does not exist.`);
    const ids = input["InstanceIds"];
    if (!Array.isArray(ids) || ids.length === 0) throw refuse("InvalidInstanceId", "InstanceIds are needed.");
    const instances = (ids as string[]).map((id) => this.#managed(id, caller));
    for (const { platform } of instances)
      if (document.platform !== undefined && document.platform !== (platform ?? "linux"))
        throw refuse("UnsupportedPlatformType", `${name} does not run on ${platform ?? "linux"}.`);
    const parameters = (input["Parameters"] ?? {}) as Record<string, string[]>;
    for (const [key, value] of Object.entries(parameters)) {
      if (!document.parameters.includes(key) || !Array.isArray(value))
        throw refuse("InvalidParameters", `Parameter ${key} is not defined in the document ${name}.`);
    }
    const timeout = input["TimeoutSeconds"] ?? 3600;
    if (typeof timeout !== "number" || timeout < 30 || timeout > 2_592_000)
      throw refuse("ValidationException", "TimeoutSeconds has to be from 30 to 2592000.");
    const id = randomUUID();
    for (const instance of instances) {
      const command = { id, instanceId: instance.id, document: name, parameters };
      const invocation: Invocation = {
        command,
        accountId: caller.accountId,
        region: caller.region,
        sentAt: world.now(),
        comment: textOf(input, "Comment"),
        status: "Pending",
      };
      this.#invocations.set(`${id} ${instance.id}`, invocation);
      world.later(world.delays.changeMs / 2, () => {
        if (invocation.status === "Pending") invocation.status = "InProgress";
      });
      // The command acts before SendCommand answers; only its end is seen later.
      const outcome = await this.#run(instance, command, invocation);
      world.later(world.delays.changeMs, () => {
        if (invocation.status === "Cancelling") invocation.status = "Cancelled";
        else if (invocation.status !== "Cancelled") invocation.status = outcome.status;
        invocation.outcome = outcome;
      });
    }
    return {
      Command: {
        CommandId: id,
        DocumentName: name,
        Comment: input["Comment"],
        InstanceIds: ids as string[],
        Parameters: parameters,
        RequestedDateTime: world.now() / 1000,
        Status: "Pending",
        StatusDetails: "Pending",
        TargetCount: instances.length,
        TimeoutSeconds: timeout,
      },
    };
  }

  async #run(instance: Instance, command: GuestCommand, { accountId, region }: Invocation): Promise<GuestOutcome> {
    const outcome = await this.#guest()(command);
    if (command.document !== "AWSEC2-CreateVssSnapshot" || outcome.status !== "Success") return outcome;
    const { parameters } = command;
    const tags = tagsIn(parameters["tags"]?.[0] ?? "");
    const reserved = Object.keys(tags).find((key) => vssTags.includes(key));
    if (reserved !== undefined)
      return { status: "Failed", responseCode: 1, errors: `The tag key ${reserved} is reserved and cannot be used.` };
    const withoutRoot = /^true$/i.test(parameters["ExcludeBootVolume"]?.[0] ?? "");
    const consistent = outcome.applicationConsistent ?? true;
    const made = this.#scope.attached(instance.id).flatMap((volume) => {
      const device = volume.attachment?.device ?? "";
      if (withoutRoot && device === instance.rootDevice) return [];
      const own = { ...tags, Device: device, AppConsistent: consistent ? "True" : "False" };
      return [takeSnapshot(this.#scope, volume, parameters["description"]?.[0] ?? "", own)];
    });
    const lines = made.map(
      ({ id, accountId: owner, region: place }) => `${id} ${owner === accountId && place === region}`,
    );
    return { ...outcome, output: outcome.output ?? `Snapshots created: ${lines.join(", ")}` };
  }

  #managed(id: string, caller: Caller): Instance {
    const instance = this.#scope.world.instances.get(id);
    const mine = instance?.accountId === caller.accountId && instance.region === caller.region;
    if (instance !== undefined && mine && instance.managed && instance.state === "running") return instance;
    throw refuse("InvalidInstanceId", `Instances [[${id}]] not in a valid state for account ${caller.accountId}`);
  }

  #find(input: Record<string, unknown>, caller: Caller): Invocation {
    const { world } = this.#scope;
    const found = this.#invocations.get(`${textOf(input, "CommandId")} ${textOf(input, "InstanceId")}`);
    const known = found !== undefined && world.now() >= found.sentAt + world.delays.describableMs;
    if (known && found.accountId === caller.accountId && found.region === caller.region) return found;
    throw refuse(
      "InvocationDoesNotExist",
      "The command ID and instance ID you specified did not match any invocations.",
    );
  }

  #get(input: Record<string, unknown>, caller: Caller): unknown {
    const { command, status, outcome, comment } = this.#find(input, caller);
    const ended = status !== "Pending" && status !== "InProgress";
    return {
      CommandId: command.id,
      InstanceId: command.instanceId,
      Comment: comment,
      DocumentName: command.document,
      PluginName: documents[command.document]?.plugin,
      Status: status,
      StatusDetails: status === "TimedOut" ? "ExecutionTimedOut" : status,
      ResponseCode: ended ? (outcome?.responseCode ?? (status === "Success" ? 0 : 1)) : -1,
      StandardOutputContent: ended ? (outcome?.output ?? "") : "",
      StandardErrorContent: ended ? (outcome?.errors ?? "") : "",
    };
  }

  #cancel(input: Record<string, unknown>, caller: Caller): unknown {
    const id = textOf(input, "CommandId");
    const all = [...this.#invocations.values()].filter(
      ({ command, accountId }) => command.id === id && accountId === caller.accountId,
    );
    if (all.length === 0) throw refuse("InvalidCommandId", `There is no command ${id}.`);
    for (const each of all) if (each.status === "Pending" || each.status === "InProgress") each.status = "Cancelling";
    return {};
  }

  #describe(input: Record<string, unknown>, caller: Caller): unknown {
    const { world } = this.#scope;
    let all = this.#scope
      .mine(world.instances, caller)
      .filter(({ managed, state }) => managed && state !== "terminated");
    for (const { Key, Values = [] } of (input["Filters"] ?? []) as { Key?: string; Values?: string[] }[]) {
      if (Key !== "InstanceIds" && Key !== "PingStatus" && Key !== "PlatformTypes")
        throw refuse("InvalidFilterKey", `The filter ${Key} is not valid.`);
      const value = (each: Instance): string =>
        Key === "InstanceIds" ? each.id : Key === "PingStatus" ? pingOf(each) : platformOf(each);
      all = all.filter((each) => Values.includes(value(each)));
    }
    const most = input["MaxResults"] ?? 10;
    if (typeof most !== "number" || most < 5 || most > 50)
      throw refuse("ValidationException", "MaxResults has to be from 5 to 50.");
    const from = Number(input["NextToken"] ?? 0);
    if (!Number.isInteger(from)) throw refuse("InvalidNextToken", "The token is not valid.");
    const InstanceInformationList = all.slice(from, from + most).map((each) => ({
      InstanceId: each.id,
      PingStatus: pingOf(each),
      AgentVersion: "3.3.1345.0",
      PlatformType: platformOf(each),
      PlatformName: each.platform === "windows" ? "Microsoft Windows Server 2022 Datacenter" : "Amazon Linux",
      PlatformVersion: each.platform === "windows" ? "10.0.20348" : "2023",
      ResourceType: "EC2Instance",
      IPAddress: each.privateIp,
      ComputerName: each.tags["Name"],
    }));
    return { InstanceInformationList, ...(from + most < all.length ? { NextToken: String(from + most) } : {}) };
  }
}

function textOf(input: Record<string, unknown>, name: string): string {
  const value = input[name];
  return typeof value === "string" ? value : "";
}

const pingOf = ({ state }: Instance): string => (state === "running" ? "Online" : "ConnectionLost");
const platformOf = ({ platform }: Instance): string => (platform === "windows" ? "Windows" : "Linux");

/** `Key=a,Value=b;Key=c,Value=d`, as the VSS document takes its tags. */
function tagsIn(text: string): Tags {
  const tags: Tags = {};
  for (const part of text.split(";").filter((each) => each !== "")) {
    const [, key, value] = /^\s*Key=([^,]+),\s*Value=(.*)$/.exec(part) ?? [];
    if (key !== undefined) tags[key] = value ?? "";
  }
  return tags;
}
