import type { MoRef } from "./moref.ts";
import type { VimElement } from "./vim-element.ts";
import { localizedFault, type VimFault } from "./vim-fault.ts";

/** The properties of one object that were asked for, by path (`config.hardware.device`). */
export class VimProperties {
  readonly object: MoRef;
  /** By path: why the server left a property out that is asked for and may well be set. */
  readonly unseen: Map<string, VimFault> = new Map();
  readonly #values: Map<string, VimElement> = new Map();

  constructor(object: MoRef) {
    this.object = object;
  }

  /** A property's value; undefined where it is unset or may not be read. */
  get(path: string): VimElement | undefined {
    return this.#values.get(path);
  }

  string(path: string): string | undefined {
    return this.get(path)?.text;
  }

  number(path: string): number | undefined {
    return this.get(path)?.asNumber;
  }

  boolean(path: string): boolean | undefined {
    return this.get(path)?.asBoolean;
  }

  reference(path: string): MoRef | undefined {
    return this.get(path)?.asReference;
  }

  /** The references of a list property; empty where it is unset. */
  references(path: string): MoRef[] {
    return (this.get(path)?.children ?? []).flatMap((each) => each.asReference ?? []);
  }

  set(path: string, value: VimElement | undefined): void {
    if (value === undefined) this.#values.delete(path);
    else this.#values.set(path, value);
  }
}

/** Reads an `ObjectContent` of an answer. */
export function readObjectContent(content: VimElement): VimProperties | undefined {
  const object = content.reference("obj");
  if (object === undefined) return undefined;
  const properties = new VimProperties(object);
  for (const set of content.all("propSet")) {
    const name = set.string("name");
    if (name !== undefined) properties.set(name, set.child("val"));
  }
  for (const missing of content.all("missingSet")) {
    const why = missing.child("fault");
    properties.unseen.set(missing.string("path") ?? "", localizedFault(why ?? missing));
  }
  return properties;
}

/**
 * Why an answer of a property collector tells nothing: its session has ended. A collector answers strangers, too: with the
 * objects, and with this fault in the place of each property, as if none was set. Undefined for what tells something.
 */
export function endedSession(answer: readonly VimElement[]): VimFault | undefined {
  for (const object of answer.flatMap((each) => each.all("objects"))) {
    for (const missing of object.all("missingSet")) {
      const why = localizedFault(missing.child("fault") ?? missing);
      if (why.type === "NotAuthenticated") return why;
    }
  }
  return undefined;
}
