import type { OwnedResource, Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { readOwnName } from "../names.ts";
import { templatesOf } from "./boot-template.ts";

/** What the launches of a job made, by its mark in names, volumes left out: machines, templates, snapshots. */
export async function* madeByLaunches(cloud: Cloud, job: string, wait: Wait): AsyncGenerator<OwnedResource> {
  for await (const machine of cloud.machines({ keyword: `df-${job}-` }, wait)) {
    if (readOwnName(machine.name)?.job !== job) continue;
    yield {
      kind: "machine",
      id: machine.id,
      description: `${machine.displayName} (${machine.name}), ${machine.state}`,
    };
  }
  yield* templatesOf(cloud, job, wait);
  for await (const snapshot of cloud.snapshots({}, wait)) {
    const own = readOwnName(snapshot.name);
    if (own?.job !== job || own.note?.startsWith("snapshot") !== true) continue;
    yield { kind: "snapshot", id: snapshot.id, description: `${snapshot.name}, ${snapshot.state}` };
  }
}
