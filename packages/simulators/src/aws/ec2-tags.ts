import { limitTags, listing, tagsIn, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { Resource } from "./resources.ts";
import type { Caller } from "./signature.ts";

/** The actions on tags. */
export function tagActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;

  function target(id: string, caller: Caller): Resource {
    switch (id.slice(0, id.indexOf("-"))) {
      case "snap":
        return scope.snapshot(id, caller);
      case "vol":
        return scope.volume(id, caller);
      case "i":
        return scope.instance(id, caller);
      case "ami":
        return scope.image(id, caller);
      case "sg":
        return scope.own(world.groups, id, caller, "sg");
      case "subnet":
        return scope.own(world.subnets, id, caller, "subnet");
      default: {
        const task = world.imports.get(id);
        if (task?.accountId === caller.accountId && task.region === caller.region) return task;
        throw wrong("InvalidID", `The ID '${id}' is not valid`);
      }
    }
  }

  function createTags(form: Ec2Form, caller: Caller): XmlObject {
    const targets = form.list("ResourceId").map((id) => target(id, caller));
    if (targets.length === 0) throw wrong("MissingParameter", "The request must contain the parameter resourceIdSet");
    const tags = tagsIn(form);
    for (const each of targets) limitTags({ ...each.tags, ...tags });
    for (const each of targets) Object.assign(each.tags, tags);
    return { return: true };
  }

  function deleteTags(form: Ec2Form, caller: Caller): XmlObject {
    const targets = form.list("ResourceId").map((id) => target(id, caller));
    const gone = form.forms("Tag").map((each) => ({ key: each.need("Key"), value: each.text("Value") }));
    for (const { tags } of targets) {
      // Without any tag named, all go; a tag named with a value goes only when it has that value (EC2 API, DeleteTags).
      for (const key of gone.length === 0 ? Object.keys(tags) : gone.map((each) => each.key)) {
        const wanted = gone.find((each) => each.key === key)?.value;
        if (wanted === undefined || tags[key] === wanted) delete tags[key];
      }
    }
    return { return: true };
  }

  function describeTags(form: Ec2Form, caller: Caller): XmlObject {
    const kinds: [string, ReadonlyMap<string, Resource>][] = [
      ["snapshot", world.snapshots],
      ["volume", world.volumes],
      ["instance", world.instances],
      ["image", world.images],
      ["security-group", world.groups],
      ["import-image-task", world.imports],
    ];
    const all = kinds.flatMap(([type, resources]) =>
      scope
        .mine(resources, caller)
        .flatMap(({ id, tags }) =>
          Object.entries(tags).map(([key, value]) => ({ id, type, key, value, tags: { [key]: value } })),
        ),
    );
    const { items, nextToken } = scope.select(form, all, (each, filter) => {
      if (filter === "resource-id") return [each.id];
      if (filter === "resource-type") return [each.type];
      if (filter === "key") return [each.key];
      return filter === "value" ? [each.value] : undefined;
    });
    const found = items.map(({ id, type, key, value }) => ({ resourceId: id, resourceType: type, key, value }));
    return { tagSet: found, nextToken };
  }

  return {
    CreateTags: { takes: "ResourceId Tag", act: createTags },
    DeleteTags: { takes: "ResourceId Tag", act: deleteTags },
    DescribeTags: { takes: listing, act: describeTags },
  };
}
