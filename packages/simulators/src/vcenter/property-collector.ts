import { randomUUID } from "node:crypto";
import { isA } from "./inventory.ts";
import type { Properties } from "./inventory.ts";
import { jsonOf } from "./json-writer.ts";
import { localizedFault } from "./task-board.ts";
import type { VimElement } from "./vim-element.ts";
import { objectNotFound, VimFault } from "./vim-fault.ts";
import { Any, Data, data, enumerated, List, list, Reference, reference } from "./vim-value.ts";
import type { VimValue } from "./vim-value.ts";

interface Filter {
  readonly specification: VimElement;
  /** What the client knows: by object, by path, the value as text. */
  readonly known: Map<string, { object: Reference; values: Map<string, string> }>;
}

interface Collector {
  readonly filters: Map<string, Filter>;
  version: number;
  cancel: AbortController;
}

/** How objects and changes are reached. */
export interface CollectorWorld {
  /** The properties of any managed object; undefined where it does not exist. */
  readonly properties: (object: Reference) => Properties | undefined;
  /** Resolves at the next change of anything, or when the signal fires. */
  readonly nextChange: (signal: AbortSignal) => Promise<void>;
  /** Why nothing of an object may be read, which is answered in the place of each property; undefined where it may be. */
  readonly unreadable: (object: Reference) => VimFault | undefined;
  /** Objects in an answer where the client sets no limit. */
  readonly pageSize: number;
}

/** The PropertyCollectors of one session: selection, paging, filters and waiting for updates. */
export class PropertyCollectors {
  readonly #world: CollectorWorld;
  readonly #collectors = new Map<string, Collector>();
  readonly #pages = new Map<string, { objects: VimValue[]; size: number }>();

  constructor(world: CollectorWorld) {
    this.#world = world;
  }

  /** RetrievePropertiesEx: the first page, and a token where there are more. */
  retrieve(args: VimElement): VimValue | undefined {
    const objects = args.all("specSet").flatMap((specification) => this.#contents(specification));
    const asked = args.child("options")?.number("maxObjects");
    return this.#page(objects, Math.min(asked ?? this.#world.pageSize, this.#world.pageSize));
  }

  /** RetrieveProperties, the older call: everything at once. */
  retrieveAll(args: VimElement): VimValue {
    return list(
      "ObjectContent",
      args.all("specSet").flatMap((specification) => this.#contents(specification)),
    );
  }

  /** ContinueRetrievePropertiesEx. */
  next(token: string): VimValue | undefined {
    const rest = this.#pages.get(token);
    if (rest === undefined) throw new VimFault("InvalidArgument", "token", { invalidProperty: "token" });
    this.#pages.delete(token);
    return this.#page(rest.objects, rest.size);
  }

  /** CancelRetrievePropertiesEx. */
  cancelPages(token: string): void {
    this.#pages.delete(token);
  }

  /** CreatePropertyCollector. */
  create(sessionKey: string): Reference {
    const id = `session[${sessionKey}]${randomUUID()}`;
    this.#collectors.set(id, newCollector());
    return reference("PropertyCollector", id);
  }

  /** DestroyPropertyCollector. */
  destroy(id: string): void {
    this.#collectors.get(id)?.cancel.abort();
    this.#collectors.delete(id);
  }

  /** CreateFilter: demands that the objects exist. */
  createFilter(collector: string, specification: VimElement, sessionKey: string): Reference {
    this.#contents(specification);
    const id = `session[${sessionKey}]${randomUUID()}`;
    this.#collector(collector).filters.set(id, { specification, known: new Map() });
    return reference("PropertyFilter", id);
  }

  /** DestroyPropertyFilter. */
  destroyFilter(filter: Reference): void {
    for (const collector of this.#collectors.values()) if (collector.filters.delete(filter.id)) return;
    throw objectNotFound(filter);
  }

  /** CancelWaitForUpdates. */
  cancelWait(id: string): void {
    const collector = this.#collector(id);
    collector.cancel.abort();
    collector.cancel = new AbortController();
  }

  /** WaitForUpdatesEx: what changed since `version`; undefined where nothing did in time. */
  async wait(id: string, args: VimElement, signal: AbortSignal): Promise<VimValue | undefined> {
    const collector = this.#collector(id);
    const version = args.string("version") ?? "";
    if (version === "") for (const filter of collector.filters.values()) filter.known.clear();
    else if (version !== String(collector.version)) {
      throw new VimFault("InvalidCollectorVersion", `The version '${version}' is not the collector's`);
    }
    const options = args.child("options");
    const deadline = Date.now() + (options?.number("maxWaitSeconds") ?? 1800) * 1000;
    const limit = options?.number("maxObjectUpdates") ?? Infinity;
    for (;;) {
      const updates = this.#updates(collector, limit);
      if (updates !== undefined) return updates;
      const leftMs = deadline - Date.now();
      if (leftMs <= 0) return undefined;
      const cancel = collector.cancel.signal;
      // The timer belongs to this wait alone, so that none is left behind.
      const timer = new AbortController();
      const timeout = setTimeout(() => timer.abort(), leftMs);
      await this.#world.nextChange(AbortSignal.any([signal, timer.signal, cancel]));
      clearTimeout(timeout);
      if (cancel.aborted || signal.aborted) throw new VimFault("RequestCanceled", "The request was canceled.");
    }
  }

  #updates(collector: Collector, limit: number): VimValue | undefined {
    const sets: VimValue[] = [];
    let count = 0;
    let truncated = false;
    for (const [filterId, filter] of collector.filters) {
      const objectSet: VimValue[] = [];
      const seen = new Set<string>();
      for (const { object, values } of this.#select(filter.specification, true)) {
        const key = `${object.type}:${object.id}`;
        seen.add(key);
        const known = filter.known.get(key);
        const changes: VimValue[] = [];
        const texts = new Map<string, string>();
        for (const [path, value] of values) {
          const text = JSON.stringify(jsonOf(new Any(value)));
          texts.set(path, text);
          if (known?.values.get(path) !== text) {
            changes.push(data("PropertyChange", { name: path, op: "assign", val: new Any(value) }));
          }
        }
        for (const path of known?.values.keys() ?? []) {
          if (!texts.has(path)) changes.push(data("PropertyChange", { name: path, op: "indirectRemove" }));
        }
        if (known !== undefined && changes.length === 0) continue;
        if (count >= limit) {
          truncated = true;
          continue;
        }
        count++;
        filter.known.set(key, { object, values: texts });
        const kind = known === undefined ? "enter" : "modify";
        objectSet.push(data("ObjectUpdate", { kind, obj: object, changeSet: list("PropertyChange", changes) }));
      }
      for (const [key, { object }] of filter.known) {
        if (seen.has(key)) continue;
        filter.known.delete(key);
        objectSet.push(data("ObjectUpdate", { kind: enumerated("ObjectUpdateKind", "leave"), obj: object }));
      }
      if (objectSet.length === 0) continue;
      sets.push(
        data("PropertyFilterUpdate", {
          filter: reference("PropertyFilter", filterId),
          objectSet: list("ObjectUpdate", objectSet),
        }),
      );
    }
    if (sets.length === 0) return undefined;
    collector.version++;
    return data("UpdateSet", {
      version: String(collector.version),
      filterSet: list("PropertyFilterUpdate", sets),
      truncated: truncated ? true : undefined,
    });
  }

  #collector(id: string): Collector {
    const known = this.#collectors.get(id);
    if (known !== undefined) return known;
    // Only the service's own collector is there without being made; one of an ended session is gone.
    if (id.startsWith("session[")) throw objectNotFound(reference("PropertyCollector", id));
    const made = newCollector();
    this.#collectors.set(id, made);
    return made;
  }

  #page(objects: VimValue[], size: number): VimValue | undefined {
    if (objects.length === 0) return undefined;
    let token: string | undefined;
    if (objects.length > size) {
      token = randomUUID();
      this.#pages.set(token, { objects: objects.slice(size), size });
    }
    return data("RetrieveResult", { token, objects: list("ObjectContent", objects.slice(0, size)) });
  }

  #contents(specification: VimElement): VimValue[] {
    return [...this.#select(specification, false)].map(({ object, values }) => {
      const why = this.#world.unreadable(object);
      const read = why === undefined ? [...values] : [];
      const missing = why === undefined ? [] : [...values.keys()];
      return data("ObjectContent", {
        obj: object,
        propSet: list(
          "DynamicProperty",
          read.map(([name, value]) => data("DynamicProperty", { name, val: new Any(value) })),
        ),
        missingSet: list(
          "MissingProperty",
          missing.map((path) => data("MissingProperty", { path, fault: localizedFault(why!) })),
        ),
      });
    });
  }

  /** The objects that a specification selects, with the properties that it asks of their type. */
  *#select(
    specification: VimElement,
    toleratesMissing: boolean,
  ): Generator<{ object: Reference; values: Map<string, VimValue> }> {
    const done = new Set<string>();
    for (const set of specification.all("objectSet")) {
      const object = set.ref("obj");
      if (object === undefined) throw new VimFault("InvalidRequest", "objectSet without obj");
      if (this.#world.properties(object) === undefined) {
        if (toleratesMissing) continue;
        throw objectNotFound(object);
      }
      const selections = set.all("selectSet");
      const named = new Map<string, VimElement>();
      collectNames(selections, named);
      for (const each of this.#reach(object, set.boolean("skip") === true, selections, named, new Set())) {
        const key = `${each.type}:${each.id}`;
        if (done.has(key)) continue;
        const asked = specification.all("propSet").filter((prop) => isA(each.type, prop.string("type") ?? ""));
        if (asked.length === 0) continue;
        done.add(key);
        yield { object: each, values: this.#values(each, asked) };
      }
    }
  }

  *#reach(
    object: Reference,
    skip: boolean,
    selections: readonly VimElement[],
    named: ReadonlyMap<string, VimElement>,
    visited: Set<string>,
  ): Generator<Reference> {
    if (!skip) yield object;
    for (const selection of selections) {
      const traversal = selection.child("path") === undefined ? named.get(selection.string("name") ?? "") : selection;
      if (traversal === undefined || !isA(object.type, traversal.string("type") ?? "")) continue;
      const step = `${object.type}:${object.id}>${traversal.string("name") ?? ""}:${traversal.string("path") ?? ""}`;
      if (visited.has(step)) continue;
      visited.add(step);
      const value = this.#value(object, traversal.string("path") ?? "");
      const targets = value instanceof List ? value.items : [value];
      for (const target of targets) {
        if (!(target instanceof Reference)) continue;
        const below = traversal.all("selectSet");
        yield* this.#reach(target, traversal.boolean("skip") === true, below, named, visited);
      }
    }
  }

  #values(object: Reference, asked: readonly VimElement[]): Map<string, VimValue> {
    const values = new Map<string, VimValue>();
    for (const set of asked) {
      const all = set.boolean("all") === true;
      const paths = all ? Object.keys(this.#world.properties(object) ?? {}) : set.strings("pathSet");
      for (const path of paths) {
        const value = this.#value(object, path);
        if (value !== undefined) values.set(path, value);
      }
    }
    return values;
  }

  #value(object: Reference, path: string): VimValue | undefined {
    const [first = "", ...rest] = path.split(".");
    const property = this.#world.properties(object)?.[first];
    if (property === undefined) throw invalidProperty(object, path);
    let value = property();
    for (const step of rest) {
      const [, name = step, key] = /^(\w+)\[(.+)\]$/.exec(step) ?? [];
      if (value === undefined) return undefined;
      if (!(value instanceof Data) || !(name in value.fields)) throw invalidProperty(object, path);
      value = value.fields[name];
      if (key !== undefined && value instanceof List) {
        value = value.items.find((item) => item instanceof Data && item.fields["key"] === Number(key));
      }
    }
    return value;
  }
}

function newCollector(): Collector {
  return { filters: new Map(), version: 0, cancel: new AbortController() };
}

function collectNames(selections: readonly VimElement[], into: Map<string, VimElement>): void {
  for (const selection of selections) {
    const name = selection.string("name");
    if (name !== undefined && selection.child("path") !== undefined) into.set(name, selection);
    collectNames(selection.all("selectSet"), into);
  }
}

/** Also for a property that vSphere has and this simulator does not: a client must notice. */
function invalidProperty(object: Reference, path: string): VimFault {
  return new VimFault("InvalidProperty", `${object.type} has no property '${path}' in this simulator`, { name: path });
}
