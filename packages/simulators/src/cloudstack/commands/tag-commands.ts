import { ApiError, errorCodes, invalid } from "../api-error.ts";
import { listed, type Call, type CommandDefinition, type Submission } from "../command.ts";
import type { Owner, Tag } from "../entities.ts";
import type { Parameters } from "../parameters.ts";
import { writeTags } from "../responses.ts";

interface Taggable {
  readonly id: string;
  readonly owner: Owner;
  readonly tags: Tag[];
}

/** Whether the tags that a list asks for are all there. */
export function hasTags(parameters: Parameters, tags: readonly Tag[]): boolean {
  return parameters
    .entries("tags")
    .every((wanted) =>
      tags.some(
        (tag) =>
          tag.key === wanted.get("key") && (wanted.get("value") === undefined || tag.value === wanted.get("value")),
      ),
    );
}

function mapOf({ world }: Call, type: string): ReadonlyMap<string, Taggable> {
  switch (type.toLowerCase()) {
    case "volume":
      return world.volumes;
    case "uservm":
      return world.machines;
    case "snapshot":
      return world.snapshots;
    default:
      throw invalid(`Invalid resource type: ${type}`);
  }
}

function resources(call: Call): Taggable[] {
  const { world, parameters, caller } = call;
  const map = mapOf(call, parameters.required("resourcetype"));
  parameters.required("resourceids");
  return parameters.list("resourceids").map((id) => {
    const found = map.get(id);
    if (found === undefined || !world.mayUse(caller, found.owner))
      throw invalid(`Unable to find resource by id ${id} and type ${parameters.required("resourcetype")}`);
    return found;
  });
}

function createTags(call: Call): Submission {
  const { parameters, caller } = call;
  const found = resources(call);
  const tags = parameters.entries("tags").map((each) => ({ key: each.get("key"), value: each.get("value") }));
  if (tags.length === 0) throw invalid("Unable to execute API command createtags due to missing parameter tags");
  return {
    work: async () => {
      for (const resource of found) {
        for (const { key, value } of tags) {
          if (key === undefined || value === undefined || value === "")
            throw invalid(`Value for the key ${key ?? ""} is either null or empty`);
          if (resource.tags.some((tag) => tag.key === key))
            throw new ApiError(errorCodes.internal, `tag ${key} already on resource with id ${resource.id}`);
        }
        for (const { key, value } of tags) resource.tags.push({ key: key ?? "", value: value ?? "", owner: caller });
      }
      return { success: true };
    },
  };
}

function deleteTags(call: Call): Submission {
  const { parameters } = call;
  const found = resources(call);
  const wanted = parameters.entries("tags");
  return {
    work: async () => {
      for (const { tags } of found) {
        const kept = tags.filter(
          (tag) =>
            wanted.length > 0 &&
            !wanted.some(
              (each) =>
                each.get("key") === tag.key && (each.get("value") === undefined || each.get("value") === tag.value),
            ),
        );
        tags.splice(0, tags.length, ...kept);
      }
      return { success: true };
    },
  };
}

function listTags(call: Call): object {
  const { world, parameters, caller } = call;
  const scope = world.scopeOf(parameters, caller);
  const types = ["Volume", "UserVm", "Snapshot"] as const;
  const wantedType = parameters.text("resourcetype")?.toLowerCase();
  const rows: object[] = [];
  for (const type of types) {
    if (wantedType !== undefined && wantedType !== type.toLowerCase()) continue;
    for (const each of mapOf(call, type).values()) {
      if (!scope(each.owner)) continue;
      const id = parameters.text("resourceid");
      if (id !== undefined && id !== each.id) continue;
      const tags = each.tags.filter(
        (tag) =>
          (parameters.text("key") ?? tag.key) === tag.key && (parameters.text("value") ?? tag.value) === tag.value,
      );
      rows.push(...writeTags(type, each.id, tags));
    }
  }
  return listed(call, "tag", rows, (row) => row);
}

/** Tags, which are a call of their own after what they mark was made. */
export const tagCommands: readonly CommandDefinition[] = [
  {
    name: "createTags",
    group: "user.tag",
    description: "Creates resource tag(s)",
    parameters: ["resourceids", "resourcetype", "tags"],
    submit: createTags,
  },
  {
    name: "deleteTags",
    group: "user.tag",
    description: "Deleting resource tag(s)",
    parameters: ["resourceids", "resourcetype", "tags"],
    submit: deleteTags,
  },
  {
    name: "listTags",
    group: "user.tag",
    description: "List resource tag(s)",
    parameters: ["resourcetype", "resourceid", "key", "value"],
    answer: listTags,
  },
];
