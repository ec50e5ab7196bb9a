import { isProviderError, ProviderError, type ProviderErrorCode } from "../provider/error.ts";

/** What each failure of a file system is to a user, and what to do about it. */
const translations: { readonly [code: string]: readonly [ProviderErrorCode, string] } = {
  EACCES: ["DENIED", "this user may not; give it the rights, or choose another state directory"],
  EPERM: ["DENIED", "this user may not; give it the rights, or choose another state directory"],
  EROFS: ["DENIED", "its file system is read-only; mount it writable, or choose another state directory"],
  ENOSPC: ["UNAVAILABLE", "its file system is full; free some space and run again, nothing recorded is lost"],
  EDQUOT: ["UNAVAILABLE", "this user's quota is used up; free some space and run again, nothing recorded is lost"],
  EIO: ["UNAVAILABLE", "the medium failed; look at the system's log before running again"],
  EMFILE: ["UNAVAILABLE", "this process has too many open files; raise the limit (ulimit -n) or work on fewer disks"],
  ENFILE: ["UNAVAILABLE", "this machine has too many open files; run again when there are fewer"],
  ENOENT: ["NOT_FOUND", "it is gone; was the state directory removed or unmounted?"],
  ENOTDIR: ["CONFIG_INVALID", "part of its path is no directory; choose another state directory"],
  EISDIR: ["CORRUPT", "a directory is where a file should be"],
  ENAMETOOLONG: ["CONFIG_INVALID", "its path is too long; choose a state directory with a shorter path"],
  EEXIST: ["EXISTS", "it exists already"],
};

/** A failure of `node:fs` as a user meets it; anything that is none stays as it is. */
export function fileError(error: unknown, operation: string, path: string): unknown {
  if (isProviderError(error)) return error;
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : undefined;
  if (code === undefined || !/^E[A-Z0-9]+$/.test(code)) return error;
  const [kind, remedy] = translations[code] ?? ["UNEXPECTED", `${code}; see the cause`];
  return new ProviderError(kind, `cannot ${operation} ${path}: ${remedy}`, {
    operation: `state ${operation}`,
    // Trying again at once changes nothing for any of them.
    retryable: false,
    cause: error,
  });
}
