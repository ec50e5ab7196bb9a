import type { HttpStream } from "../vim/vim-http.ts";

/** Gives the rest of an answer up; whoever reads it meanwhile gets an error. */
export function discardBody({ body }: HttpStream): void {
  // A body that is destroyed before its end says so by an error event, which nobody may be left to hear.
  body.on("error", () => undefined);
  body.destroy();
}
