import { data } from "./vim-value.ts";
import type { Data, Fields, Reference } from "./vim-value.ts";

/** A fault of vim25: SOAP answers it with HTTP 500 and its type in the detail, a task keeps it in `info.error`. */
export class VimFault extends Error {
  readonly detail: Data;

  constructor(type: string, message: string, fields: Fields = {}) {
    super(message);
    this.name = type;
    this.detail = data(type, fields);
  }
}

/** The object does not exist, or no longer. */
export function objectNotFound(object: Reference): VimFault {
  const message = `The object '${object.type}:${object.id}' has already been deleted or has not been completely created`;
  return new VimFault("ManagedObjectNotFound", message, { obj: object });
}

/** A parameter that the method does not accept; `property` names it. */
export function invalidArgument(property: string): VimFault {
  return new VimFault("InvalidArgument", `A specified parameter was not correct: ${property}`, {
    invalidProperty: property,
  });
}

/** The method does not exist on this object in this version. */
export function methodNotFound(receiver: Reference, method: string): VimFault {
  return new VimFault("MethodNotFound", `${receiver.type}:${receiver.id} does not implement: ${method}`, {
    receiver,
    method,
  });
}
