import type { Wait } from "@diskferry/core/provider";
import { tagParameters } from "../client/cloudstack-client.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";

/** Kinds of things that tags are put on (`ResourceObjectType`). */
export type TaggedKind = "Volume" | "UserVm" | "Snapshot";

/** Tags of ours begin so. */
export const TAG_PREFIX = "diskferry.";
/** A tag's key and value each take so much (`resource_tags`, 255 characters). */
const LONGEST_VALUE = 250;

/** A value cut to what a tag takes. */
export function tagValue(text: string): string {
  return text.slice(0, LONGEST_VALUE);
}

/** Something with tags, as the platform has it now; undefined: it is gone. */
export type Tagged = { tags: Readonly<Record<string, string>> } | undefined;

/**
 * Puts tags on something, once: a tag that is there already with another value is taken off first, since `createTags`
 * refuses it.
 */
export async function putTags(
  cloud: Cloud,
  kind: TaggedKind,
  id: string,
  tags: Readonly<Record<string, string>>,
  look: () => Promise<Tagged>,
  wait: Wait = {},
): Promise<void> {
  const missing = (state: Tagged): Record<string, string> =>
    Object.fromEntries(Object.entries(tags).filter(([key]) => state?.tags[key] === undefined));
  const wrong = (state: Tagged): string[] =>
    Object.entries(tags).flatMap(([key, value]) =>
      state?.tags[key] === undefined || state.tags[key] === value ? [] : [key],
    );
  await removeTags(cloud, kind, id, wrong(await look()), look, wait);
  await ensure(
    cloud.client,
    {
      object: `${kind} ${id}`,
      look,
      done: (state) => Object.keys(missing(state)).length === 0,
      command: (state) => ({
        command: "createTags",
        parameters: { resourceids: id, resourcetype: kind, ...tagParameters(missing(state)) },
      }),
    },
    wait,
  );
}

/** Takes tags off; those that are not there do no harm. */
export async function removeTags(
  cloud: Cloud,
  kind: TaggedKind,
  id: string,
  keys: readonly string[],
  look: () => Promise<Tagged>,
  wait: Wait = {},
): Promise<void> {
  const left = (state: Tagged): string[] => keys.filter((key) => state?.tags[key] !== undefined);
  if (keys.length === 0) return;
  await ensure(
    cloud.client,
    {
      object: `${kind} ${id}`,
      look,
      done: (state) => left(state).length === 0,
      command: (state) => ({
        command: "deleteTags",
        parameters: {
          resourceids: id,
          resourcetype: kind,
          ...tagParameters(Object.fromEntries(left(state).map((key) => [key, undefined]))),
        },
      }),
    },
    wait,
  );
}
