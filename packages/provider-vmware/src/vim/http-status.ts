import type { ProviderErrorCode } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { HttpAnswer } from "./vim-http.ts";

const meanings: Readonly<Record<number, { code: ProviderErrorCode; why: string; retryable?: boolean }>> = {
  400: { code: "UNEXPECTED", why: "the server refuses the form of the request" },
  401: { code: "AUTH", why: "the server refuses the login" },
  403: { code: "DENIED", why: "the server, or something before it, forbids it" },
  404: { code: "NOT_FOUND", why: "there is nothing at this address; check that it is a vCenter or ESXi host" },
  407: { code: "CONFIG_INVALID", why: "a proxy stands between and asks for a login" },
  429: { code: "THROTTLED", why: "the server asks to slow down" },
  500: { code: "UNAVAILABLE", why: "the server failed" },
  502: { code: "UNAVAILABLE", why: "the server behind the proxy did not answer; it may be starting" },
  503: { code: "UNAVAILABLE", why: "the server is not ready; it may be starting" },
  504: { code: "UNAVAILABLE", why: "the server behind the proxy did not answer in time" },
};

/** A status that is no answer of the API as an error: what it means, and whether to try again. */
export function statusError(answer: HttpAnswer, operation: string, host: string): Error {
  const meaning = meanings[answer.status] ?? { code: "UNEXPECTED" as const, why: "the server answers something else" };
  const seconds = Number(answer.header("retry-after"));
  return vsphereError(meaning.code, `${operation} at ${host} failed with HTTP ${answer.status}: ${meaning.why}`, {
    operation,
    // Tells 503 from the rest for whoever decides on repeating: nothing was done.
    cause: Object.assign(new Error(`HTTP ${answer.status}`), { code: `HTTP_${answer.status}` }),
    ...(Number.isFinite(seconds) && seconds > 0 ? { retryAfterMs: seconds * 1000 } : {}),
  });
}
