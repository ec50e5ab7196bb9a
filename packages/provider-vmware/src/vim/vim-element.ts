import { type MoRef, moRef } from "./moref.ts";

/**
 * One value of a vim25 answer with its fields as children. SOAP and VI/JSON answers are read into the same tree, so that
 * whatever reads a type reads it from both.
 */
export class VimElement {
  /** The field's name; in lists of `anyType`, anything. */
  readonly name: string;
  /** The value's own type where the answer says it (`xsi:type` without its prefix, `_typeName`). */
  readonly type: string | undefined;
  /** The managed object's type, where this is a reference (the attribute `type`, which is not `xsi:type`). */
  readonly referredType: string | undefined;
  readonly children: VimElement[] = [];
  text = "";

  constructor(name: string, type?: string, referredType?: string) {
    this.name = name;
    this.type = type;
    this.referredType = referredType;
  }

  /** The field of this name; undefined where the answer leaves it out. */
  child(name: string): VimElement | undefined {
    for (const each of this.children) if (each.name === name) return each;
    return undefined;
  }

  /** Every element of a list field; empty where the answer leaves it out. */
  all(name: string): VimElement[] {
    return this.children.filter((each) => each.name === name);
  }

  /** What a chain of fields leads to. */
  at(...names: string[]): VimElement | undefined {
    return names.reduce<VimElement | undefined>((found, name) => found?.child(name), this);
  }

  string(name: string): string | undefined {
    return this.child(name)?.text;
  }

  /** A field as a number; undefined where it is left out. @throws RangeError for what is no safe integer. */
  number(name: string): number | undefined {
    return this.child(name)?.asNumber;
  }

  boolean(name: string): boolean | undefined {
    return this.child(name)?.asBoolean;
  }

  reference(name: string): MoRef | undefined {
    return this.child(name)?.asReference;
  }

  get asNumber(): number {
    const number = Number(this.text);
    if (this.text.trim() === "" || !Number.isSafeInteger(number)) {
      throw new RangeError(`the field ${this.name} holds no whole number`);
    }
    return number;
  }

  get asBoolean(): boolean {
    const text = this.text.trim();
    return text === "true" || text === "1";
  }

  /** This element as a reference; undefined where it is none. */
  get asReference(): MoRef | undefined {
    return this.referredType === undefined ? undefined : moRef(this.referredType, this.text.trim());
  }
}
