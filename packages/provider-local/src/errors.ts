import { ProviderError, isProviderError, type ProviderErrorCode } from "@diskferry/core/provider";

/** What the error numbers of the system calls on files and devices mean for a copy, and what to do about each. */
const meanings: Record<string, { code: ProviderErrorCode; what: string; retryable?: boolean }> = {
  ENOENT: { code: "NOT_FOUND", what: "does not exist; check the path" },
  ENXIO: { code: "NOT_FOUND", what: "has no device behind it; check that the device is attached" },
  ENODEV: { code: "NOT_FOUND", what: "has no device behind it; check that the device is attached" },
  ENOMEDIUM: { code: "NOT_FOUND", what: "has no medium in it" },
  ESTALE: { code: "NOT_FOUND", what: "is gone from the file server; check the mount" },
  EACCES: { code: "DENIED", what: "may not be accessed by this user; check permissions, or run as a user who may" },
  EPERM: { code: "DENIED", what: "may not be accessed by this user; check permissions and immutable flags" },
  EROFS: { code: "DENIED", what: "is on a read-only file system; remount it or choose another place" },
  EBUSY: { code: "IN_USE", what: "is in use; unmount it, or stop what holds it" },
  ETXTBSY: { code: "IN_USE", what: "is being executed; stop what runs it" },
  EEXIST: { code: "EXISTS", what: "exists already; choose another name or remove it" },
  EISDIR: { code: "CONFIG_INVALID", what: "is a directory; name a file or a block device" },
  ENOTDIR: { code: "CONFIG_INVALID", what: "has something in its path that is no directory; check the path" },
  ENAMETOOLONG: { code: "CONFIG_INVALID", what: "has too long a name" },
  ELOOP: { code: "CONFIG_INVALID", what: "is a symbolic link that leads to itself" },
  EFBIG: { code: "UNSUPPORTED", what: "would become larger than its file system allows" },
  ENOSPC: {
    code: "UNAVAILABLE",
    what: "has no space left; free some and run again, it goes on where it stopped",
    retryable: false,
  },
  EDQUOT: { code: "UNAVAILABLE", what: "is over its disk quota; free some and run again", retryable: false },
  EMFILE: { code: "UNAVAILABLE", what: "could not be opened: too many files are open; raise the limit (ulimit -n)" },
  ENFILE: { code: "UNAVAILABLE", what: "could not be opened: the system has too many files open" },
  EIO: { code: "UNAVAILABLE", what: "gave an input/output error; check the medium and the kernel's log" },
};

/** A {@link ProviderError} of this provider. */
export function localError(
  code: ProviderErrorCode,
  message: string,
  options: { operation?: string; cause?: unknown; retryable?: boolean | undefined } = {},
): ProviderError {
  return new ProviderError(code, message, { provider: "local", ...options });
}

/** The error number's name of a failed system call, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : undefined;
}

/**
 * A failed system call as a {@link ProviderError}: `operation` on `object` failed, why, and what to do. Errors that are
 * one already, and those of the caller (TypeError, RangeError), are given back as they are.
 */
export function translate(error: unknown, operation: string, object: string): unknown {
  if (isProviderError(error)) return error;
  const errno = errnoOf(error);
  if (errno === undefined || errno.startsWith("ERR_")) return error;
  const meaning = meanings[errno];
  if (meaning === undefined) {
    return localError("UNEXPECTED", `${operation} of ${object} failed with ${errno}`, { operation, cause: error });
  }
  return localError(meaning.code, `${operation} failed: ${object} ${meaning.what} (${errno})`, {
    operation,
    cause: error,
    retryable: meaning.retryable,
  });
}
