import type { MoRef } from "./moref.ts";

/** A value sent to vim25. A whole number is written as it is; dates are not sent by any call of ours. */
export type VimArgument = string | number | boolean | MoRef | VimData | VimTyped | readonly VimArgument[];

/** The arguments of a call by name; undefined ones are left out. */
export type VimArguments = { readonly [name: string]: VimArgument | undefined };

/** A data object; its fields stand in the order of the schema, which vCenter's parser insists on. */
export class VimData {
  readonly type: string;
  readonly fields: VimArguments;

  constructor(type: string, fields: VimArguments) {
    this.type = type;
    this.fields = fields;
  }
}

/** A primitive where the schema declares `anyType`, which carries its type: an `OptionValue`'s value. */
export class VimTyped {
  readonly type: "string" | "int" | "boolean";
  readonly value: string | number | boolean;

  constructor(type: "string" | "int" | "boolean", value: string | number | boolean) {
    this.type = type;
    this.value = value;
  }
}

/** A data object of this type; fields in the order of the schema. */
export function vimData(type: string, fields: VimArguments): VimData {
  return new VimData(type, fields);
}

/** Whether an argument is a list. */
export function isList(argument: VimArgument): argument is readonly VimArgument[] {
  return Array.isArray(argument);
}
