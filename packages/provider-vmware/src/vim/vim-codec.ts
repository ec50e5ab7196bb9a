import type { MoRef } from "./moref.ts";
import type { VimArguments } from "./vim-argument.ts";
import type { VimElement } from "./vim-element.ts";
import type { VimMethodName } from "./vim-methods.ts";
import type { HttpAnswer } from "./vim-http.ts";

/** One call as it goes over HTTP, always by POST. */
export interface EncodedCall {
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** How calls of the table are written and answers read: SOAP, or VI/JSON. */
export interface VimCodec {
  readonly name: "soap" | "vi-json";
  /** The API version asked for, such as `8.0.3.0`. */
  readonly version: string;
  /** `credential` is what `credentialOf` gave of the login's answer. */
  encode(name: VimMethodName, self: MoRef, args: VimArguments, credential: string | undefined): EncodedCall;
  /**
   * The values an answer returns: none, one, or those of a list.
   *
   * @throws VimFault for a fault; Error for what is no answer of vim25
   */
  decode(name: VimMethodName, answer: HttpAnswer): VimElement[];
  /** What an answer to a login gives to be sent with later calls, verbatim. */
  credentialOf(answer: HttpAnswer): string | undefined;
}
