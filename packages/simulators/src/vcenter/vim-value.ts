/**
 * A value of the vim25 type system, written as XML for SOAP and as JSON for VI/JSON. A number is an `xsd:int`; a larger
 * type is said by `long`. A list is written as a repeated element, or as `ArrayOf…` where its type is not declared.
 */
export type VimValue = string | number | boolean | Date | Reference | Data | Enumerated | Long | List | Any;

/** The fields of a data object in the order of the schema; absent ones are left out. */
export type Fields = Record<string, VimValue | undefined>;

/** A managed object reference ("moref"). */
export class Reference {
  readonly type: string;
  readonly id: string;

  constructor(type: string, id: string) {
    this.type = type;
    this.id = id;
  }
}

/** A data object; `explicit` ones stand where a base type is declared and so carry their type in XML. */
export class Data {
  readonly type: string;
  readonly fields: Fields;
  readonly explicit: boolean;

  constructor(type: string, fields: Fields, explicit: boolean) {
    this.type = type;
    this.fields = fields;
    this.explicit = explicit;
  }
}

/** A value of an enumeration, whose type is written where `anyType` is declared. */
export class Enumerated {
  readonly type: string;
  readonly value: string;

  constructor(type: string, value: string) {
    this.type = type;
    this.value = value;
  }
}

/** An `xsd:long`. */
export class Long {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** A list of values of one declared type. */
export class List {
  readonly itemType: string;
  readonly items: readonly VimValue[];

  constructor(itemType: string, items: readonly VimValue[]) {
    this.itemType = itemType;
    this.items = items;
  }
}

/** A value where the schema declares `anyType`: it always carries its type. */
export class Any {
  readonly value: VimValue;

  constructor(value: VimValue) {
    this.value = value;
  }
}

/** A reference to a managed object. */
export function reference(type: string, id: string): Reference {
  return new Reference(type, id);
}

/** A data object where exactly its type is declared. */
export function data(type: string, fields: Fields): Data {
  return new Data(type, fields, false);
}

/** A data object where a base type of it is declared. */
export function subtype(type: string, fields: Fields): Data {
  return new Data(type, fields, true);
}

/** A list of data objects, references or primitives. */
export function list(itemType: string, items: readonly VimValue[]): List {
  return new List(itemType, items);
}

/** A value of the enumeration `type`. */
export function enumerated(type: string, value: string): Enumerated {
  return new Enumerated(type, value);
}

/** A 64-bit number. */
export function long(value: number): Long {
  return new Long(value);
}

/** The name of a value's type as `anyType` positions write it; primitives have none of vim25's own. */
export function primitiveName(value: VimValue): "string" | "int" | "long" | "boolean" | "dateTime" | undefined {
  if (typeof value === "string") return "string";
  if (typeof value === "number") return "int";
  if (typeof value === "boolean") return "boolean";
  if (value instanceof Long) return "long";
  if (value instanceof Date) return "dateTime";
  return undefined;
}

/** `ArrayOfVirtualDevice`, `ArrayOfString`, `ArrayOfManagedObjectReference`: what a list is called in `anyType`. */
export function arrayName(itemType: string): string {
  const bare = itemType.replace(/^xsd:/, "");
  return `ArrayOf${bare.charAt(0).toUpperCase()}${bare.slice(1)}`;
}
