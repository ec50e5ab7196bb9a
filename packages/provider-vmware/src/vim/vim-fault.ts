import type { VimElement } from "./vim-element.ts";

/** A fault as vim25 answered it, of a call or of a task; the cause of the `ProviderError` it is translated into. */
export class VimFault extends Error {
  /** The fault's type without `Fault`: `NotAuthenticated`, `FileFault`, `NoPermission` … */
  readonly type: string;
  /** The fault's fields; undefined where the answer had none. */
  readonly detail: VimElement | undefined;

  constructor(type: string, message: string, detail?: VimElement) {
    super(message === "" ? type : `${type}: ${message}`);
    this.name = "VimFault";
    this.type = type;
    this.detail = detail;
  }
}

/** The fault that a `LocalizedMethodFault` holds: `Task.info.error`, `HttpNfcLease.error`, a fault's own cause. */
export function localizedFault(element: VimElement): VimFault {
  const fault = element.child("fault");
  return new VimFault(fault?.type ?? "MethodFault", element.string("localizedMessage") ?? "", fault);
}

/** The fault behind an error, through any number of causes; undefined where no fault is. */
export function faultOf(error: unknown): VimFault | undefined {
  let at = error;
  for (let depth = 0; depth < 8 && at instanceof Error; depth++) {
    if (at instanceof VimFault) return at;
    at = at.cause;
  }
  return undefined;
}
