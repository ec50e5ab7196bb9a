import { Any, arrayName, Data, Enumerated, List, Long, primitiveName, Reference } from "./vim-value.ts";
import type { VimValue } from "./vim-value.ts";

/** A vim25 value as VI/JSON writes it: data objects and references name their type, primitives do so in `anyType`. */
export function jsonOf(value: VimValue): unknown {
  if (value instanceof Any) return boxed(value.value);
  if (value instanceof List) return value.items.map((each) => jsonOf(each));
  if (value instanceof Reference) return { _typeName: "ManagedObjectReference", type: value.type, value: value.id };
  if (value instanceof Data) {
    const written: Record<string, unknown> = { _typeName: value.type };
    for (const [name, field] of Object.entries(value.fields)) {
      if (field !== undefined) written[name] = jsonOf(field);
    }
    return written;
  }
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Enumerated || value instanceof Long) return value.value;
  return value;
}

function boxed(value: VimValue): unknown {
  if (value instanceof Any) return boxed(value.value);
  if (value instanceof List) return { _typeName: arrayName(value.itemType), _value: jsonOf(value) };
  if (value instanceof Enumerated) return { _typeName: value.type, _value: value.value };
  const primitive = primitiveName(value);
  return primitive === undefined ? jsonOf(value) : { _typeName: primitive, _value: jsonOf(value) };
}
