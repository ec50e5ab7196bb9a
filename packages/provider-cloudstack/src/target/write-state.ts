import { randomBytes } from "node:crypto";
import type { Wait } from "@diskferry/core/provider";
import { tagParameters } from "../client/cloudstack-client.ts";
import type { CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { keyMark } from "../names.ts";
import { TAG_PREFIX, removeTags } from "./tags.ts";

/** Who writes a volume, as its tags tell: the newest epoch, its run, and what that run's writing is called. */
export interface WriteState {
  epoch: number;
  /** A mark of the run. */
  run: string;
  generation: string;
  /** The machine it was attached to for writing. */
  appliance: string;
  /** Which version of this state it is; each is a tag of its own. */
  version: number;
}

const PREFIX = `${TAG_PREFIX}write.`;

/** The mark of a run. */
export function runMark(run: string): string {
  return keyMark("run", run).slice(0, 16);
}

/** A name for a write that no other one has. */
export function newGeneration(): string {
  return randomBytes(10).toString("hex");
}

/** The newest state that a volume's tags tell; undefined: it was never opened. */
export function writeStateOf({ tags }: { tags: Readonly<Record<string, string>> }): WriteState | undefined {
  let newest: WriteState | undefined;
  for (const [key, value] of Object.entries(tags)) {
    if (!key.startsWith(PREFIX)) continue;
    const [epoch, run, generation, appliance] = value.split(";");
    const version = Number(key.slice(PREFIX.length));
    if (!Number.isSafeInteger(version) || generation === undefined || run === undefined) continue;
    if (newest !== undefined && newest.version >= version) continue;
    newest = { epoch: Number(epoch), run, generation, appliance: appliance ?? "", version };
  }
  return newest;
}

/**
 * Makes a state the newest one, if `before` still is: each version is a tag of its own, and CloudStack refuses a tag that
 * is there already (`resource_tags` has a unique key), so of two workers one wins.
 * @throws ProviderError FENCED when another one was first
 */
export async function advanceWriteState(
  cloud: Cloud,
  volume: CloudVolume,
  before: WriteState | undefined,
  next: Omit<WriteState, "version">,
  wait: Wait = {},
): Promise<CloudVolume> {
  const version = (before?.version ?? 0) + 1;
  const key = `${PREFIX}${version}`;
  const value = [next.epoch, next.run, next.generation, next.appliance, randomBytes(6).toString("hex")].join(";");
  const look = async (): Promise<CloudVolume> => {
    const now = await cloud.volume(volume.id, wait);
    if (now === undefined) throw cloudstackError("NOT_FOUND", `Volume ${volume.id} is gone.`);
    return now;
  };
  const after = await ensure(
    cloud.client,
    {
      object: `volume ${volume.id}`,
      look,
      done: ({ tags }) => {
        const newest = writeStateOf({ tags });
        if (tags[key] === value && newest?.version === version) return true;
        if (tags[key] !== undefined || (newest?.version ?? 0) >= version) {
          throw cloudstackError(
            "FENCED",
            `Volume ${volume.id} was opened by another run meanwhile; this one must stop.`,
            {
              operation: "open",
            },
          );
        }
        return false;
      },
      command: () => ({
        command: "createTags",
        parameters: { resourceids: volume.id, resourcetype: "Volume", ...tagParameters({ [key]: value }) },
      }),
    },
    wait,
  );
  const old = Object.keys(after.tags).filter(
    (each) => each.startsWith(PREFIX) && Number(each.slice(PREFIX.length)) < version,
  );
  await removeTags(cloud, "Volume", volume.id, old, look, wait);
  return after;
}
