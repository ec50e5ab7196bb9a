import { setTimeout as sleep } from "node:timers/promises";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import { translateFault, vsphereError } from "../errors.ts";
import { type MoRef, moRefText } from "./moref.ts";
import { type VimArgument, type VimArguments, vimData } from "./vim-argument.ts";
import type { CallWait, VimClient } from "./vim-client.ts";
import type { VimElement } from "./vim-element.ts";
import { faultOf } from "./vim-fault.ts";
import type { VimMethodName } from "./vim-methods.ts";
import { readObjectContent, VimProperties } from "./vim-properties.ts";

/** Objects in one page: with their devices some MiB at most, and the server builds it in well under a second. */
const pageSize = 100;
/** Seconds that one WaitForUpdatesEx waits at the server: shorter than what proxies and firewalls cut. */
const longestWaitSeconds = 30;
const pauseMs = 1_000;

/**
 * Reads properties of known objects.
 *
 * @throws ProviderError NOT_FOUND where one does not exist
 */
export async function readProperties(
  client: VimClient,
  objects: readonly MoRef[],
  paths: readonly string[],
  wait: CallWait = {},
): Promise<VimProperties[]> {
  if (objects.length === 0) return [];
  const types = [...new Set(objects.map(({ type }) => type))];
  const spec = vimData("PropertyFilterSpec", {
    propSet: types.map((type) => vimData("PropertySpec", { type, pathSet: paths })),
    objectSet: objects.map((obj) => vimData("ObjectSpec", { obj })),
  });
  const found: VimProperties[] = [];
  for await (const page of retrieve(client, spec, wait)) found.push(...page);
  return found;
}

/**
 * Reads properties of one object. What may not be seen counts as unset: see {@link readSeen} where that would mislead.
 *
 * @throws ProviderError NOT_FOUND where it does not exist
 */
export async function readObject(
  client: VimClient,
  object: MoRef,
  paths: readonly string[],
  wait: CallWait = {},
): Promise<VimProperties> {
  const [found] = await readProperties(client, [object], paths, wait);
  // An object of which nothing may be seen is not answered at all.
  if (found === undefined) {
    throw vsphereError("NOT_FOUND", `${wait.about ?? moRefText(object)} does not exist, or may not be seen`);
  }
  return found;
}

/**
 * Reads properties of one object whose absence means something: an unset one is known to be unset.
 *
 * @throws ProviderError DENIED where one may not be seen; NOT_FOUND where the object does not exist
 */
export async function readSeen(
  client: VimClient,
  object: MoRef,
  paths: readonly string[],
  wait: CallWait = {},
): Promise<VimProperties> {
  const properties = await readObject(client, object, paths, wait);
  for (const [path, why] of properties.unseen) {
    throw translateFault(why, `reading ${path}`, wait.about ?? moRefText(object));
  }
  return properties;
}

/**
 * Reads properties of every object of some types below a container (the root folder), page by page. A session that ends
 * half-way begins the listing anew without repeating what was given.
 */
export async function* listObjects(
  client: VimClient,
  container: MoRef,
  wanted: { types: readonly string[]; paths: readonly string[] },
  wait: Wait = {},
): AsyncGenerator<VimProperties[]> {
  const { viewManager } = client.references;
  if (viewManager === undefined) throw vsphereError("UNSUPPORTED", `${client.place} has no view manager`);
  const given = new Set<string>();
  for (let restarts = 0; ; restarts++) {
    const generation = client.generation;
    try {
      const view = await client.callForReference(
        "CreateContainerView",
        viewManager,
        { container, type: wanted.types, recursive: true },
        wait,
      );
      try {
        const spec = vimData("PropertyFilterSpec", {
          propSet: wanted.types.map((type) => vimData("PropertySpec", { type, pathSet: wanted.paths })),
          objectSet: [
            vimData("ObjectSpec", {
              obj: view,
              skip: true,
              selectSet: [vimData("TraversalSpec", { name: "view", type: "ContainerView", path: "view", skip: false })],
            }),
          ],
        });
        for await (const page of retrieve(client, spec, wait)) {
          const fresh = page.filter(({ object }) => !given.has(object.value));
          for (const { object } of fresh) given.add(object.value);
          if (fresh.length > 0) yield fresh;
        }
        return;
      } finally {
        // A view belongs to its session and is gone with it.
        if (client.generation === generation) await tidy(client, "DestroyView", view, {}, wait);
      }
    } catch (error) {
      wait.signal?.throwIfAborted();
      // The view and what was left of the pages went with the session, which a lost view may be the first to tell.
      const ended = client.generation !== generation || faultOf(error)?.type === "ManagedObjectNotFound";
      if (!ended || restarts >= mostRestarts || !isProviderError(error)) throw error;
    }
  }
}

const mostRestarts = 3;

/** The pages of RetrievePropertiesEx. What is not read to its end is cancelled at the server. */
async function* retrieve(client: VimClient, spec: VimArgument, wait: CallWait): AsyncGenerator<VimProperties[]> {
  const collector = client.references.propertyCollector;
  const options = vimData("RetrieveOptions", { maxObjects: pageSize });
  let [answer] = await client.call("RetrievePropertiesEx", collector, { specSet: [spec], options }, wait);
  let token = answer?.string("token");
  try {
    while (answer !== undefined) {
      yield answer.all("objects").flatMap((each) => readObjectContent(each) ?? []);
      if (token === undefined) return;
      const asked: string = token;
      // A token is good once: if the answer is lost, so is the listing.
      token = undefined;
      [answer] = await client.call("ContinueRetrievePropertiesEx", collector, { token: asked }, wait);
      token = answer?.string("token");
    }
  } finally {
    if (token !== undefined) await tidy(client, "CancelRetrievePropertiesEx", collector, { token }, wait);
  }
}

/**
 * Follows properties of one object until `done` says so, and resolves to them: task states, lease states, power states. Every
 * caller has a collector of its own. A session or a connection that ends meanwhile is made anew, as often as it lasts;
 * `signal` bounds the wait.
 *
 * @throws ProviderError NOT_FOUND where the object does not exist, or no longer
 */
export async function waitForProperties(
  client: VimClient,
  object: MoRef,
  paths: readonly string[],
  done: (properties: VimProperties) => boolean,
  wait: CallWait = {},
): Promise<VimProperties> {
  const properties = new VimProperties(object);
  let failures = 0;
  for (;;) {
    const generation = client.generation;
    try {
      return await follow(client, properties, paths, done, wait, () => {
        failures = 0;
      });
    } catch (error) {
      wait.signal?.throwIfAborted();
      const restarted = client.generation !== generation;
      const broken = isProviderError(error) && error.retryable && faultOf(error) === undefined;
      if ((!restarted && !broken) || ++failures > mostRestarts) throw error;
      await sleep(pauseMs * failures, undefined, { signal: wait.signal });
    }
  }
}

async function follow(
  client: VimClient,
  properties: VimProperties,
  paths: readonly string[],
  done: (properties: VimProperties) => boolean,
  wait: CallWait,
  heard: () => void,
): Promise<VimProperties> {
  const { object } = properties;
  const generation = client.generation;
  const collector = await client.callForReference(
    "CreatePropertyCollector",
    client.references.propertyCollector,
    {},
    wait,
  );
  try {
    const spec = vimData("PropertyFilterSpec", {
      propSet: [vimData("PropertySpec", { type: object.type, pathSet: paths })],
      objectSet: [vimData("ObjectSpec", { obj: object })],
    });
    await client.call("CreateFilter", collector, { spec, partialUpdates: false }, wait);
    // The server has to answer before the client gives its request up.
    const maxWaitSeconds = Math.max(1, Math.min(longestWaitSeconds, Math.floor(client.timeoutMs / 2_000)));
    const options = vimData("WaitOptions", { maxWaitSeconds });
    for (let version = ""; ;) {
      const [update] = await client.call(
        "WaitForUpdatesEx",
        collector,
        { version, options },
        { ...wait, waits: true, timeoutMs: maxWaitSeconds * 1000 + client.timeoutMs },
      );
      // A new session has no such collector, whatever it answers.
      if (client.generation !== generation) {
        throw vsphereError("UNAVAILABLE", `the session at ${client.http.host} was begun anew`);
      }
      heard();
      // No answer: nothing changed in all that time.
      if (update === undefined) continue;
      version = update.string("version") ?? "";
      for (const each of update.all("filterSet").flatMap((set) => set.all("objectSet"))) {
        apply(each, properties, wait.about ?? moRefText(object));
      }
      if (done(properties)) return properties;
    }
  } finally {
    if (client.generation === generation) await tidy(client, "DestroyPropertyCollector", collector, {}, wait);
  }
}

function apply(update: VimElement, properties: VimProperties, about: string): void {
  if (update.string("kind") === "leave" || update.all("missingSet").length > 0) {
    throw vsphereError("NOT_FOUND", `${about} does not exist any more, or may not be seen`);
  }
  for (const change of update.all("changeSet")) {
    const name = change.string("name");
    if (name !== undefined) properties.set(name, change.string("op") === "assign" ? change.child("val") : undefined);
  }
}

/** Gives back what the server keeps for a session. Where that fails the session's end does it, and nothing else is lost. */
async function tidy(
  client: VimClient,
  name: VimMethodName,
  self: MoRef,
  args: VimArguments,
  wait: Wait,
): Promise<void> {
  if (wait.signal?.aborted === true) return;
  try {
    await client.call(name, self, args, wait);
  } catch (error) {
    client.notice(`${(error as Error).message}; it ends with the session`);
  }
}
