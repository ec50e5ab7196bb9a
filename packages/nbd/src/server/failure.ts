import { isProviderError, type ProviderErrorCode } from "@diskferry/core/provider";
import { errorNumber } from "../protocol.ts";
import { RequestError } from "./request.ts";

const bySystemCode: Record<string, number> = {
  EPERM: errorNumber.EPERM,
  EACCES: errorNumber.EPERM,
  EROFS: errorNumber.EPERM,
  ENOMEM: errorNumber.ENOMEM,
  EINVAL: errorNumber.EINVAL,
  ENOSPC: errorNumber.ENOSPC,
  EDQUOT: errorNumber.ENOSPC,
  EFBIG: errorNumber.ENOSPC,
  EOVERFLOW: errorNumber.EOVERFLOW,
  ENOTSUP: errorNumber.ENOTSUP,
  EOPNOTSUPP: errorNumber.ENOTSUP,
  ESHUTDOWN: errorNumber.ESHUTDOWN,
};

const byProviderCode: Partial<Record<ProviderErrorCode, number>> = {
  DENIED: errorNumber.EPERM,
  AUTH: errorNumber.EPERM,
  FENCED: errorNumber.ESHUTDOWN,
};

/**
 * The NBD error and the text for a backend's failure. The text of a ProviderError holds no secret by contract and is
 * passed on; of any other error only its code is, since its text may name what is none of the client's business.
 */
export function describeFailure(error: unknown): { errorNumber: number; message: string } {
  if (error instanceof RequestError) return { errorNumber: error.errorNumber, message: error.message };
  if (isProviderError(error)) {
    return { errorNumber: byProviderCode[error.code] ?? errorNumber.EIO, message: error.message };
  }
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  const known = bySystemCode[code];
  return known === undefined
    ? { errorNumber: errorNumber.EIO, message: "the disk behind this export failed" }
    : { errorNumber: known, message: `the disk behind this export failed: ${code}` };
}
